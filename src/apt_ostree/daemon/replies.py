"""Calls over D-Bus: arguments in JSON, replies that are given later, and errors by their names."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from dasbus.server.handler import GLibServer, ServerObjectHandler

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

    def then(self, shape: Callable[[Any], Any]) -> Later:
        """Return the reply in another shape."""
        shaped = Later()

        def fail(error: Exception) -> None:
            shaped.fail(error)

        self.give, self.fail = lambda value: shaped.give(shape(value)), fail
        return shaped


class Passed:
    """The files that were passed with a call, which names them by their indexes."""

    def __init__(self, descriptors: Iterable[int]) -> None:
        self._left = dict(enumerate(descriptors))

    def take(self, indexes: Iterable[int]) -> list[int]:
        """Return descriptors, which are the caller's from now on; raise UsageError if one was not passed."""
        chosen = list(indexes)
        if len({*chosen}) < len(chosen) or not {*chosen} <= self._left.keys():
            raise UsageError("the call names a file that was not passed with it")
        return [self._left.pop(index) for index in chosen]

    def close(self) -> None:
        """Close what was not taken."""
        while self._left:
            os.close(self._left.popitem()[1])


class Server(GLibServer):  # type: ignore[misc]  # dasbus has no types
    """dasbus' server, which also tells whether the caller agrees to a dialog, and what was passed.

    Not GLibServerUnix: in a call without files it takes the numbers of a client for descriptors of this
    process, and it never closes a file that no argument names.
    """

    @classmethod
    def get_call_info(cls, invocation: Any) -> dict[str, Any]:
        """Return `sender`, `interactive` and `files` of a call; the handler closes the latter."""
        message = invocation.get_message()
        passed = message.get_unix_fd_list()
        return {
            "sender": invocation.get_sender(),
            "interactive": bool(int(message.get_flags()) & _INTERACTIVE),
            "files": Passed(passed.steal_fds() if passed else ()),
        }


class Handler(ServerObjectHandler):  # type: ignore[misc]  # dasbus has no types
    """dasbus' handler of an object, whose methods can reply later and whose errors are no tracebacks."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, server=Server, **options)
        self._passed = Passed(())

    def _get_additional_arguments(self, *arguments: Any) -> dict[str, Any]:
        additional: dict[str, Any] = super()._get_additional_arguments(*arguments)
        self._passed = additional["call_info"]["files"]
        return additional

    def _method_callback(self, *arguments: Any) -> None:
        try:
            super()._method_callback(*arguments)
        finally:
            self._passed.close()

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
