"""The client of the service on the system bus: asks it, and has it carry out requests."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from apt_ostree.errors import AptOstreeError, Cancelled
from apt_ostree.model import bus as names
from apt_ostree.model.request import Request
from apt_ostree.model.transaction import Phase
from apt_ostree.system import busclient
from apt_ostree.system.busclient import Bus, BusError, NoBus

_QUERIES = busclient.Object(names.NAME, names.PATH, names.QUERIES)
_SYSROOT = busclient.Object(names.NAME, names.SYSROOT_PATH, names.SYSROOT)
_TRANSACTIONS = busclient.Object(names.NAME, names.TRANSACTIONS_PATH, names.TRANSACTIONS)
#: Seconds for a call, which may start the service, and for one in which polkit may ask the user.
_CALL, _DIALOG = 60.0, 600.0
#: How often a call is made again, also if a transaction is at work, and after how many seconds.
_TRIES, _MOST_TRIES, _PAUSE = 5, 20, 0.3


class Unavailable(Exception):
    """There is no bus, or no service on it: nothing was asked for."""


def ask(query: Request) -> Any:
    """Return the service's answer to a query, as JSON; raise its error, or Unavailable."""
    with _translated():
        (text,) = Bus().call(
            _QUERIES, "Query", "ss", (query.verb, json.dumps(query.to_json())), seconds=_CALL
        )
    return json.loads(text)


def start(request: Request, *, ask: bool, wait: bool, environment: Mapping[str, str]) -> Transaction:
    """Have the service carry out a request; return its transaction, or raise its error, or Unavailable.

    A user may be asked for a password on a terminal.
    """
    options: dict[str, tuple[str, Any]] = {
        "ask": ("b", ask),
        "wait": ("b", wait),
        "key": ("s", uuid.uuid4().hex),
    }
    if environment:
        options["environment"] = ("a{ss}", dict(environment))
    text = json.dumps(request.with_indexes().to_json())
    arguments = (request.verb, text, [file.fd for file in request.open_files], options)
    is_root = os.geteuid() == 0
    with _translated(), _agent():
        bus = Bus()
        seconds = _CALL if is_root else _DIALOG
        (path,) = _persistently(
            partial(
                bus.call, _TRANSACTIONS, "Start", "ssaha{sv}", arguments, dialog=not is_root, seconds=seconds
            )
        )  # fmt: skip
    return Transaction(bus, path)


def _persistently(call: Callable[[], tuple[Any, ...]], *, patient: bool = False) -> tuple[Any, ...]:
    """Make a call again if the service ends while it starts, or before it has replied.

    patient: the service is there for sure, although it may take long to start.
    """
    for _try in range(_MOST_TRIES if patient else _TRIES):
        try:
            return call()
        except BusError as error:
            can_come = error.is_lost or error.is_absent or (patient and error.is_late)
            if not error.name or not can_come:
                raise
            time.sleep(_PAUSE)
    return call()


def reload() -> None:
    """Have the service look at the system again; raise its error, or Unavailable."""
    with _translated():
        Bus().call(_SYSROOT, "Reload", "", (), seconds=_CALL)


@dataclass(frozen=True, slots=True)
class Active:
    """The transaction that is at work. title: the command as the history shows it."""

    title: str
    _bus: Bus
    _path: str

    def cancel_and_wait(self) -> bool:
        """Cancel it, and return whether that was in time; raise NotAuthorized if it is another user's."""
        target = busclient.Object(names.NAME, self._path, names.TRANSACTION)
        with _translated(), _agent():
            self._bus.call(target, "Cancel", "", (), dialog=os.geteuid() != 0, seconds=_DIALOG)
        *_events, end = Transaction(self._bus, self._path).lines()
        return bool(json.loads(end).get("error") == Cancelled.__name__)


def active() -> Active | None:
    """Return the transaction that is at work, if any; raise Unavailable."""
    with _translated():
        bus = Bus()
        (rows,) = bus.call(_TRANSACTIONS, "List", "", (), seconds=_CALL)
    at_work = (Phase.RUNNING, Phase.ASKING)
    return next((Active(title, bus, path) for path, title, _uid, phase in rows if phase in at_work), None)


class Transaction:
    """A transaction of the service. The service may be ended and started again meanwhile."""

    def __init__(self, bus: Bus, path: str) -> None:
        self._bus = bus
        self._object = busclient.Object(names.NAME, path, names.TRANSACTION)
        self._events: dict[int, str] = {}
        self._next = 0

    def lines(self) -> Iterator[str]:
        """Yield the events as JSON, the end as the last; raise AptOstreeError if the transaction is lost."""
        try:
            self._bus.subscribe(self._object, "Event")
            self._get_missed()
            while True:
                while (event := self._events.pop(self._next, None)) is not None:
                    self._next += 1
                    try:
                        is_end = json.loads(event)["event"] == "end"
                    except ValueError:  # cut short, as the worker was killed
                        continue
                    yield event
                    if is_end:
                        return
                self._receive()
        except BusError as error:
            raise _lost("the transaction cannot be followed any more", error) from error

    def answer(self, *, proceed: bool) -> None:
        """Answer the question that is open; again, if the service ends before it has replied."""
        with contextlib.suppress(BusError):  # such as: somebody else has answered, or it has ended
            _persistently(partial(self._bus.call, self._object, "Answer", "b", (proceed,), seconds=_CALL))

    def cancel(self) -> None:
        """Cancel the transaction; its end is told as an event."""
        with contextlib.suppress(BusError):  # it is told where the events are awaited
            self._bus.send(self._object, "Cancel", "", ())

    def close(self) -> None:
        """Release what was acquired: nothing, since the connection ends with this process."""

    def _receive(self) -> None:
        """Wait for an event."""
        values = self._bus.receive()
        if values is None:
            self._get_missed()
        else:
            self._take(*values)

    def _get_missed(self) -> None:
        """Get the events that were missed; this starts the service if it has ended."""
        (events,) = _persistently(
            partial(self._bus.call, self._object, "Events", "t", (self._next,), seconds=_CALL),
            patient=True,
        )
        for number, event in enumerate(events, self._next):
            self._take(number, event)

    def _take(self, number: int, event: str) -> None:
        if number >= self._next:
            self._events[number] = event


def _agent() -> contextlib.AbstractContextManager[None]:
    """Have polkit ask a user on the terminal."""
    if os.geteuid() == 0:
        return contextlib.nullcontext()
    from apt_ostree.system import polkit_agent

    return polkit_agent.agent()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raise the service's errors as ours; any other one as Unavailable if the service has heard nothing."""
    try:
        yield
    except NoBus as error:
        raise Unavailable(str(error)) from error
    except BusError as error:
        if ours := AptOstreeError.from_dbus(error.name, str(error)):
            raise ours from error
        if error.is_lost:
            raise _lost("the service did not reply", error) from error
        raise Unavailable(str(error)) from error


def _lost(message: str, error: BusError) -> AptOstreeError:
    return AptOstreeError(
        message,
        details=(str(error),),
        hint="it may be at work all the same; see 'apt-ostree status' and 'history'",
    )
