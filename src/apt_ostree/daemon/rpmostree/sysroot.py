"""rpm-ostree's interface to the deployments of the system, and the objects of the stateroots."""

# No `from __future__ import annotations`: dasbus makes the interface of the hints, which have to be types.
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from dasbus.server.interface import accepts_additional_arguments, dbus_interface
from dasbus.typing import List, ObjPath, Str, Structure, Tuple, get_native

from apt_ostree.daemon.authority import Authority
from apt_ostree.daemon.rpmostree.objects import Manager, Object
from apt_ostree.daemon.rpmostree.peers import Peers
from apt_ostree.daemon.rpmostree.replies import NotFound, structure
from apt_ostree.daemon.rpmostree.stateroot import OS
from apt_ostree.daemon.state import State
from apt_ostree.errors import AptOstreeError
from apt_ostree.model.rpmostree import deployments, names
from apt_ostree.system import settings

_RELOAD = f"{names.NAME}.reload-daemon"
_TRANSACTION = ("ActiveTransaction", "ActiveTransactionPath")


@dbus_interface(names.SYSROOT)
class Sysroot(Object):
    """The system's deployments."""

    def __init__(self, bus: Any, manager: Manager, state: State, peers: Peers) -> None:
        super().__init__()
        self._bus = bus
        self._manager = manager
        self._state = state
        self._peers = peers
        self._authority = Authority(bus)
        self._stateroots: dict[str, OS] = {}

    @property
    def Path(self) -> Str:  # noqa: N802  # the name of the D-Bus property, as all that follow
        """The root directory."""
        return "/"

    @property
    def Booted(self) -> ObjPath:  # noqa: N802
        """The object of the booted stateroot."""
        booted = self._state.booted
        return names.path_of_stateroot(booted["osname"]) if booted else "/"

    @property
    def Deployments(self) -> List[Structure]:  # noqa: N802
        """All deployments, the next one to boot first."""
        return [structure(deployments.deployment(row)) for row in self._state.deployments]

    @property
    def ActiveTransaction(self) -> Tuple[Str, Str, Str]:  # noqa: N802
        """Method, client and object of the transaction that is at work."""
        return self._peers.active

    @property
    def ActiveTransactionPath(self) -> Str:  # noqa: N802
        """The address of its socket."""
        return self._peers.active_address

    @property
    def AutomaticUpdatePolicy(self) -> Str:  # noqa: N802
        """What is done without a request."""
        return settings.automatic_policy()

    def GetOS(self, name: Str) -> ObjPath:  # noqa: N802
        """Return the object of a stateroot; of the booted one for an empty name."""
        self._update_stateroots()
        booted = self._state.booted
        stateroot = name or (booted["osname"] if booted else "")
        if stateroot not in self._stateroots:
            raise NotFound(f"there is no stateroot {name!r}" if name else "no deployment is booted")
        return names.path_of_stateroot(stateroot)

    def Reload(self) -> None:  # noqa: N802
        """Return when the properties are up to date."""
        self._state.refresh()

    @accepts_additional_arguments
    def ReloadConfig(self, *, call_info: Mapping[str, Any]) -> None:  # noqa: N802
        """Do the same; settings are read whenever they are needed."""
        if self._bus.proxy.GetConnectionUnixUser(call_info["sender"]) == 0:
            return self.Reload()
        return self._authority.ask((_RELOAD,), call_info, self.Reload)  # type: ignore[return-value]  # a Later

    @accepts_additional_arguments
    def RegisterClient(self, options: Structure, *, call_info: Mapping[str, Any]) -> None:  # noqa: N802
        """Keep the service, and have it tell what has changed, until the client leaves the bus."""
        name = get_native(options).get("id", "")
        self._peers.clients.add(call_info["sender"], name if isinstance(name, str) else "")

    @accepts_additional_arguments
    def UnregisterClient(self, _options: Structure, *, call_info: Mapping[str, Any]) -> None:  # noqa: N802
        """End that."""
        self._peers.clients.remove(call_info["sender"])

    # --- what becomes of it

    def publish(self) -> None:
        """Put this object and those of all stateroots on the bus, and have changes announced."""
        self._manager.add(names.SYSROOT_PATH, names.SYSROOT, self)
        for name in self._state.stateroots:
            self._add(name)
        self._state.on_change(self._announce)

    def announce_transaction(self) -> None:
        """Announce which transaction is at work."""
        self.announce(_TRANSACTION)

    def announce_end(self) -> None:
        """Announce what a transaction has changed that has ended."""
        self._state.refresh()
        with suppress(AptOstreeError):  # told to whoever asks
            for one in self._stateroots.values():
                one.announce(("CachedUpdate", "HasCachedUpdateRpmDiff"))

    def announce_all(self) -> None:
        """Announce everything, as clients may have outlived an earlier service."""
        with suppress(AptOstreeError):
            self._announce()

    def _announce(self) -> None:
        self._update_stateroots()
        self.announce()
        for one in self._stateroots.values():
            one.announce()

    def _update_stateroots(self) -> None:
        there = self._state.stateroots
        for name in there - self._stateroots.keys():
            self._add(name)
            self._manager.tell_added(names.path_of_stateroot(name))
        for name in self._stateroots.keys() - there:
            del self._stateroots[name]
            self._manager.remove(names.path_of_stateroot(name))

    def _add(self, name: str) -> None:
        self._stateroots[name] = OS(name, self._state, self._peers)
        self._manager.add(names.path_of_stateroot(name), names.OS, self._stateroots[name])
