"""Calls over D-Bus: arguments in JSON, replies that are given later, and errors by their names."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from dasbus.server.handler import ServerObjectHandler
from dasbus.unix import GLibServerUnix

from apt_ostree.errors import AptOstreeError, UsageError, from_os_error

#: A client's agreement to a dialog (D-Bus specification, ALLOW_INTERACTIVE_AUTHORIZATION).
_INTERACTIVE = 4
#: Characters of an argument.
_LONGEST = 500_000


def read_json(text: str, what: str) -> Any:
    """Return the value of a text in JSON; raise UsageError for another or a long one, which costs memory."""
    if len(text) > _LONGEST:
        raise UsageError(f"{what} has {len(text)} characters, and may have {_LONGEST}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what} is not JSON: {error}") from error


class Later:
    """A reply that a method gives after it has returned this; one of its functions is called once."""

    def __init__(self) -> None:
        self.give: Callable[[Any], None]
        self.fail: Callable[[Exception], None]


class Server(GLibServerUnix):  # type: ignore[misc]  # dasbus has no types
    """dasbus' server, which also tells whether the caller agrees to a dialog."""

    @classmethod
    def get_call_info(cls, invocation: Any) -> dict[str, Any]:
        """Return `sender` and `interactive` of a call."""
        interactive = int(invocation.get_message().get_flags()) & _INTERACTIVE
        return {"sender": invocation.get_sender(), "interactive": bool(interactive)}


class Handler(ServerObjectHandler):  # type: ignore[misc]  # dasbus has no types
    """dasbus' handler of an object, whose methods can reply later and whose errors are no tracebacks."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, server=Server, **options)

    def _handle_method_result(self, invocation: Any, method_spec: Any, method_reply: Any) -> None:
        answer = partial(super()._handle_method_result, invocation, method_spec)
        if isinstance(method_reply, Later):
            method_reply.give = answer
            method_reply.fail = partial(self._handle_method_error, invocation, "", "")
        else:
            answer(method_reply)

    def _handle_method_error(self, invocation: Any, interface: str, method: str, error: Exception) -> None:
        if isinstance(error, OSError):
            error = from_os_error(error)
        if isinstance(error, AptOstreeError):
            self._server.set_call_error(invocation, error.dbus_name, error.to_text())
        else:
            super()._handle_method_error(invocation, interface, method, error)
