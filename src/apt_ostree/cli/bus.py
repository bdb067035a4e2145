"""The client of the service on the system bus: asks it, and has it carry out requests."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from apt_ostree.errors import AptOstreeError
from apt_ostree.model import bus as names
from apt_ostree.model.request import Request

#: The errors of a call whose service ends before it has replied.
_ENDED = (".NoReply", ".Disconnected")


class Unavailable(Exception):
    """There is no bus, or no service on it."""


def ask(query: Request) -> Any:
    """Return the service's answer to a query, as JSON; raise its error, or Unavailable."""
    with _translated():
        service = _bus().get_proxy(names.NAME, names.PATH, names.QUERIES)
        return json.loads(service.Query(query.verb, json.dumps(query.to_json())))


def start(request: Request, *, ask: bool, wait: bool) -> Transaction:
    """Have the service carry out a request; return its transaction, or raise its error, or Unavailable.

    On a terminal, polkit may ask the user for a password.
    """
    from dasbus.typing import Bool, get_variant
    from dasbus.unix import GLibClientUnix

    from apt_ostree.system import polkit

    with _translated(), polkit.agent():
        bus = _bus()
        proxy = bus.get_proxy(names.NAME, names.TRANSACTIONS_PATH, names.TRANSACTIONS, client=GLibClientUnix)
        path = proxy.Start(
            request.verb,
            json.dumps(request.with_indexes().to_json()),
            [os.dup(file.fd) for file in request.open_files],  # Gio closes what it sends
            {"ask": get_variant(Bool, ask), "wait": get_variant(Bool, wait)},
            flags=_dialog_flags(),
        )
        return Transaction(bus, path)


class Transaction:
    """A transaction of the service. The service may be ended and started again meanwhile."""

    def __init__(self, bus: Any, path: str) -> None:
        from dasbus.client.handler import GLibClient
        from dasbus.client.observer import GLibMonitoring

        from apt_ostree.system.mainloop import MainLoop

        self._loop = MainLoop()
        self._proxy = bus.get_proxy(names.NAME, path, names.TRANSACTION)
        self._events: dict[int, str] = {}
        self._next = 0
        self._failure: Exception | None = None
        connection = bus.connection
        GLibClient.subscribe_signal(
            connection,
            names.NAME,
            path,
            names.TRANSACTION,
            "Event",
            lambda event: self._take(*event.unpack()),
        )
        # Now, and whenever the service comes again.
        GLibMonitoring.watch_name(connection, names.NAME, name_vanished=self._call, name_appeared=self._call)

    def lines(self) -> Iterator[str]:
        """Yield the events as JSON, in their order; raise AptOstreeError if the transaction is lost."""
        while True:
            while (event := self._events.pop(self._next, None)) is not None:
                self._next += 1
                yield event
            if self._failure:
                raise AptOstreeError(
                    "the service does not know the transaction any more",
                    details=(str(self._failure),),
                    hint="see 'apt-ostree history'",
                ) from self._failure
            self._loop.run()

    def answer(self, *, proceed: bool) -> None:
        """Answer the question that is open; again, if the service ends before it has replied."""
        from dasbus.error import DBusError

        def replied(finish: Callable[[], Any]) -> None:
            try:
                finish()
            except DBusError as error:
                if error.dbus_name.endswith(_ENDED):
                    self.answer(proceed=proceed)

        self._proxy.Answer(proceed, callback=replied)

    def cancel(self) -> None:
        """Cancel the transaction; its end is told as an event."""
        self._proxy.Cancel(callback=lambda _finish: None)

    def close(self) -> None:
        """Release what was acquired: nothing, since the connection ends with this process."""

    def _call(self, *_: Any) -> None:
        """Get the events that were missed; this starts the service if it has ended."""
        first = self._next
        self._proxy.Events(first, callback=lambda finish: self._on_events(first, finish))

    def _on_events(self, first: int, finish: Any) -> None:
        from dasbus.error import DBusError

        try:
            for number, event in enumerate(finish(), first):
                self._take(number, event)
        except DBusError as error:
            if not error.dbus_name.endswith(_ENDED):  # else it is asked again
                self._failure = error  # raised by `lines`
                self._loop.quit()

    def _take(self, number: int, event: str) -> None:
        if number >= self._next:
            self._events[number] = event
        self._loop.quit()


def _bus() -> Any:
    from dasbus.connection import SystemMessageBus

    return SystemMessageBus()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raise the service's errors as ours, and those of the bus as Unavailable."""
    from dasbus.error import DBusError

    try:
        yield
    except DBusError as error:
        ours = AptOstreeError.from_dbus(error.dbus_name, str(error))
        raise ours or Unavailable(str(error)) from error
    except RuntimeError as error:  # GLib.Error, if there is no bus
        raise Unavailable(str(error)) from error


def _dialog_flags() -> Any:
    from gi.repository import Gio

    return Gio.DBusCallFlags.ALLOW_INTERACTIVE_AUTHORIZATION
