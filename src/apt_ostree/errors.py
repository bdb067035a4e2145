"""The error classes: exit code, D-Bus name, message and hint of each.

This module maps failures to what the user sees. It must not print, log or import any other module of the
project. `cli.render` prints errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class AptOstreeError(Exception):
    """A failure that is explained to the user.

    message: what failed, on which object, and why, in one sentence.
    details: further lines (reasons, the tail of a command's output), in order.
    hint: what to do next, or None.
    internals: lines for developers (command lines, tracebacks), shown with --verbose.
    reasons: the details as JSON objects, where a program may want to know which it is (model.policy.Reason).
    concerns_trust: whether it is recorded as a security event; does not travel with the error.
    concerns_health: whether a unit or a health check has failed; does not travel either.
    """

    exit_code = 1
    dbus_name = "org.debian.aptostree1.Error.Failed"

    def __init__(
        self,
        message: str,
        *,
        details: Sequence[str] = (),
        hint: str | None = None,
        internals: Sequence[str] = (),
        reasons: Sequence[Mapping[str, Any]] = (),
        concerns_trust: bool = False,
        concerns_health: bool = False,
    ) -> None:
        super().__init__(message)
        self.concerns_trust = concerns_trust
        self.concerns_health = concerns_health
        self.message = message
        self.details = tuple(details)
        self.hint = hint
        self.internals = tuple(internals)
        self.reasons = tuple(reasons)

    @property
    def kind(self) -> str:
        """The name of the class, as in events and in the output of `--json`."""
        return type(self).__name__

    def to_json(self) -> dict[str, Any]:
        """Return the error as a JSON object, as in events and in the output of `--json`."""
        return {
            "error": self.kind,
            "message": self.message,
            "details": list(self.details),
            "hint": self.hint,
            "internals": list(self.internals),
            "reasons": list(self.reasons),
        }

    def to_text(self) -> str:
        """Return message, details and hint as the text of a D-Bus error, a line each."""
        rows = [self.message, *(f"  {line}" for line in self.details)]
        rows += [f"hint: {self.hint}"] if self.hint else []
        return "\n".join(row.replace("\n", " ") for row in rows)

    @staticmethod
    def from_dbus(name: str, text: str) -> AptOstreeError | None:
        """Return the error of a D-Bus name and the text of `to_text`; None if it is somebody else's."""
        classes: tuple[type[AptOstreeError], ...] = (AptOstreeError, *_BY_KIND.values())
        kinds = [cls for cls in classes if cls.dbus_name == name]
        message, *rows = text.split("\n")
        details = [row.removeprefix("  ") for row in rows if row.startswith("  ")]
        hint = next((row.removeprefix("hint: ") for row in rows if row.startswith("hint: ")), None)
        return kinds[0](message, details=details, hint=hint) if kinds else None

    @staticmethod
    def from_json(obj: Mapping[str, Any]) -> AptOstreeError:
        """Return the error of a JSON object; an unknown kind becomes an AptOstreeError."""
        return _BY_KIND.get(obj["error"], AptOstreeError)(
            obj["message"],
            details=obj["details"],
            hint=obj["hint"],
            internals=obj["internals"],
            reasons=obj.get("reasons", ()),
        )


class UsageError(AptOstreeError):
    """The request or the configuration is wrong; nothing was changed."""

    exit_code = 2
    dbus_name = "org.debian.aptostree1.Error.Usage"


class Refused(AptOstreeError):
    """A precondition or a policy is not met; nothing was changed. `details` lists the reasons."""

    exit_code = 3
    dbus_name = "org.debian.aptostree1.Error.Refused"


class NotAuthorized(AptOstreeError):
    """The caller lacks the rights for this; nothing was changed."""

    exit_code = 4
    dbus_name = "org.debian.aptostree1.Error.NotAuthorized"


class ExternalFailure(AptOstreeError):
    """ostree, apt, dpkg, mount, systemd or the disk failed; everything was undone."""

    exit_code = 1
    dbus_name = "org.debian.aptostree1.Error.ExternalFailure"


class Incomplete(AptOstreeError):
    """Failed and not completely undone; the hint names the command that recovers."""

    exit_code = 5
    dbus_name = "org.debian.aptostree1.Error.Incomplete"


class Cancelled(AptOstreeError):
    """Cancelled by the user; everything was undone."""

    exit_code = 130
    dbus_name = "org.debian.aptostree1.Error.Cancelled"


#: Exit code of `--unchanged-exit-77` if nothing changed, as in rpm-ostree.
EXIT_UNCHANGED = 77

_BY_KIND: dict[str, type[AptOstreeError]] = {
    cls.__name__: cls for cls in (UsageError, Refused, NotAuthorized, ExternalFailure, Incomplete, Cancelled)
}


def from_os_error(error: OSError) -> ExternalFailure:
    """Return an ExternalFailure that names the file of a system call that failed."""
    target = f" on {error.filename}" if error.filename else ""
    return ExternalFailure(f"the system refused an operation{target}: {error.strerror or error}")
