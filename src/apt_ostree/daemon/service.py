"""The service: what it has on the bus. The bus starts it, and it ends when nobody needs it."""

from __future__ import annotations

from pathlib import Path

from dasbus.connection import SystemMessageBus

from apt_ostree.daemon import live
from apt_ostree.daemon.clients import Clients
from apt_ostree.daemon.queries import Queries
from apt_ostree.daemon.replies import Handler
from apt_ostree.daemon.state import State
from apt_ostree.daemon.sysroot import Sysroot
from apt_ostree.daemon.transactions import NOT_ACTIVE, Transactions
from apt_ostree.model import bus as names
from apt_ostree.model.rpmostree.names import NAME as RPM_OSTREE
from apt_ostree.system.mainloop import MainLoop

#: Seconds without a call and without a transaction after which the service ends.
_IDLE = 60.0
#: RequestName's DBUS_NAME_FLAG_DO_NOT_QUEUE (D-Bus specification); dasbus has another number for it.
_DO_NOT_QUEUE = 4


def serve(sockets: Path | None = None) -> None:
    """Serve until nobody has called for a minute, and no transaction runs.

    sockets: serve rpm-ostree's clients, too, and have sockets for them in this directory.
    """
    loop = MainLoop(_IDLE, lambda: transactions.is_busy or bool(clients) or any(o.is_busy for o in others))
    bus = SystemMessageBus()
    bus.connection.set_exit_on_close(False)  # else Gio ends this process with the bus, in an upgrade of that
    transactions = Transactions(bus, loop)
    bus.publish_object(names.PATH, Queries(loop.touch), server_factory=Handler)
    bus.publish_object(names.TRANSACTIONS_PATH, transactions, server_factory=Handler)
    state = State(loop, lambda: transactions.active != NOT_ACTIVE)
    live.publish(bus, state, transactions)
    clients = Clients(bus, state)
    Sysroot(bus, state, transactions, clients).publish()
    transactions.on_active(state.note_transaction)
    others = []
    if sockets:
        from apt_ostree.daemon.rpmostree.service import RpmOstree

        others.append(RpmOstree(bus, loop, state, transactions, clients=clients, directory=sockets))
    transactions.resume()
    # The bus takes the service for started when it has its own name, which is therefore the last.
    owned = (RPM_OSTREE, names.NAME) if sockets else (names.NAME,)
    for name in owned:
        bus.register_service(name, flags=_DO_NOT_QUEUE)
    for other in others:
        other.begin()
    loop.run()
    for name in owned:
        bus.unregister_service(name)  # the next call starts another process
    loop.drain()
    for other in others:
        other.close()
    transactions.close()
    bus.connection.flush_sync(None)  # the last answers: nothing else waits for them
    bus.disconnect()
