"""The clients that want to be told of changes: as long as there is one, the service stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dasbus.client.observer import GLibMonitoring

from apt_ostree.daemon.state import State


class Clients:
    """The registered clients, by their unique names on the bus, with how they call themselves."""

    def __init__(self, bus: Any, state: State) -> None:
        self._bus = bus
        self._state = state
        self._clients: dict[str, tuple[str, Callable[[], None]]] = {}

    def __bool__(self) -> bool:
        return bool(self._clients)

    def name_of(self, sender: str) -> str:
        """Return how a client calls itself, or nothing."""
        return self._clients.get(sender, ("",))[0]

    def add(self, sender: str, name: str = "") -> None:
        """Register a client until it leaves the bus, or is removed."""
        if sender not in self._clients:
            self._state.watch()
            unwatch = GLibMonitoring.watch_name(
                self._bus.connection, sender, name_vanished=lambda *_: self.remove(sender)
            )
            self._clients[sender] = (name, unwatch)

    def remove(self, sender: str) -> None:
        """Forget a client."""
        if sender in self._clients:
            _name, unwatch = self._clients.pop(sender)
            unwatch()
        if not self._clients:
            self._state.unwatch()
