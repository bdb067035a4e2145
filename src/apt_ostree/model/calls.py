"""The typed calls of the service: the options of each, and the request that it makes.

The names of options are rpm-ostree's where it has them. All have a default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from apt_ostree.errors import UsageError
from apt_ostree.model import jsonvalue, kargs
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.plan import RestartPolicy
from apt_ostree.model.request import Request
from apt_ostree.model.requests.archives import RefreshMd
from apt_ostree.model.requests.deployments import (
    Cleanup,
    Deploy,
    FinalizeDeployment,
    Initramfs,
    InitramfsEtc,
    Kargs,
    Rebase,
    Rollback,
)
from apt_ostree.model.requests.live import ApplyLive, Confirm, RollbackLive
from apt_ostree.model.requests.options import DeployOptions, LiveOptions
from apt_ostree.model.requests.overlays import EditOverlay
from apt_ostree.model.requests.packages import Install, Override, Reset, Uninstall, Upgrade
from apt_ostree.model.selection import Selection

T = TypeVar("T")
Options = Mapping[str, Any]
#: Options of every call that are not the request's (the daemon's transactions have them).
OF_TRANSACTIONS = ("ask", "environment", "key", "wait")
_CLEANUP = ("base", "pending-deploy", "repomd", "rollback-deploy")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Live:
    """Options of a call that changes the running system."""

    restart_services: RestartPolicy = RestartPolicy.NONE
    confirm_within: float | None = None
    allow_replacement: bool = False
    force: bool = False
    override_policy: str = ""
    test: bool = False
    allow_failed: bool = False

    def __post_init__(self) -> None:
        self.live()  # which may refuse a value

    def live(self) -> LiveOptions:
        return LiveOptions(
            self.restart_services,
            self.confirm_within,
            self.allow_replacement,
            self.force,
            self.override_policy,
            self.test,
            self.allow_failed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deploy(_Live):
    """Options of a call that makes a deployment. apply_live: what is of live changes alone needs it."""

    dry_run: bool = False
    cache_only: bool = False
    download_only: bool = False
    apply_live: bool = False
    lock_finalization: bool = False
    bypass_driver: bool = False

    def deploy(self) -> DeployOptions:
        live = replace(self.live(), override_policy="")
        alone = replace(live, allow_replacement=False, test=False, allow_failed=False)
        if not self.apply_live and alone != LiveOptions():
            raise UsageError("restart-services, confirm-within and force need apply-live")
        return DeployOptions(
            self.dry_run,
            self.cache_only,
            self.download_only,
            live if self.apply_live else None,
            self.lock_finalization,
            override_policy=self.override_policy,
            test=self.test,
            allow_failed=self.allow_failed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base(_Deploy):
    """Options of a call that deploys a base, with a change of layered packages."""

    install_packages: tuple[str, ...] = ()
    install_local_packages: tuple[int, ...] = ()
    uninstall_packages: tuple[str, ...] = ()
    recommends: bool | None = None

    def packages(self, files: Sequence[str]) -> dict[str, Any]:
        """Return the fields of a BaseRequest."""
        local = local_packages(self.install_local_packages, files)
        _refuse_recommends(self.recommends, self.install_packages, local)
        return {
            "install": self.install_packages,
            "files": local,
            "recommends": self.recommends,
            "uninstall": self.uninstall_packages,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Upgrade(_Base):
    no_pull_base: bool = False
    no_packages: bool = False
    check: bool = False
    allow_downgrade: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _DeployRevision(_Base):
    skip_branch_check: bool = False
    disallow_downgrade: bool = False
    register_driver: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rebase(_Base):
    revision: str | None = None
    skip_purge: bool = False
    disallow_downgrade: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Update(_Deploy):
    idempotent_layering: bool = False
    allow_inactive: bool = False
    recommends: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _NextBoot:
    """Options of a call that makes a deployment which differs in how it boots."""

    dry_run: bool = False
    lock_finalization: bool = False
    override_policy: str = ""
    allow_failed: bool = False

    def deploy(self) -> DeployOptions:
        return DeployOptions(
            self.dry_run,
            lock_finalization=self.lock_finalization,
            override_policy=self.override_policy,
            allow_failed=self.allow_failed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kargs(_NextBoot):
    append_if_missing: tuple[str, ...] = ()
    delete_if_present: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Modifiers:
    """What UpdateDeployment changes. The local packages are indexes of open files.

    The fileoverride packages are installed, and may replace files of others.
    """

    install_packages: tuple[str, ...] = ()
    install_local_packages: tuple[int, ...] = ()
    install_fileoverride_packages: tuple[str, ...] = ()
    install_local_fileoverride_packages: tuple[int, ...] = ()
    uninstall_packages: tuple[str, ...] = ()
    no_layering: bool = False
    override_remove_packages: tuple[str, ...] = ()
    override_replace_packages: tuple[str, ...] = ()
    override_reset_packages: tuple[str, ...] = ()
    no_overrides: bool = False
    no_initramfs: bool = False

    def __post_init__(self) -> None:
        if self.no_layering and self.uninstall_packages:
            raise UsageError("no-layering and uninstall-packages exclude each other")
        if self.is_reset and self.names_overrides:
            raise UsageError("no-layering and no-initramfs exclude overrides of single packages")
        others = (*self.install_packages, *self.install_local_packages)
        if self.replaces_files and (others or self.is_override or self.no_layering or self.no_initramfs):
            raise UsageError("packages that replace files exclude other changes than uninstall-packages")

    @property
    def names_overrides(self) -> bool:
        changes = (
            self.override_remove_packages, self.override_replace_packages, self.override_reset_packages,
        )  # fmt: skip
        return any(changes)

    @property
    def is_override(self) -> bool:
        return self.names_overrides or self.no_overrides

    @property
    def is_reset(self) -> bool:
        return self.no_initramfs or (self.no_layering and self.is_override)

    @property
    def replaces_files(self) -> bool:
        return bool(self.install_fileoverride_packages or self.install_local_fileoverride_packages)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ApplyLive(_Live):
    target: str | None = None
    reset: bool = False
    packages: tuple[str, ...] = ()
    excluded_packages: tuple[str, ...] = ()
    security: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _RollbackLive:
    generation: int | None = None
    packages: tuple[str, ...] = ()
    restart_services: RestartPolicy = RestartPolicy.NONE
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rollback:
    dry_run: bool = False
    allow_failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _RefreshMd:
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _EditOverlay(_Live):
    create: bool = False
    remove: bool = False
    enable: bool | None = None
    rename: str | None = None
    dry_run: bool = False


def upgrade(options: Options, files: Sequence[str] = ()) -> Request:
    """Return the request of OS.Upgrade. files: the names of the files that were passed, here and below."""
    o = _read(_Upgrade, options)
    return Upgrade(
        deploy=o.deploy(), base=not o.no_pull_base, packages=not o.no_packages, check=o.check,
        allow_downgrade=o.allow_downgrade, bypass_driver=o.bypass_driver, **o.packages(files),
    )  # fmt: skip


def deploy(revision: str, options: Options, files: Sequence[str] = ()) -> Request:
    """Return the request of OS.Deploy."""
    o = _read(_DeployRevision, options)
    if not (revision or o.register_driver):
        raise UsageError("revision: expected a commit or a version")
    return Deploy(
        revision=revision, deploy=o.deploy(), skip_branch_check=o.skip_branch_check,
        disallow_downgrade=o.disallow_downgrade, register_driver=o.register_driver,
        bypass_driver=o.bypass_driver, **o.packages(files),
    )  # fmt: skip


def rebase(refspec: str, options: Options, files: Sequence[str] = ()) -> Request:
    """Return the request of OS.Rebase."""
    o = _read(_Rebase, options)
    return Rebase(
        refspec=refspec, revision=o.revision, deploy=o.deploy(), skip_purge=o.skip_purge,
        disallow_downgrade=o.disallow_downgrade, bypass_driver=o.bypass_driver, **o.packages(files),
    )  # fmt: skip


def update_deployment(modifiers: Options, options: Options, files: Sequence[str]) -> Request:
    """Return the request of OS.UpdateDeployment."""
    m, o = _read(_Modifiers, modifiers), _read(_Update, options)
    local = local_packages((*m.install_local_packages, *m.install_local_fileoverride_packages), files)
    names = (*m.install_packages, *m.install_fileoverride_packages)
    _refuse_recommends(o.recommends, names, local)
    if m.is_reset:
        return Reset(
            deploy=o.deploy(), layers=m.no_layering, overrides=m.no_overrides, initramfs=m.no_initramfs,
            install=names, files=local, recommends=o.recommends, uninstall=m.uninstall_packages,
        )  # fmt: skip
    if m.is_override:
        return Override(
            deploy=o.deploy(), remove=m.override_remove_packages, replace=m.override_replace_packages,
            reset=m.override_reset_packages, reset_all=m.no_overrides, install=names, install_files=local,
            recommends=o.recommends, uninstall=m.uninstall_packages,
        )  # fmt: skip
    if m.no_layering or (m.uninstall_packages and not names and not local):
        return Uninstall(
            deploy=o.deploy(), packages=m.uninstall_packages, everything=m.no_layering, install=names,
            files=local, recommends=o.recommends, idempotent=o.idempotent_layering,
        )  # fmt: skip
    return Install(
        deploy=o.deploy(), packages=names, files=local, uninstall=m.uninstall_packages,
        idempotent=o.idempotent_layering, allow_inactive=o.allow_inactive, recommends=o.recommends,
        replace_files=m.replaces_files,
    )  # fmt: skip


def _refuse_recommends(recommends: bool | None, names: Sequence[str], files: Sequence[OpenFile]) -> None:
    """Raise UsageError for a choice about packages that are recommended by none."""
    if recommends is not None and not (names or files):
        raise UsageError("recommends is for packages to install")


def local_packages(indexes: Sequence[int], files: Sequence[str]) -> tuple[OpenFile, ...]:
    """Return the packages among files that were passed; UsageError for an index without one of its own."""
    if len({*indexes}) < len(indexes) or any(not 0 <= index < len(files) for index in indexes):
        raise UsageError("a file of a local package was not passed")
    return tuple(OpenFile(index, files[index]) for index in indexes)


def kernel_args(
    existing: str, added: Sequence[str], replaced: Sequence[str], removed: Sequence[str], options: Options
) -> Request:
    """Return the request of OS.KernelArgs. existing: the arguments that the caller has seen; empty: any."""
    o = _read(_Kargs, options)
    changes = kargs.Changes.split(
        delete=removed, replace=replaced, append=added,
        append_if_missing=o.append_if_missing, delete_if_present=o.delete_if_present,
    )  # fmt: skip
    seen = kargs.own(kargs.split(existing)) if existing else None
    return Kargs(changes=changes, seen=seen, deploy=o.deploy())


def set_initramfs_state(regenerate: bool, arguments: Sequence[str], options: Options) -> Request:
    """Return the request of OS.SetInitramfsState."""
    if arguments and not regenerate:
        raise UsageError("args: they are for an initramfs that the machine makes")
    return Initramfs(enable=regenerate, arguments=tuple(arguments), deploy=_read(_NextBoot, options).deploy())


def initramfs_etc(
    track: Sequence[str], untrack: Sequence[str], *, untrack_all: bool, force_sync: bool, options: Options
) -> Request:
    """Return the request of OS.InitramfsEtc."""
    if not (track or untrack or untrack_all or force_sync):
        raise UsageError("a file to track or untrack is needed, or untrack_all, or force_sync")
    return InitramfsEtc(
        track=tuple(track), untrack=tuple(untrack), untrack_all=untrack_all, force_sync=force_sync,
        deploy=_read(_NextBoot, options).deploy(),
    )  # fmt: skip


def finalize(options: Options) -> Request:
    """Return the request of OS.FinalizeDeployment."""
    return _read(FinalizeDeployment, options)


def rollback(options: Options) -> Request:
    """Return the request of OS.Rollback."""
    o = _read(_Rollback, options)
    return Rollback(dry_run=o.dry_run, allow_failed=o.allow_failed)


def cleanup(what: Sequence[str], stateroot: str) -> Request:
    """Return the request of OS.Cleanup; what: any of base, pending-deploy, repomd and rollback-deploy."""
    if unknown := sorted({*what} - {*_CLEANUP}):
        raise UsageError(
            f"nothing to clean up is named {unknown[0]!r}", hint=f"there are: {', '.join(_CLEANUP)}"
        )
    return Cleanup(
        base="base" in what, pending="pending-deploy" in what, rollback="rollback-deploy" in what,
        repomd="repomd" in what, stateroot=stateroot,
    )  # fmt: skip


def refresh_md(options: Options) -> Request:
    """Return the request of OS.RefreshMd."""
    return RefreshMd(force=_read(_RefreshMd, options).force)


def apply_live(options: Options) -> Request:
    """Return the request of Live.Apply."""
    o = _read(_ApplyLive, options)
    return ApplyLive(
        target=o.target,
        reset=o.reset,
        selection=Selection(o.packages, o.excluded_packages, o.security),
        live=o.live(),
        dry_run=o.dry_run,
    )


def rollback_live(options: Options) -> Request:
    """Return the request of Live.Rollback."""
    o = _read(_RollbackLive, options)
    return RollbackLive(
        generation=o.generation, packages=o.packages, restart_services=o.restart_services, dry_run=o.dry_run
    )


def confirm() -> Request:
    """Return the request of Live.Confirm."""
    return Confirm()


def edit_overlay(name: str, options: Options) -> Request:
    """Return the request of Overlays.Edit, which changes an overlay but not its paths."""
    o = _read(_EditOverlay, options)
    return EditOverlay(
        name=name, create=o.create, remove=o.remove, enable=o.enable, rename=o.rename, live=o.live(),
        dry_run=o.dry_run,
    )  # fmt: skip


def of_transaction(options: Options) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of a call that are its transaction's, and the others."""
    return (
        {key: value for key, value in options.items() if key in OF_TRANSACTIONS},
        {key: value for key, value in options.items() if key not in OF_TRANSACTIONS},
    )


def _read(kind: type[T], options: Options) -> T:
    """Return options by their names on the bus, which have dashes; UsageError names a wrong one."""
    return jsonvalue.read(
        kind, {key.replace("-", "_"): value for key, value in options.items()}, name="options"
    )
