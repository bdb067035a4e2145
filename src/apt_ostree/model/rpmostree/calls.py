"""The calls of rpm-ostree's clients that make transactions: the request of each, and the actions it needs.

Unknown options are ignored, as rpm-ostree does. One that would change what is done, and that there is no
request for, is refused unless it has its default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from apt_ostree.errors import UsageError
from apt_ostree.model import calls, jsonvalue, kargs
from apt_ostree.model.automatic_settings import Policy
from apt_ostree.model.request import Request
from apt_ostree.model.requests.archives import RefreshMd
from apt_ostree.model.requests.automatic import AutomaticUpdate
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
from apt_ostree.model.requests.options import DeployOptions, LiveOptions
from apt_ostree.model.requests.packages import BaseRequest, DeployRequest, Reset, Upgrade
from apt_ostree.model.rpmostree.names import NAME

T = TypeVar("T")
Options = Mapping[str, Any]

#: Options and modifiers that are refused: what they ask for -> why.
_UNSUPPORTED = {
    "override-replace-local-packages": "packages of the base are replaced by name and version",
    "enable-modules": "Debian has no modules",
    "disable-modules": "Debian has no modules",
    "install-modules": "Debian has no modules",
    "uninstall-modules": "Debian has no modules",
    "custom-origin": "an origin is a ref of a repository",
    "treefile": "a treefile is composed with 'apt-ostree compose'",
}
#: The name that rpm-ostree's own client has for a modifier, and the described one.
_OF_CLIENT = {"install-fileoverride-local-packages": "install-local-fileoverride-packages"}
_APPLY_LIVE = "org.debian.aptostree1.apply-live"
_RESTART_SERVICES = "org.debian.aptostree1.restart-services"


@dataclass(frozen=True, slots=True)
class Call:
    """What a call asks for.

    actions: of polkit, all of which a user needs.
    reboot: whether the system is rebooted when there is something new to boot.
    note: what the user is told at the beginning, or empty.
    quiet: whether only the end is told.
    """

    request: Request
    actions: tuple[str, ...]
    reboot: bool = False
    note: str = ""
    quiet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deploy:
    """Options of calls that make a deployment. allow_downgrade: None is the default of the call."""

    allow_downgrade: bool | None = None
    skip_purge: bool = False
    skip_branch_check: bool = False
    reboot: bool = False
    dry_run: bool = False
    cache_only: bool = False
    download_only: bool = False
    apply_live: bool = False
    lock_finalization: bool = False
    register_driver: str = ""
    no_pull_base: bool = False
    no_layering: bool = False
    no_overrides: bool = False
    no_initramfs: bool = False
    idempotent_layering: bool = False
    allow_inactive: bool = False
    allow_inactive_requests: bool = False

    def __post_init__(self) -> None:
        if self.cache_only and self.download_only:
            raise ValueError("cache-only and download-only exclude each other")
        if self.reboot and self.lock_finalization:
            raise ValueError("reboot and lock-finalization exclude each other")

    def deploy(self) -> DeployOptions:
        live = LiveOptions() if self.apply_live else None
        return DeployOptions(
            self.dry_run,
            self.cache_only,
            self.download_only,
            live,
            lock_finalization=self.lock_finalization,
            reboot=self.reboot,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Modifiers:
    """What UpdateDeployment changes. The local packages are indexes of open files.

    The fileoverride packages are installed, and may replace files of others.
    """

    install_packages: tuple[str, ...] = ()
    uninstall_packages: tuple[str, ...] = ()
    install_local_packages: tuple[int, ...] = ()
    install_fileoverride_packages: tuple[str, ...] = ()
    install_local_fileoverride_packages: tuple[int, ...] = ()
    override_remove_packages: tuple[str, ...] = ()
    override_replace_packages: tuple[str, ...] = ()
    override_reset_packages: tuple[str, ...] = ()
    set_refspec: str | None = None
    set_revision: str | None = None

    @property
    def overrides(self) -> bool:
        changes = (
            self.override_remove_packages, self.override_replace_packages, self.override_reset_packages,
            self.install_fileoverride_packages, self.install_local_fileoverride_packages,
        )  # fmt: skip
        return any(changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rebase(_Deploy):
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reboot:
    reboot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Boot:
    reboot: bool = False
    lock_finalization: bool = False

    def __post_init__(self) -> None:
        if self.reboot and self.lock_finalization:
            raise ValueError("reboot and lock-finalization exclude each other")

    def deploy(self) -> DeployOptions:
        return DeployOptions(lock_finalization=self.lock_finalization, reboot=self.reboot)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kargs(_Boot):
    append_if_missing: tuple[str, ...] = ()
    delete_if_present: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refresh:
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Automatic:
    mode: str = "auto"
    output_to_self: bool = True


def upgrade(options: Options) -> Call:
    """Return what OS.Upgrade asks for."""
    o = _read(_Deploy, options)
    return Call(_upgrade(o), _actions("upgrade"), o.reboot)


def deploy(revision: str, options: Options) -> Call:
    """Return what OS.Deploy asks for."""
    o = _read(_Deploy, options)
    return Call(_deploy(revision, o), _actions("deploy"), o.reboot)


def rebase(refspec: str, options: Options, packages: Sequence[str]) -> Call:
    """Return what OS.Rebase asks for."""
    o, m = _read(_Rebase, options), _Modifiers(install_packages=tuple(packages))
    actions = _actions("rebase", *(["install-uninstall-packages"] if packages else []))
    return Call(_with_packages(_rebase(refspec, o.revision, o), m), actions, o.reboot)


def update_deployment(modifiers: Options, options: Options, files: Sequence[str] = ()) -> Call:
    """Return what OS.UpdateDeployment asks for. files: the names of the files that were passed."""
    modifiers = {_OF_CLIENT.get(name, name): value for name, value in modifiers.items()}
    m, o = _read(_Modifiers, modifiers), _read(_Deploy, options)
    named = m.install_packages or m.install_fileoverride_packages
    has_packages = bool(named or m.uninstall_packages or o.no_layering)
    needed = {
        "bootconfig": o.no_initramfs,
        "rebase": m.set_refspec is not None,
        "deploy": m.set_refspec is None and m.set_revision is not None,
        "upgrade": m.set_refspec is None and m.set_revision is None and not o.no_pull_base,
        "install-uninstall-packages": has_packages,
        "install-local-packages": bool(m.install_local_packages or m.install_local_fileoverride_packages),
        "override": o.no_overrides or m.overrides,  # for files that are replaced, unlike rpm-ostree, too
    }
    actions = _actions(*(name for name, is_needed in needed.items() if is_needed)) or _actions("override")
    if o.apply_live:  # rpm-ostree has no action of its own for it
        actions += (_APPLY_LIVE,)
    changes_packages = has_packages or m.install_local_packages or m.overrides or o.no_overrides
    if o.no_initramfs:
        if m != _Modifiers(install_packages=m.install_packages):
            raise UsageError(
                "no-initramfs excludes other changes than no-layering, no-overrides and packages"
            )
        reset = Reset(
            deploy=o.deploy(), layers=o.no_layering, overrides=o.no_overrides, initramfs=True,
            install=m.install_packages,
        )  # fmt: skip
        return Call(reset, actions, o.reboot)
    if m.set_refspec is not None or m.set_revision is not None:
        if m.overrides or o.no_overrides or o.no_layering:
            raise UsageError("overrides and another base are two changes: make one after the other")
        is_rebase = m.set_refspec is not None
        base = (
            _rebase(m.set_refspec or "", m.set_revision, o) if is_rebase else _deploy(m.set_revision or "", o)
        )
        return Call(_with_packages(base, m, files), actions, o.reboot)
    keeps_base = o.no_pull_base or m.overrides or o.no_overrides or o.no_layering
    if not changes_packages or not keeps_base:
        return Call(_with_packages(_upgrade(o), m, files), actions, o.reboot)
    note = "" if o.no_pull_base else "The base stays; an upgrade takes a newer one."
    return Call(_change_of_packages(m, o, files), actions, o.reboot, note)


def pkg_change(options: Options, added: Sequence[str], removed: Sequence[str]) -> Call:
    """Return what OS.PkgChange asks for."""
    o = _read(_Deploy, options)
    modifiers = _Modifiers(install_packages=tuple(added), uninstall_packages=tuple(removed))
    return Call(_change_of_packages(modifiers, o), _actions("install-uninstall-packages"), o.reboot)


def kernel_args(
    existing: str, added: Sequence[str], replaced: Sequence[str], removed: Sequence[str], options: Options
) -> Call:
    """Return what OS.KernelArgs asks for: the changes are made to the given arguments."""
    o = _read(_Kargs, options)
    changes = kargs.Changes.split(
        delete=removed, replace=replaced, append=added,
        append_if_missing=o.append_if_missing, delete_if_present=o.delete_if_present,
    )  # fmt: skip
    whole = changes.apply(kargs.own(kargs.split(existing)))
    return Call(Kargs(whole=whole, deploy=o.deploy()), _actions("bootconfig"), o.reboot)


def set_initramfs_state(regenerate: bool, arguments: Sequence[str], options: Options) -> Call:
    """Return what OS.SetInitramfsState asks for."""
    o = _read(_Boot, options)
    given = tuple(arguments) if regenerate else ()
    request = Initramfs(enable=regenerate, arguments=given, deploy=o.deploy())
    return Call(request, _actions("bootconfig"), o.reboot)


def initramfs_etc(
    track: Sequence[str], untrack: Sequence[str], *, untrack_all: bool, force_sync: bool, options: Options
) -> Call:
    """Return what OS.InitramfsEtc asks for."""
    o = _read(_Boot, options)
    if not (track or untrack or untrack_all or force_sync):
        raise UsageError("a file to track or untrack is needed, or untrack-all, or force-sync")
    request = InitramfsEtc(
        track=tuple(track), untrack=tuple(untrack), untrack_all=untrack_all, force_sync=force_sync,
        deploy=o.deploy(),
    )  # fmt: skip
    return Call(request, _actions("bootconfig"), o.reboot)


def rollback(options: Options) -> Call:
    """Return what OS.Rollback asks for."""
    return Call(Rollback(), _actions("rollback"), _read(_Reboot, options).reboot)


def finalize(options: Options) -> Call:
    """Return what OS.FinalizeDeployment asks for, which ends with a reboot."""
    request = _read(FinalizeDeployment, options)
    return Call(request, _actions("finalize-deployment"), reboot=True)


def cleanup(what: Sequence[str], stateroot: str) -> Call:
    """Return what OS.Cleanup asks for."""
    return Call(calls.cleanup(what, stateroot), _actions("cleanup"))


def clear_rollback_target(options: Options, stateroot: str) -> Call:
    """Return what OS.ClearRollbackTarget asks for."""
    reboot = _read(_Reboot, options).reboot
    return Call(Cleanup(rollback=True, stateroot=stateroot), _actions("rollback"), reboot)


def refresh_md(options: Options) -> Call:
    """Return what OS.RefreshMd asks for."""
    return Call(RefreshMd(force=_read(_Refresh, options).force), _actions("repo-refresh"))


def download_update() -> Call:
    """Return what OS.DownloadUpdateRpmDiff asks for: nothing is changed, but the update is known then."""
    return Call(Upgrade(check=True), _actions("repo-refresh"))


def automatic_update(options: Options, policy: str) -> Call | None:
    """Return what OS.AutomaticUpdateTrigger asks for; None if nothing is to be done.

    policy: of automatic updates, which the mode "auto" follows.
    """
    o = _read(_Automatic, options)
    mode = policy if o.mode == "auto" else o.mode
    if mode not in [*Policy]:
        raise UsageError(f"mode: {o.mode!r} is none of auto, {', '.join(Policy)}")
    if mode == Policy.NONE:
        return None
    if o.mode == Policy.CHECK:  # asked for by somebody, and not by a timer
        return Call(Upgrade(check=True), _actions("upgrade"), quiet=o.output_to_self)
    actions = _actions("upgrade")
    if o.mode == Policy.LIVE:  # the settings' own policy is the administrator's
        actions += (_APPLY_LIVE, _RESTART_SERVICES)
    given = None if o.mode == "auto" else Policy(mode)
    return Call(AutomaticUpdate(policy=given), actions, reboot=True, quiet=o.output_to_self)


def _refuse_driver(o: _Deploy) -> None:
    if o.register_driver:
        raise UsageError("register-driver is not supported: a driver is registered by Deploy")


def _upgrade(o: _Deploy) -> BaseRequest:
    _refuse_driver(o)
    return Upgrade(
        deploy=o.deploy(),
        base=not o.no_pull_base,
        allow_downgrade=bool(o.allow_downgrade),
        bypass_driver=True,  # it is rpm-ostree's client that asks for a driver, not its service
    )


def _deploy(revision: str, o: _Deploy) -> BaseRequest:
    if not (revision or o.register_driver):
        raise UsageError("revision: expected a commit or a version")
    is_newer = o.allow_downgrade is False  # an older commit is fine unless that is said
    return Deploy(
        revision=revision,
        deploy=o.deploy(),
        skip_branch_check=o.skip_branch_check,
        disallow_downgrade=is_newer,
        register_driver=o.register_driver,
        bypass_driver=True,
    )


def _rebase(refspec: str, revision: str | None, o: _Deploy) -> BaseRequest:
    _refuse_driver(o)
    is_newer = o.allow_downgrade is False
    return Rebase(
        refspec=refspec, revision=revision, deploy=o.deploy(), skip_purge=o.skip_purge,
        disallow_downgrade=is_newer, bypass_driver=True,
    )  # fmt: skip


def _with_packages(request: BaseRequest, m: _Modifiers, files: Sequence[str] = ()) -> BaseRequest:
    """Return the request of another base with a change of layered packages."""
    return replace(
        request,
        install=m.install_packages,
        files=calls.local_packages(m.install_local_packages, files),
        uninstall=m.uninstall_packages,
    )


def _change_of_packages(m: _Modifiers, o: _Deploy, files: Sequence[str] = ()) -> Request:
    """Return the request of a change of layered packages."""
    _refuse_driver(o)
    modifiers = {
        "install-packages": m.install_packages,
        "uninstall-packages": m.uninstall_packages,
        "install-local-packages": m.install_local_packages,
        "install-fileoverride-packages": m.install_fileoverride_packages,
        "install-local-fileoverride-packages": m.install_local_fileoverride_packages,
        "no-layering": o.no_layering,
        "override-remove-packages": m.override_remove_packages,
        "override-replace-packages": m.override_replace_packages,
        "override-reset-packages": m.override_reset_packages,
        "no-overrides": o.no_overrides,
    }
    options = {
        "dry-run": o.dry_run,
        "cache-only": o.cache_only,
        "download-only": o.download_only,
        "apply-live": o.apply_live,
        "lock-finalization": o.lock_finalization,
        "idempotent-layering": o.idempotent_layering,
        "allow-inactive": o.allow_inactive or o.allow_inactive_requests,
    }
    request = calls.update_deployment(modifiers, options, files)
    assert isinstance(request, DeployRequest)
    return replace(request, deploy=replace(request.deploy, reboot=o.reboot))


def _actions(*names: str) -> tuple[str, ...]:
    return tuple(f"{NAME}.{name}" for name in names)


def _read(kind: type[T], options: Options) -> T:
    """Return the known ones of the options; UsageError names one of another type, and one that is refused."""
    for name, reason in _UNSUPPORTED.items():
        if options.get(name):
            raise UsageError(f"{name} is not supported: {reason}")
    known = {field.name.replace("_", "-"): field.name for field in fields(kind)}  # type: ignore[arg-type]
    given = {known[name]: value for name, value in options.items() if name in known}
    return jsonvalue.read(kind, given, name="options")
