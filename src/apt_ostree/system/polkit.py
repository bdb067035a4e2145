"""polkit: asks it whether a client of the service may do something."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from dasbus.client.handler import GLibClient
from dasbus.client.observer import GLibMonitoring
from dasbus.typing import Str, get_variant

from apt_ostree.errors import AptOstreeError, NotAuthorized

_NAME = "org.freedesktop.PolicyKit1"
_PATH = "/org/freedesktop/PolicyKit1/Authority"
_AUTHORITY = "org.freedesktop.PolicyKit1.Authority"
_ALLOW_DIALOG = 1
_numbers = itertools.count()


class Check:
    """A question to polkit about one client, answered without waiting; ends when the client leaves the bus.

    sender: the client's unique name.
    actions: all of them are needed.
    interactive: the client agrees to a dialog.
    allowed, refused: one of them is called.
    """

    def __init__(
        self,
        bus: Any,
        sender: str,
        actions: Sequence[str],
        *,
        interactive: bool,
        allowed: Callable[[], None],
        refused: Callable[[AptOstreeError], None],
    ) -> None:
        self._bus = bus
        self._sender = sender
        self._left = list(actions)
        self._interactive = interactive
        self._allowed, self._refused = allowed, refused
        self._cancellation = f"apt-ostree-{next(_numbers)}"
        self._unwatch = GLibMonitoring.watch_name(
            bus.connection, sender, name_vanished=lambda *_: self._cancel()
        )
        self._ask()

    def _ask(self) -> None:
        action = self._left[0]
        subject = ("system-bus-name", {"name": get_variant(Str, self._sender)})
        flags = _ALLOW_DIALOG if self._interactive else 0
        arguments: Any = (subject, action, {}, flags, self._cancellation)
        self._call("CheckAuthorization", "((sa{sv})sa{ss}us)", arguments, self._on_reply)

    def _on_reply(self, finish: Callable[[], Any]) -> None:
        try:
            ((is_authorized, is_challenge, _details),) = finish().unpack()
        except RuntimeError as error:  # GLib.Error
            refusal = _unavailable(error)
            self._end(lambda: self._refused(refusal))
            return
        if not is_authorized:
            self._end(lambda: self._refused(_refusal(self._left[0], can_ask=is_challenge)))
        elif len(self._left) > 1:
            self._left.pop(0)
            self._ask()
        else:
            self._end(self._allowed)

    def _end(self, tell: Callable[[], None]) -> None:
        self._unwatch()
        tell()

    def _cancel(self) -> None:
        """Close the dialog of a client that has left; polkit then replies with an error."""
        self._call("CancelCheckAuthorization", "(s)", (self._cancellation,), lambda _finish: None)

    def _call(self, method: str, kind: str, arguments: Any, then: Callable[..., None]) -> None:
        GLibClient.async_call(
            self._bus.connection, _NAME, _PATH, _AUTHORITY, method, get_variant(kind, arguments), None, then
        )  # fmt: skip


def _unavailable(error: Exception) -> NotAuthorized:
    return NotAuthorized(
        "polkit, which decides who may do this, does not answer",
        details=(GLibClient.get_remote_error_message(error),),
        hint="only root can do this without it; install polkitd, or use sudo",
    )


def _refusal(action: str, *, can_ask: bool) -> NotAuthorized:
    hint = "run the command in a terminal, where you can authenticate" if can_ask else "ask an administrator"
    return NotAuthorized(
        "you are not authorized to do this",
        details=(f"polkit refused {action}",),
        hint=f"{hint}, or run it with sudo",
    )
