"""Puts rpm-ostree's service on the bus, beside the service's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apt_ostree.daemon.clients import Clients
from apt_ostree.daemon.rpmostree import offers
from apt_ostree.daemon.rpmostree.objects import Manager
from apt_ostree.daemon.rpmostree.peers import Peers
from apt_ostree.daemon.rpmostree.sysroot import Sysroot
from apt_ostree.daemon.state import State
from apt_ostree.daemon.transactions import Transactions
from apt_ostree.system.mainloop import MainLoop

#: Seconds after which a service that has just begun announces everything.
_BEGUN = 1.0


class RpmOstree:
    """rpm-ostree's objects, and the transactions of its clients.

    clients: the registered ones, of both services.
    directory: for sockets.
    """

    def __init__(
        self, bus: Any, loop: MainLoop, state: State, transactions: Transactions, *, clients: Clients,
        directory: Path,
    ) -> None:  # fmt: skip
        self._loop = loop
        self._peers = Peers(bus, loop, transactions, clients=clients, directory=directory)
        self._sysroot = Sysroot(bus, Manager(bus), state, self._peers)
        self._sysroot.publish()
        self._peers.ended = self._sysroot.announce_end
        transactions.on_active(self._sysroot.announce_transaction)

    @property
    def is_busy(self) -> bool:
        """Return whether a client waits for something."""
        return self._peers.is_busy or offers.is_busy()

    def begin(self) -> None:
        """Take up what went on while there was no service, and announce everything."""
        self._peers.attach()
        self._loop.later(_BEGUN, self._sysroot.announce_all)

    def close(self) -> None:
        """Tell clients that wait for a transaction that the service ends."""
        self._peers.close()
