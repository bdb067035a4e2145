"""Transactions on the bus: makes them, starts a worker for each in a unit, and tells what it reports.

data/dbus/org.debian.aptostree1.xml describes the interfaces.
"""

# No `from __future__ import annotations`: dasbus makes the interfaces of the hints, which have to be types.
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from dasbus.client.observer import GLibMonitoring
from dasbus.server.interface import accepts_additional_arguments, dbus_interface
from dasbus.typing import List, ObjPath, Str, Structure, Tuple, UInt32, UnixFD, get_native
from systemd import journal

from apt_ostree import program
from apt_ostree.core import queries
from apt_ostree.daemon.authority import Authority
from apt_ostree.daemon.deferred import authorization, calls, operation
from apt_ostree.daemon.queue import Item, Queue
from apt_ostree.daemon.replies import Handler, read_json
from apt_ostree.daemon.transaction import Transaction
from apt_ostree.errors import AptOstreeError, Cancelled, NotAuthorized, UsageError, from_os_error
from apt_ostree.model import bus as names
from apt_ostree.model import jsonvalue
from apt_ostree.model.caller import Caller
from apt_ostree.model.events import Message, to_wire
from apt_ostree.model.request import Request
from apt_ostree.model.requests import read_request
from apt_ostree.model.sizes import show_size
from apt_ostree.model.transaction import PASSED_ON, Phase, Record, id_of_unit
from apt_ostree.system import openfiles, settings, transaction_files
from apt_ostree.system.caller import caller_of, user_name
from apt_ostree.system.mainloop import MainLoop
from apt_ostree.system.systemd_units import Units

#: Seconds for which a transaction that has ended can be asked for its events, and for which a question waits
#: for a client that comes again.
_PATIENCE = 30.0
NOT_ACTIVE = ("", "", "")
_WORKER = program.command("worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """Options of a call of Start; see Record."""

    ask: bool = False
    wait: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    key: str = ""


@dbus_interface(names.TRANSACTIONS)
class Transactions:
    """The transactions, and their workers.

    bus: the connection on which they are objects.
    """

    def __init__(self, bus: Any, loop: MainLoop) -> None:
        self._bus = bus
        self._loop = loop
        self._queue = Queue()
        self._objects: dict[int, Transaction] = {}
        self._authority = Authority(bus)
        self._units = Units(bus, self._on_unit_removed)
        self._on_active: list[Callable[[], None]] = []
        self._on_event: list[Callable[[Item, int, str], None]] = []
        self._active = NOT_ACTIVE

    @property
    def is_busy(self) -> bool:
        """Return whether a transaction has not ended, or polkit is asked about one."""
        return self._queue.is_busy or self._authority.is_busy

    @property
    def running(self) -> Item | None:
        """Return the transaction that is at work."""
        return self._queue.running

    @property
    def active(self) -> tuple[str, str, str]:
        """Return title, user and object of the transaction that is at work; three empty ones without one."""
        running = self._queue.running
        record = running.record if running else None
        return (record.title, record.caller.user, names.path_of(record.id)) if record else NOT_ACTIVE

    def on_active(self, act: Callable[[], None]) -> None:
        """Have a function called when another transaction is at work, or none."""
        self._on_active.append(act)

    def on_event(self, act: Callable[[Item, int, str], None]) -> None:
        """Have a function called with each event of a transaction, and its number, after it was told."""
        self._on_event.append(act)

    def _tell_active(self) -> None:
        before, self._active = self._active, self.active
        if before != self._active:
            for act in self._on_active:
                act()

    # --- methods of the interface

    @accepts_additional_arguments
    def Start(  # noqa: N802
        self,
        verb: Str,
        request: Str,
        files: List[UnixFD],
        options: Structure,
        *,
        call_info: Mapping[str, Any],
    ) -> ObjPath:
        """Make a transaction of a request, if the caller may, and return its object."""
        taken = call_info["files"].take(files)
        try:
            return self.begin(_read(verb, request, len(taken)), taken, get_native(options), call_info)
        except BaseException:
            close(taken)
            raise

    def List(self) -> List[Tuple[ObjPath, Str, UInt32, Str]]:  # noqa: N802
        """Return object, title, user and phase of all transactions, in their order."""
        self._loop.touch()
        rows = ((item.record, item.phase) for item in self._queue)
        return [(names.path_of(r.id), r.title, r.caller.uid, str(phase)) for r, phase in rows]

    # --- making

    def begin_typed(
        self,
        make: Callable[[Mapping[str, Any]], Request],
        options: Structure,
        call: Mapping[str, Any],
        files: list[int] | None = None,
    ) -> Any:
        """Make a transaction of the request that a typed call makes of its options; see `begin`."""
        own, others = calls.of_transaction(get_native(options))
        return self.begin(make(others), files or [], own, call)

    def begin(
        self, request: Request, files: list[int], options: Mapping[str, Any], call: Mapping[str, Any]
    ) -> Any:
        """Make a transaction of a request, if the caller may; return its object, or a Later that has it.

        files: are closed when the transaction has ended; if this raises, they are the caller's.
        """
        item = self.prepare(request, files, options, call)
        uid = item.record.caller.uid
        own = uid != 0 and authorization.is_own(request, user_name(uid), _owner_of)
        actions = authorization.actions_of(request, own=own)

        def add() -> str:
            return names.path_of(self.add(item).record.id)

        return self.if_allowed(item, actions, call, add)

    def prepare(
        self, request: Request, files: list[int], options: Mapping[str, Any], call: Mapping[str, Any]
    ) -> Item:
        """Return a transaction that can be added; raise UsageError if the caller may not make the request."""
        self._loop.touch()
        given = jsonvalue.read(_Options, options, name="the options")
        sender = call["sender"]
        caller = self._caller(sender)
        if caller.uid != 0:
            _refuse_others_than_files(request, files)
            if given.environment:
                raise UsageError("environment: only root can set it")
        if others := given.environment.keys() - {*PASSED_ON}:
            raise UsageError(f"environment: {min(others)} is none of {', '.join(PASSED_ON)}")
        record = Record(
            id=0,
            verb=request.verb,
            title=request.title,
            request=request.to_json(),
            caller=caller,
            ask=given.ask,
            wait=given.wait,
            files=len(files),
            environment=given.environment,
            key=given.key,
        )
        return Item(record, client=sender, files=files)

    def if_allowed(
        self, item: Item, actions: tuple[str, ...], call: Mapping[str, Any], act: Callable[[], Any]
    ) -> Any:
        """Act on a transaction if its user may; return the reply, which can come later.

        If the user may not, its files are closed. If this raises, they are the caller's.
        """
        if item.record.caller.uid == 0:
            return act()

        def otherwise(error: Exception) -> None:
            close(item.files)
            _record_denial(item.record.caller, read_request(item.record.verb, item.record.request), error)

        return self._authority.ask(actions, call, act, otherwise=otherwise)

    def add(self, item: Item) -> Item:
        """Add a transaction, and return it, or another one that does the same."""
        if same := self._queue.same(item.record):
            close(item.files)
            return same
        self._queue.refuse(item.record)
        item.record = replace(item.record, id=transaction_files.new_id())
        transaction_files.create(item.record)
        if running := self._queue.running:
            text = f"Waiting for '{running.record.title}' of {running.record.caller.user} to end..."
            transaction_files.append_event(item.record.id, to_wire(Message(text)))
        self._publish(item)
        self._launch_next()
        return item

    def _caller(self, sender: str) -> Any:
        uid = self._bus.proxy.GetConnectionUnixUser(sender)
        return caller_of(uid, self._bus.proxy.GetConnectionUnixProcessID(sender))

    def _publish(self, item: Item) -> None:
        number = item.record.id
        self._queue.add(item)
        self._objects[number] = Transaction(self, item)
        self._bus.publish_object(names.path_of(number), self._objects[number], server_factory=Handler)
        if item.client:
            self._watch_client(item)

    def resume(self) -> None:
        """Take over the transactions of a service that was ended while they ran."""
        for record in transaction_files.records():
            item = Item(record)
            self._publish(item)
            if transaction_files.was_started(record.id):
                item.phase = Phase.RUNNING
                self._follow(item)
                if not item.has_ended and not self._units.exists(record.unit):
                    self._end_without_answer(item)
            elif record.files:  # they were open in the service that has ended
                self._end_with(item, "the service was ended before it began")
        self._launch_next()

    # --- workers

    def _launch_next(self) -> None:
        item = self._queue.due()
        if item is None:
            return
        item.phase = Phase.RUNNING
        self._loop.later(0, partial(self._launch, item))  # after the reply, so that no event is missed
        self._tell_active()

    def _launch(self, item: Item) -> None:
        record = item.record
        line = {"verb": record.verb, "request": record.request, "ask": record.ask, "wait": record.wait}
        line["files"] = {"pid": os.getpid(), "rows": openfiles.passed(item.files)}
        try:
            with (
                transaction_files.opened(record.id, json.dumps(line)) as (stdin, stdout),
                journal.stream("apt-ostree") as log,
            ):
                descriptors = {
                    "StandardInput": stdin,
                    "StandardOutput": stdout,
                    "StandardError": log.fileno(),
                }
                transaction_files.mark_started(record.id)
                self._units.start(
                    record.unit,
                    _WORKER,
                    description=f"apt-ostree {record.title}",
                    environment=record.environment,
                    limits=_limits(),
                    descriptors=descriptors,
                    failed=partial(self._end_with, item),
                )
        except AptOstreeError as error:
            self._end(item, error)
        except OSError as error:
            self._end(item, from_os_error(error))
        else:
            self._follow(item)

    def _follow(self, item: Item) -> None:
        item.watches.append(
            self._loop.watch(transaction_files.events_file(item.record.id), partial(self._relay, item))
        )
        self._relay(item)

    def _relay(self, item: Item) -> None:
        """Tell of the events that the worker has written since."""
        if item.has_ended:
            return
        lines, item.offset = transaction_files.read_events(item.record.id, item.offset)
        for line in lines:
            self._loop.touch()
            number = item.count
            self._objects[item.record.id].tell(number, line)
            item.take(line)
            for act in self._on_event:
                act(item, number, line)
        if item.has_ended:
            self._forget(item)
        elif item.phase is Phase.ASKING and not item.client:
            self._loop.later(_PATIENCE, partial(self._decline_if_abandoned, item))
        if lines:
            self._launch_next()
            self._tell_active()

    def _on_unit_removed(self, name: str) -> None:
        number = id_of_unit(name)
        for item in self._queue:
            if item.record.id != number or self._units.exists(name):  # systemd was only reloaded
                continue
            self._relay(item)
            if not item.has_ended:
                self._end_without_answer(item)

    def _end_without_answer(self, item: Item) -> None:
        memory = _limits().get("MemoryMax")
        cause = f", as happens beyond MemoryMax= ({show_size(memory)})" if memory else ""
        self._end_with(item, f"it was ended from outside{cause}; see 'journalctl --unit={item.record.unit}'")

    def _end_with(self, item: Item, reason: str) -> None:
        self._end(
            item,
            AptOstreeError(
                "the worker ended without an answer",
                details=(reason,),
                hint="an unfinished change is undone at the next call or boot",
            ),
        )

    def _end(self, item: Item, error: AptOstreeError) -> None:
        transaction_files.append_event(item.record.id, {"event": "end", "ok": False, **error.to_json()})
        self._relay(item)

    def _forget(self, item: Item) -> None:
        """Forget a transaction that has ended, after a while."""
        close(item.files)
        while item.watches:
            item.watches.pop()()
        self._loop.later(_PATIENCE, partial(self._drop, item.record.id))

    def _drop(self, number: int) -> None:
        self._queue.drop(number)
        del self._objects[number]
        self._bus.unpublish_object(names.path_of(number))
        transaction_files.remove(number)

    def close(self) -> None:
        """Remove what is left of transactions that have ended."""
        for item in self._queue:
            if item.has_ended:
                self._drop(item.record.id)

    # --- methods of a transaction

    def events(self, item: Item, first: int, sender: str) -> list[str]:
        """Return the events from a number on; who made the request can answer the question from now on."""
        self._loop.touch()
        if not item.client and not item.has_ended and self._caller(sender).uid == item.record.caller.uid:
            item.client = sender
            self._watch_client(item)
        return transaction_files.read_events(item.record.id)[0][first:]

    def answer(self, item: Item, sender: str, *, proceed: bool) -> None:
        """Answer the open question for the one who made the request; raise NotAuthorized for others."""
        self._loop.touch()
        if self._caller(sender).uid not in (0, item.record.caller.uid):
            error = NotAuthorized("another user's question", hint="only who made the request can answer it")
            _record_denial(self._caller(sender), f"answer for '{item.record.title}'", error)
            raise error
        if item.phase is not Phase.ASKING:
            raise UsageError("no question is open")
        self._answer(item, proceed=proceed)

    def _answer(self, item: Item, *, proceed: bool) -> None:
        item.phase = Phase.RUNNING
        answer = {"proceed": proceed, "question": item.questions}
        transaction_files.answer(item.record.id, answer)

    def cancel(self, item: Item, call: Mapping[str, Any]) -> Any:
        """Cancel a transaction for its user, root, or whom polkit allows it."""
        self._loop.touch()
        act = partial(self.end_early, item)
        caller = self._caller(call["sender"])
        if caller.uid in (0, item.record.caller.uid):
            return act()
        otherwise = partial(_record_denial, caller, f"cancel '{item.record.title}'")
        return self._authority.ask((authorization.CANCEL,), call, act, otherwise=otherwise)

    def end_early(self, item: Item) -> None:
        """Have everything undone that a transaction has done; one that waits is ended."""
        if item.phase is Phase.QUEUED:
            error = Cancelled("cancelled before anything was done")
            self._end(item, error)
            operation.note_refusal(
                item.record.caller, read_request(item.record.verb, item.record.request), error
            )
        elif not item.has_ended:
            self._units.terminate(item.record.unit)

    def _watch_client(self, item: Item) -> None:
        def vanished(*_: Any) -> None:
            item.client = ""
            self._loop.later(_PATIENCE, partial(self._decline_if_abandoned, item))

        item.watches.append(
            GLibMonitoring.watch_name(self._bus.connection, item.client, name_vanished=vanished)
        )

    def _decline_if_abandoned(self, item: Item) -> None:
        if item.phase is Phase.ASKING and not item.client:
            self._answer(item, proceed=False)


def _record_denial(caller: Caller, what: Request | str, error: Exception) -> None:
    """Record what was denied; other errors are none of the caller's rights."""
    if isinstance(error, NotAuthorized):
        operation.note_refusal(caller, what, error)


def _read(verb: str, request: str, files: int) -> Request:
    typed = read_request(verb, read_json(request, "the request"))
    if any(file.fd >= files for file in typed.open_files):
        raise UsageError("the request names a file that was not passed with it")
    return typed


def _refuse_others_than_files(request: Request, files: list[int]) -> None:
    """Raise UsageError for a directory or a device: the worker may there what the user may not."""
    for file in request.open_files:
        if not stat.S_ISREG(os.fstat(files[file.fd]).st_mode):
            raise UsageError(
                f"{file.name} is no regular file", hint="only root can pass a directory; use sudo"
            )


def _owner_of(name: str) -> str:
    """Return whom an overlay of scope user is for, or ""."""
    rows = [row for row in queries.answer_json("overlays", {}) if name in (row["id"], row["name"])]
    return str(rows[0]["user"]) if len(rows) == 1 and rows[0]["scope"] == "user" else ""


def _limits() -> Mapping[str, int]:
    """Return the limits of workers; the defaults if the settings have an error, of which the worker tells."""
    try:
        return settings.load().limits
    except (UsageError, OSError):
        from apt_ostree.model.settings import Settings

        return Settings().limits


def close(files: list[int]) -> None:
    """Close descriptors, and forget them."""
    while files:
        os.close(files.pop())
