"""Every error class of the product: exit code, D-Bus name, message and way forward.

Owns the mapping from a failure to what the user sees; must not print, log or import anything else of
the project. Rendering happens in one place, `cli.render`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class AptOstreeError(Exception):
    """A failure that is explained to the user.

    message:   what failed, on which object, and why, in one sentence.
    details:   further lines (reasons, the tail of a command's output), in order.
    hint:      what to do next, or None when nothing sensible can be said.
    internals: lines that matter to developers only (command lines, tracebacks), shown on request.
    """

    exit_code = 1
    dbus_name = "org.debian.AptOstree1.Error.Failed"

    def __init__(
        self,
        message: str,
        *,
        details: Sequence[str] = (),
        hint: str | None = None,
        internals: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)
        self.hint = hint
        self.internals = tuple(internals)

    @property
    def kind(self) -> str:
        """Name of the class, as it travels in events and `--json` output."""
        return type(self).__name__

    def to_json(self) -> dict[str, Any]:
        """Return the error as it travels between processes and in `--json` output."""
        return {
            "error": self.kind,
            "message": self.message,
            "details": list(self.details),
            "hint": self.hint,
            "internals": list(self.internals),
        }

    @staticmethod
    def from_json(obj: Mapping[str, Any]) -> AptOstreeError:
        """Return the error that `to_json` gave; an unknown kind becomes the base class."""
        return _BY_KIND.get(obj["error"], AptOstreeError)(
            obj["message"], details=obj["details"], hint=obj["hint"], internals=obj["internals"]
        )


class UsageError(AptOstreeError):
    """Bad request or configuration; nothing was touched."""

    exit_code = 2
    dbus_name = "org.debian.AptOstree1.Error.Usage"


class Refused(AptOstreeError):
    """A precondition or a policy said no; nothing was touched. `details` lists the reasons."""

    exit_code = 3
    dbus_name = "org.debian.AptOstree1.Error.Refused"


class NotAuthorized(AptOstreeError):
    """The caller may not do this; nothing was touched."""

    exit_code = 4
    dbus_name = "org.debian.AptOstree1.Error.NotAuthorized"


class ExternalFailure(AptOstreeError):
    """ostree, apt, dpkg, mount, systemd or the disk failed; everything was undone."""

    exit_code = 1
    dbus_name = "org.debian.AptOstree1.Error.ExternalFailure"


class Incomplete(AptOstreeError):
    """Failed and not fully undone: names what is left and the one command that recovers."""

    exit_code = 5
    dbus_name = "org.debian.AptOstree1.Error.Incomplete"


class Cancelled(AptOstreeError):
    """Cancelled by the user; everything was undone."""

    exit_code = 130
    dbus_name = "org.debian.AptOstree1.Error.Cancelled"


#: Exit code of `--unchanged-exit-77` when there was nothing to do (rpm-ostree's convention).
EXIT_UNCHANGED = 77

_BY_KIND: dict[str, type[AptOstreeError]] = {
    cls.__name__: cls for cls in (UsageError, Refused, NotAuthorized, ExternalFailure, Incomplete, Cancelled)
}
