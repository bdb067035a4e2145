"""The transactions of rpm-ostree's clients: each waits on a socket for its client to start it.

Until then it is nowhere else: nothing is locked or queued. A transaction that another interface made gets a
socket when it is at work, so that these clients can follow it, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dasbus.client.observer import GLibMonitoring

from apt_ostree.core.operation import note_refusal
from apt_ostree.daemon.clients import Clients
from apt_ostree.daemon.queue import Item
from apt_ostree.daemon.rpmostree.peer import Connection, end_of, read_event
from apt_ostree.daemon.rpmostree.replies import Busy
from apt_ostree.daemon.transactions import Transactions, close
from apt_ostree.errors import AptOstreeError, Cancelled, NotAuthorized, Refused
from apt_ostree.model import bus as own_names
from apt_ostree.model.caller import Caller
from apt_ostree.model.rpmostree.calls import Call
from apt_ostree.model.transaction import Phase
from apt_ostree.system import systemd_units, transaction_files
from apt_ostree.system.caller import user_name
from apt_ostree.system.mainloop import MainLoop
from apt_ostree.system.peer_server import Closed, PeerServer, forget_all

#: Seconds for which a transaction waits to be started, and for which one that has ended tells it once more.
_TO_START, _AFTERWARDS = 60.0, 30.0
#: Seconds between the end and the closing of a connection; between the end and a reboot; for the last words.
_TO_READ, _TO_REBOOT, _LAST_WORDS = 0.1, 1.0, 0.5
#: Transactions that wait to be started.
_MOST = 16
NOT_ACTIVE = ("", "", "")
End = tuple[bool, str]


class Peer:
    """A transaction with its socket.

    method: the call that made it, or "" for a transaction of another interface.
    key: what two calls have in common of which one is enough; None if there can be no such two.
    initiator: who made the request.
    """

    def __init__(
        self, service: Peers, item: Item, call: Call | None, *, method: str, key: object, initiator: str
    ) -> None:
        self.item = item
        self.method = method
        self.key = key
        self.initiator = initiator
        self.end: End | None = None
        self._service = service
        self._call = call
        self._next = item.count  # event
        self._connections: list[Connection] = []
        self._watches: dict[str, Callable[[], None]] = {}
        self._server = PeerServer(service.new_socket(), self._connected)
        self.address = self._server.address

    @property
    def title(self) -> str:
        """Return the command as the history shows it."""
        return self.item.record.title

    @property
    def waits(self) -> bool:
        """Return whether it was not started yet."""
        return not self.item.record.id and self.end is None

    def watch(self, sender: str, unwatch: Callable[[], None]) -> None:
        """Note a client, without which it need not wait. unwatch: ends the watch of it."""
        if sender in self._watches:
            unwatch()
        else:
            self._watches[sender] = unwatch

    def lose(self, sender: str) -> None:
        """Forget a client that has left the bus; without one it is dropped, unless it was started."""
        if unwatch := self._watches.pop(sender, None):
            unwatch()
        if not self._watches:
            self.expire()

    def expire(self) -> None:
        """Drop it, unless it was started."""
        if self.waits:
            self._drop("the transaction was not started in time")

    def _drop(self, text: str) -> None:
        close(self.item.files)
        self.finish((False, text))

    # --- what a client does

    def _connected(self, connection: Any, uid: int) -> Closed:
        one = Connection(self, connection, uid)
        self._connections.append(one)

        def closed() -> None:
            self._connections.remove(one)
            one.forget()

        return closed

    def start(self, connection: Connection) -> bool:
        """Start it for its user or root; one that has ended tells that once more. Return whether it began."""
        later = self._service.later
        if self.end:
            later(0, partial(self._finish, [connection], self.end))
            return False
        if not self.waits:
            return False
        self._refuse_others(connection.uid)
        self.item = self._service.add(self.item)
        self._unwatch()
        later(0, self._catch_up)  # after the reply
        return True

    def cancel(self, uid: int) -> None:
        """Have everything undone for its user or root."""
        self._refuse_others(uid)
        if self.waits:
            self._drop(str(Cancelled("cancelled before anything was done")))
        elif self.end is None:
            self._service.cancel(self.item)

    def _refuse_others(self, uid: int) -> None:
        if uid not in (0, self.item.record.caller.uid):
            error = NotAuthorized(
                f"this transaction is {self.item.record.caller.user}'s",
                hint="use 'apt-ostree cancel', which asks for an authorization",
            )
            stranger = Caller(uid, None, user_name(uid), "")
            note_refusal(stranger, f"access to '{self.item.record.title}'", error)
            raise error

    # --- what it tells

    def _catch_up(self) -> None:
        """Tell what there was before it was started."""
        if self._call and self._call.note:
            self._tell({"event": "message", "text": self._call.note})
        lines, _offset = transaction_files.read_events(self.item.record.id)
        told = lines if self.item.phase is Phase.QUEUED else lines[: self.item.count]
        for number, line in enumerate(told):
            self.take(number, line)

    def take(self, number: int, line: str) -> None:
        """Tell an event, unless it was."""
        if number < self._next or self.end:
            return
        self._next = number + 1
        event = read_event(line)
        if event["event"] == "end":
            self._service.ended()
            self.finish(end_of(event))
        else:
            self._tell(event)

    def _tell(self, event: Mapping[str, Any]) -> None:
        if not (self._call and self._call.quiet):
            for connection in self._connections:
                connection.tell(event)

    def finish(self, end: End) -> None:
        """Tell the end; clients that come late are told, too, for a while."""
        self.end = end
        self._unwatch()
        self._finish(self._connections, end)
        self._service.later(_AFTERWARDS, self.stop)

    def _finish(self, connections: list[Connection], end: End) -> None:
        for connection in connections:
            connection.finish(*end)
            self._service.later(_TO_READ, connection.close)

    def _unwatch(self) -> None:
        while self._watches:
            self._watches.popitem()[1]()

    def say_last(self, text: str) -> None:
        """Tell the clients an end that is none, as the service ends before it."""
        if self.end is None:
            for connection in self._connections:
                connection.finish(False, text)
            self._server.flush(_LAST_WORDS)

    def stop(self) -> None:
        """Close the socket."""
        self._unwatch()
        self._server.stop()
        self._service.forget(self)


class Peers:
    """All of them.

    clients: the registered ones.
    directory: for the sockets.
    ended: is called when a transaction has ended, before that is told.
    """

    def __init__(
        self, bus: Any, loop: MainLoop, transactions: Transactions, *, clients: Clients, directory: Path
    ) -> None:
        self._bus = bus
        self._loop = loop
        self._transactions = transactions
        self._directory = directory
        self._numbers = itertools.count(1)
        self._peers: list[Peer] = []
        self.clients = clients
        self.ended: Callable[[], None] = lambda: None
        self.later = loop.later
        self.add = transactions.add
        self.cancel = transactions.end_early
        forget_all(directory)
        transactions.on_event(self._on_event)
        transactions.on_active(self.attach)

    @property
    def is_busy(self) -> bool:
        """Return whether a client can be expected."""
        return bool(self._peers)

    @property
    def active(self) -> tuple[str, str, str]:
        """Return method, client and object of the transaction that is at work; three empty ones without."""
        peer = self._active
        if peer is None:
            return NOT_ACTIVE
        record = peer.item.record
        return peer.method or peer.title, peer.item.client or record.caller.user, own_names.path_of(record.id)

    @property
    def active_address(self) -> str:
        """Return the address of that transaction, or nothing."""
        return self._active.address if self._active else ""

    @property
    def _active(self) -> Peer | None:
        running = self._transactions.running
        return next((peer for peer in self._peers if running and peer.item is running), None)

    def begin(self, method: str, call: Call, info: Mapping[str, Any], files: list[int] | None = None) -> Any:
        """Make a transaction of a call if its client may; return its address, or a Later that has it.

        If this raises, the files are the caller's.
        """
        item = self._transactions.prepare(call.request, files or [], {}, info)
        item.record = replace(item.record, reboot=call.reboot)
        make = partial(self._make, method, call, item)
        return self._transactions.if_allowed(item, call.actions, info, make)

    def _make(self, method: str, call: Call, item: Item) -> str:
        key = None if item.files else (item.record.caller.uid, method, call)
        peer = next((peer for peer in self._peers if peer.key == key is not None and not peer.end), None)
        if peer is None:
            self._refuse_busy()
            initiator = f"{self.clients.name_of(item.client) or 'a client'} of {item.record.caller.user}"
            peer = Peer(self, item, call, method=method, key=key, initiator=initiator)
            self._peers.append(peer)
            self._loop.later(_TO_START, peer.expire)
        if peer.waits:
            sender = item.client
            gone = partial(peer.lose, sender)
            unwatch = GLibMonitoring.watch_name(self._bus.connection, sender, name_vanished=lambda *_: gone())
            peer.watch(sender, unwatch)
        return peer.address

    def _refuse_busy(self) -> None:
        if running := self._transactions.running:
            raise Busy(
                f"Transaction in progress: {running.record.title}\n"
                " You can cancel the current transaction with 'apt-ostree cancel'"
            )
        if sum(peer.waits for peer in self._peers) >= _MOST:
            raise Refused(f"{_MOST} transactions wait to be started", hint="try again in a minute")

    def attach(self) -> None:
        """Give the transaction that is at work a socket, if it has none."""
        running = self._transactions.running
        if running and self._active is None:
            user = running.record.caller.user
            with suppress(AptOstreeError):  # it can do without
                self._peers.append(Peer(self, running, None, method="", key=None, initiator=user))

    def _on_event(self, item: Item, number: int, line: str) -> None:
        for peer in list(self._peers):
            if peer.item is item:
                peer.take(number, line)
        if item.has_ended and item.record.reboot and read_event(line).get("next_boot"):
            self._loop.later(_TO_REBOOT, partial(systemd_units.reboot, self._bus))

    def new_socket(self) -> Path:
        """Return a path for a socket."""
        return self._directory / f"{next(self._numbers)}.sock"

    def forget(self, peer: Peer) -> None:
        """Forget a transaction whose socket is closed."""
        self._peers.remove(peer)

    def close(self) -> None:
        """Tell all clients that the service ends, and close the sockets."""
        for peer in list(self._peers):
            text = "" if peer.waits else "; the transaction goes on, see 'apt-ostree status'"
            peer.say_last(f"the service is ending{text}")
            peer.stop()
