"""The deployments on the bus, shaped as rpm-ostree's: Sysroot, and an object for each stateroot.

data/dbus/org.debian.aptostree1.xml describes the interfaces.
"""

# No `from __future__ import annotations`: dasbus makes the interfaces of the hints, which have to be types.
import itertools
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dasbus.server.interface import accepts_additional_arguments, dbus_interface, dbus_signal
from dasbus.server.property import PropertiesInterface
from dasbus.typing import Bool, List, ObjPath, Str, Structure, Tuple, get_native

from apt_ostree.daemon import variants
from apt_ostree.daemon.clients import Clients
from apt_ostree.daemon.deferred import calls
from apt_ostree.daemon.replies import Handler
from apt_ostree.daemon.state import State
from apt_ostree.daemon.transactions import Transactions, close
from apt_ostree.errors import UsageError
from apt_ostree.model import bus as names
from apt_ostree.model.request import Request


@dbus_interface(names.SYSROOT)
class Sysroot(PropertiesInterface):  # type: ignore[misc]  # dasbus has no types
    """The system's deployments."""

    def __init__(self, bus: Any, state: State, transactions: Transactions, clients: Clients) -> None:
        super().__init__()
        self._bus = bus
        self._state = state
        self._transactions = transactions
        self._clients = clients
        self._objects: dict[str, OS] = {}
        self._staged = ""

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
        return variants.dictionaries(self._state.deployments)

    @property
    def ActiveTransaction(self) -> Tuple[Str, Str, Str]:  # noqa: N802
        """Title, user and object of the transaction that is at work."""
        return self._transactions.active

    @dbus_signal
    def Staged(self, checksum: Str) -> None:  # noqa: N802
        """Tell that a deployment was staged for the next boot."""

    @dbus_signal
    def UpdateAvailable(self, checksum: Str, version: Str) -> None:  # noqa: N802
        """Tell that a check has found an update: its base commit, and the version of that."""

    @dbus_signal
    def ForeignChange(self) -> None:  # noqa: N802
        """Tell that another program has changed the deployments."""

    def GetOS(self, name: Str) -> ObjPath:  # noqa: N802
        """Return the object of a stateroot; of the booted one for an empty name."""
        if not name and self._state.booted:
            return self.Booted
        self._publish_stateroots()
        if name not in self._objects:
            raise UsageError(f"there is no stateroot {name!r}")
        return names.path_of_stateroot(name)

    def Reload(self) -> None:  # noqa: N802
        """Return when the properties are up to date."""
        self._state.refresh()

    @accepts_additional_arguments
    def RegisterClient(self, _options: Structure, *, call_info: Mapping[str, Any]) -> None:  # noqa: N802
        """Keep the service, and have it tell what has changed, until the client leaves the bus."""
        self._clients.add(call_info["sender"])

    @accepts_additional_arguments
    def UnregisterClient(self, _options: Structure, *, call_info: Mapping[str, Any]) -> None:  # noqa: N802
        """End that."""
        self._clients.remove(call_info["sender"])

    def publish(self) -> None:
        """Put this object and those of all stateroots on the bus, and have changes announced."""
        self._bus.publish_object(names.SYSROOT_PATH, self, server_factory=Handler)
        self._publish_stateroots()
        self._state.on_change(self._announce)
        self._state.on_offer(lambda row: self.UpdateAvailable.emit(row["commit"], row["version"] or ""))
        self._state.on_foreign_change(self.ForeignChange.emit)
        self._transactions.on_active(self._announce_transaction)

    def _publish_stateroots(self) -> None:
        for name in self._state.stateroots - self._objects.keys():
            self._objects[name] = OS(name, self._state, self._transactions)
            path = names.path_of_stateroot(name)
            self._bus.publish_object(path, self._objects[name], server_factory=Handler)

    def _announce(self) -> None:
        for name in ("Booted", "Deployments"):
            self.report_changed_property(name)
        self.flush_changes()
        self._publish_stateroots()
        for one in self._objects.values():
            one.announce()
        staged, self._staged = self._staged, self._state.staged
        if self._staged not in ("", staged):
            self.Staged.emit(self._staged)

    def _announce_transaction(self) -> None:
        self.report_changed_property("ActiveTransaction")
        self.flush_changes()


@dbus_interface(names.OS)
class OS(PropertiesInterface):  # type: ignore[misc]  # dasbus has no types
    """The deployments of one stateroot, and what makes new ones."""

    def __init__(self, name: str, state: State, transactions: Transactions) -> None:
        super().__init__()
        self._name = name
        self._state = state
        self._transactions = transactions

    @property
    def Name(self) -> Str:  # noqa: N802
        """The name of the stateroot."""
        return self._name

    @property
    def BootedDeployment(self) -> Structure:  # noqa: N802
        """The booted deployment, or nothing."""
        return variants.dictionary(self._state.booted or {})

    @property
    def DefaultDeployment(self) -> Structure:  # noqa: N802
        """The deployment that the next boot starts."""
        return variants.dictionary(next(iter(self._deployments), {}))

    @property
    def RollbackDeployment(self) -> Structure:  # noqa: N802
        """The deployment after the booted one, or nothing."""
        rows = self._deployments
        after = [row for one, row in itertools.pairwise(rows) if one["booted"]]
        return variants.dictionary(after[0] if after else {})

    @property
    def _deployments(self) -> list[Mapping[str, Any]]:
        return [row for row in self._state.deployments if row["osname"] == self._name]

    @accepts_additional_arguments
    def Upgrade(self, options: Structure, *, call_info: Mapping[str, Any]) -> ObjPath:  # noqa: N802
        """Upgrade base and packages."""
        return self._begin(calls.upgrade, options, call_info)

    @accepts_additional_arguments
    def Deploy(self, revision: Str, options: Structure, *, call_info: Mapping[str, Any]) -> ObjPath:  # noqa: N802
        """Deploy a commit of the branch."""
        return self._begin(partial(calls.deploy, revision), options, call_info)

    @accepts_additional_arguments
    def Rebase(self, refspec: Str, options: Structure, *, call_info: Mapping[str, Any]) -> ObjPath:  # noqa: N802
        """Follow another branch."""
        return self._begin(partial(calls.rebase, refspec), options, call_info)

    @accepts_additional_arguments
    def UpdateDeployment(  # noqa: N802
        self, modifiers: Structure, options: Structure, *, call_info: Mapping[str, Any]
    ) -> ObjPath:
        """Change the layered packages."""

        def begin(native: Mapping[str, Any], files: list[int], labels: list[str]) -> Any:
            make = partial(calls.update_deployment, native, files=labels)
            return self._transactions.begin_typed(make, options, call_info, files)

        return with_files(modifiers, call_info, begin)

    @accepts_additional_arguments
    def KernelArgs(  # noqa: N802
        self,
        existing_kernel_arg_string: Str,
        kernel_args_added: List[Str],
        kernel_args_replaced: List[Str],
        kernel_args_removed: List[Str],
        options: Structure,
        *,
        call_info: Mapping[str, Any],
    ) -> ObjPath:
        """Change the kernel arguments."""
        changes = (kernel_args_added, kernel_args_replaced, kernel_args_removed)
        make = partial(calls.kernel_args, existing_kernel_arg_string, *changes)
        return self._transactions.begin_typed(make, options, call_info)

    @accepts_additional_arguments
    def SetInitramfsState(  # noqa: N802
        self, regenerate: Bool, args: List[Str], options: Structure, *, call_info: Mapping[str, Any]
    ) -> ObjPath:
        """Have the machine make its own initramfs, or not."""
        make = partial(calls.set_initramfs_state, regenerate, args)
        return self._transactions.begin_typed(make, options, call_info)

    @accepts_additional_arguments
    def InitramfsEtc(  # noqa: N802
        self,
        track: List[Str],
        untrack: List[Str],
        untrack_all: Bool,
        force_sync: Bool,
        options: Structure,
        *,
        call_info: Mapping[str, Any],
    ) -> ObjPath:
        """Change which files of /etc are in the initramfs."""

        def make(given: Mapping[str, Any]) -> Request:
            whole = {"untrack_all": untrack_all, "force_sync": force_sync}
            return calls.initramfs_etc(track, untrack, **whole, options=given)

        return self._transactions.begin_typed(make, options, call_info)

    @accepts_additional_arguments
    def FinalizeDeployment(self, options: Structure, *, call_info: Mapping[str, Any]) -> ObjPath:  # noqa: N802
        """Let the shutdown complete the staged deployment, which was locked."""
        return self._transactions.begin_typed(calls.finalize, options, call_info)

    @accepts_additional_arguments
    def Rollback(self, options: Structure, *, call_info: Mapping[str, Any]) -> ObjPath:  # noqa: N802
        """Boot the previous deployment next."""
        return self._transactions.begin_typed(calls.rollback, options, call_info)

    @accepts_additional_arguments
    def Cleanup(self, what: List[Str], *, call_info: Mapping[str, Any]) -> ObjPath:  # noqa: N802
        """Remove what is named."""
        return self._transactions.begin(calls.cleanup(what, self._name), [], {}, call_info)

    @accepts_additional_arguments
    def RefreshMd(self, options: Structure, *, call_info: Mapping[str, Any]) -> ObjPath:  # noqa: N802
        """Download the package lists."""
        return self._transactions.begin_typed(calls.refresh_md, options, call_info)

    def _begin(self, make: Callable[..., Request], options: Structure, call_info: Mapping[str, Any]) -> Any:
        """Begin what a call makes of its options, among which are files."""

        def begin(native: Mapping[str, Any], files: list[int], labels: list[str]) -> Any:
            return self._transactions.begin_typed(partial(make, files=labels), native, call_info, files)

        return with_files(options, call_info, begin)

    def announce(self) -> None:
        """Announce the properties, which may have changed."""
        for name in ("BootedDeployment", "DefaultDeployment", "RollbackDeployment"):
            self.report_changed_property(name)
        self.flush_changes()


def with_files(
    options: Structure,
    call_info: Mapping[str, Any],
    begin: Callable[[Mapping[str, Any], list[int], list[str]], Any],
) -> Any:
    """Begin a change of packages with the files that were passed as local packages, and their paths."""
    native, indexes = _with_indexes(options)
    files = call_info["files"].take(indexes)
    try:
        return begin(native, files, [str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in files])
    except BaseException:
        close(files)
        raise


def _with_indexes(options: Structure) -> tuple[dict[str, Any], list[int]]:
    """Return options whose local packages are counted from 0, and the indexes of their files."""
    native, indexes = get_native(options), list[int]()
    for key in (key for key, value in options.items() if value.get_type_string() == "ah"):
        first = len(indexes)
        indexes += native[key]
        native[key] = list(range(first, len(indexes)))
    return native, indexes
