"""rpm-ostree's interface to a stateroot: its deployments, what makes new ones, and what archives offer."""

# No `from __future__ import annotations`: dasbus makes the interface of the hints, which have to be types.
import itertools
from collections.abc import Mapping
from typing import Any

from dasbus.server.interface import (
    accepts_additional_arguments,
    dbus_interface,
    returns_multiple_arguments,
)
from dasbus.typing import Bool, Dict, List, Str, Structure, Tuple, UInt32, Variant, get_native, get_variant

from apt_ostree.core import queries
from apt_ostree.daemon.replies import Later
from apt_ostree.daemon.rpmostree import offers
from apt_ostree.daemon.rpmostree.objects import Object
from apt_ostree.daemon.rpmostree.peers import Peers
from apt_ostree.daemon.rpmostree.replies import NotFound, structure
from apt_ostree.daemon.state import State
from apt_ostree.daemon.sysroot import with_files
from apt_ostree.model.rpmostree import calls, deployments, names, packages
from apt_ostree.system import settings

_Differences = List[Tuple[Str, UInt32, Dict[Str, Variant]]]


@dbus_interface(names.OS)
class OS(Object):
    """The deployments of one stateroot, and what makes new ones."""

    def __init__(self, name: str, state: State, peers: Peers) -> None:
        super().__init__()
        self._name = name
        self._state = state
        self._peers = peers

    @property
    def Name(self) -> Str:  # noqa: N802  # the name of the D-Bus property, as all that follow
        """The name of the stateroot."""
        return self._name

    @property
    def BootedDeployment(self) -> Structure:  # noqa: N802
        """The booted deployment, or nothing."""
        return _shown(next((row for row in self._rows if row["booted"]), None))

    @property
    def DefaultDeployment(self) -> Structure:  # noqa: N802
        """The deployment that the next boot starts."""
        return _shown(next(iter(self._rows), None))

    @property
    def RollbackDeployment(self) -> Structure:  # noqa: N802
        """The deployment after the booted one, or nothing."""
        pairs = itertools.pairwise(self._rows)
        return _shown(next((row for one, row in pairs if one["booted"]), None))

    @property
    def CachedUpdate(self) -> Structure:  # noqa: N802
        """What an upgrade changes, as far as it is known."""
        found = self._update
        if found is None:
            return {}
        diff = structure(packages.rpm_diff(found["diff"], found["layered"])) if _differs(found) else {}
        more = {"rpm-diff": get_variant("a{sv}", diff)} if diff else {}
        return structure(deployments.update(found)) | more

    @property
    def HasCachedUpdateRpmDiff(self) -> Bool:  # noqa: N802
        """Whether that is known."""
        return self._update is not None

    @property
    def _rows(self) -> list[Mapping[str, Any]]:
        return [row for row in self._state.deployments if row["osname"] == self._name]

    @property
    def _update(self) -> Mapping[str, Any] | None:
        found = queries.answer_json("available-update", {}) if self._rows else None
        return found if found and found["osname"] == self._name else None

    # --- differences

    def GetDeploymentsRpmDiff(self, deployid0: Str, deployid1: Str) -> _Differences:  # type: ignore[valid-type]  # noqa: N802
        """Return how two deployments differ."""
        return _differences(queries.answer_json("deployment-diff", {"one": deployid0, "two": deployid1}))

    @returns_multiple_arguments
    def GetCachedUpdateRpmDiff(self, deployid: Str) -> Tuple[_Differences, Structure]:  # noqa: N802
        """Return what the known update of a deployment changes, and the update."""
        found = self._update
        if found is None:
            raise NotFound("no update is known; check for updates first")
        row = next((row for row in self._rows if row["checksum"] == found["against"]), None)
        if deployid and (row is None or row["id"] != deployid):
            raise NotFound(
                f"no update of {deployid!r} is known; it was looked for at {found['against'][:12]}"
            )
        return _differences(found["diff"]), structure(deployments.update(found))

    @accepts_additional_arguments
    def DownloadUpdateRpmDiff(self, *, call_info: Mapping[str, Any]) -> Str:  # noqa: N802
        """Look for an update."""
        return self._peers.begin("DownloadUpdateRpmDiff", calls.download_update(), call_info)

    @accepts_additional_arguments
    @returns_multiple_arguments
    def AutomaticUpdateTrigger(  # noqa: N802
        self, options: Structure, *, call_info: Mapping[str, Any]
    ) -> Tuple[Bool, Str]:
        """Do what the policy of automatic updates says; return whether that is anything, and the address."""
        call = calls.automatic_update(get_native(options), settings.automatic_policy())
        if call is None:
            return False, ""
        address = self._peers.begin("AutomaticUpdateTrigger", call, call_info)
        return address.then(lambda found: (True, found)) if isinstance(address, Later) else (True, address)

    def GetDeploymentBootConfig(self, deployid: Str, is_pending: Bool) -> Structure:  # noqa: N802
        """Return how a deployment is booted: that of an index, else the next boot's or the booted one."""
        index = deployid or next((str(row["index"]) for row in self._rows if is_pending or row["booted"]), "")
        row = next((row for row in self._state.deployments if str(row["index"]) == index), None)
        if row is None:
            raise NotFound(f"there is no deployment {index}".rstrip())
        arguments = queries.answer_json("kernel-arguments", {"deploy_index": row["index"]})
        return structure(deployments.boot_config(row, arguments))

    # --- changes

    @accepts_additional_arguments
    def Upgrade(self, options: Structure, *, call_info: Mapping[str, Any]) -> Str:  # noqa: N802
        """Upgrade base and packages."""
        return self._peers.begin("Upgrade", calls.upgrade(get_native(options)), call_info)

    @accepts_additional_arguments
    def Deploy(self, revision: Str, options: Structure, *, call_info: Mapping[str, Any]) -> Str:  # noqa: N802
        """Deploy a commit of the branch."""
        return self._peers.begin("Deploy", calls.deploy(revision, get_native(options)), call_info)

    @accepts_additional_arguments
    def Rebase(  # noqa: N802
        self, options: Structure, refspec: Str, packages: List[Str], *, call_info: Mapping[str, Any]
    ) -> Str:
        """Follow another branch."""
        call = calls.rebase(refspec, get_native(options), packages)
        return self._peers.begin("Rebase", call, call_info)

    @accepts_additional_arguments
    def UpdateDeployment(  # noqa: N802
        self, modifiers: Structure, options: Structure, *, call_info: Mapping[str, Any]
    ) -> Str:
        """Change the layered packages, or upgrade if there is no change of them."""

        def begin(native: Mapping[str, Any], files: list[int], labels: list[str]) -> Any:
            call = calls.update_deployment(native, get_native(options), labels)
            return self._peers.begin("UpdateDeployment", call, call_info, files)

        return with_files(modifiers, call_info, begin)

    @accepts_additional_arguments
    def PkgChange(  # noqa: N802
        self,
        options: Structure,
        packages_added: List[Str],
        packages_removed: List[Str],
        *,
        call_info: Mapping[str, Any],
    ) -> Str:
        """Add and drop layered packages."""
        call = calls.pkg_change(get_native(options), packages_added, packages_removed)
        return self._peers.begin("PkgChange", call, call_info)

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
    ) -> Str:
        """Change the kernel arguments."""
        changes = (kernel_args_added, kernel_args_replaced, kernel_args_removed)
        call = calls.kernel_args(existing_kernel_arg_string, *changes, get_native(options))
        return self._peers.begin("KernelArgs", call, call_info)

    @accepts_additional_arguments
    def SetInitramfsState(  # noqa: N802
        self, regenerate: Bool, args: List[Str], options: Structure, *, call_info: Mapping[str, Any]
    ) -> Str:
        """Have the machine make its own initramfs, or not."""
        call = calls.set_initramfs_state(regenerate, args, get_native(options))
        return self._peers.begin("SetInitramfsState", call, call_info)

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
    ) -> Str:
        """Change which files of /etc are in the initramfs."""
        call = calls.initramfs_etc(
            track, untrack, untrack_all=untrack_all, force_sync=force_sync, options=get_native(options)
        )
        return self._peers.begin("InitramfsEtc", call, call_info)

    @accepts_additional_arguments
    def Rollback(self, options: Structure, *, call_info: Mapping[str, Any]) -> Str:  # noqa: N802
        """Boot the previous deployment next."""
        return self._peers.begin("Rollback", calls.rollback(get_native(options)), call_info)

    @accepts_additional_arguments
    def ClearRollbackTarget(self, options: Structure, *, call_info: Mapping[str, Any]) -> Str:  # noqa: N802
        """Remove the rollback deployment."""
        call = calls.clear_rollback_target(get_native(options), self._name)
        return self._peers.begin("ClearRollbackTarget", call, call_info)

    @accepts_additional_arguments
    def FinalizeDeployment(self, options: Structure, *, call_info: Mapping[str, Any]) -> Str:  # noqa: N802
        """Boot the staged deployment, which was locked."""
        return self._peers.begin("FinalizeDeployment", calls.finalize(get_native(options)), call_info)

    @accepts_additional_arguments
    def Cleanup(self, elements: List[Str], *, call_info: Mapping[str, Any]) -> Str:  # noqa: N802
        """Remove what is named."""
        return self._peers.begin("Cleanup", calls.cleanup(elements, self._name), call_info)

    @accepts_additional_arguments
    def RefreshMd(self, options: Structure, *, call_info: Mapping[str, Any]) -> Str:  # noqa: N802
        """Download the package lists."""
        return self._peers.begin("RefreshMd", calls.refresh_md(get_native(options)), call_info)

    # --- what the archives offer

    def GetPackages(self, names: List[Str]) -> List[Structure]:  # noqa: N802
        """Return packages by name."""
        return offers.ask("packages", {"names": names}, packages.offered)

    def Search(self, names: List[Str]) -> List[Structure]:  # noqa: N802
        """Return packages whose name or summary has all terms."""
        return offers.ask("packages", {"terms": names}, packages.offered) if names else []

    def WhatProvides(self, provides: List[Str]) -> List[Structure]:  # noqa: N802
        """Return the packages with capabilities of RPM, which no package of Debian has."""
        return []

    def ListRepos(self) -> List[Structure]:  # noqa: N802
        """Return the configured archives."""
        return offers.ask("archives", {}, packages.archive)


def _shown(row: Mapping[str, Any] | None) -> dict[str, Any]:
    return structure(deployments.deployment(row)) if row else {}


def _differs(found: Mapping[str, Any]) -> bool:
    return any(found["diff"].values())


def _differences(diff: Mapping[str, Any]) -> list[tuple[str, int, dict[str, Any]]]:
    return [
        (name, kind, {key: get_variant("(sss)", triple) for key, triple in two.items()})
        for name, kind, two in packages.differences(diff)
    ]
