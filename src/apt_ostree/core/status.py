"""status: what is deployed, booted, pending and live. Reads only, and needs no root.

It imports as little as possible, because it is called often. A test limits the time that it takes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from apt_ostree.core.state import reading
from apt_ostree.core.state.inventory import packages_of
from apt_ostree.model import bus, layout
from apt_ostree.model.deployment import Deployment, Uncompleted
from apt_ostree.model.newer import Newer, of_origin
from apt_ostree.model.package import PackageDiff, diff_packages
from apt_ostree.model.queries import RequestedPackages
from apt_ostree.model.queries import Status as StatusQuery
from apt_ostree.model.signature import Signature
from apt_ostree.model.status import (
    AutomaticStatus,
    Commit,
    DeploymentStatus,
    DriverStatus,
    Live,
    Status,
    live_records,
    package_name,
)
from apt_ostree.system import (
    automatic_record,
    available_update,
    files,
    newer_versions,
    running,
    settings,
    statedb,
    transaction_files,
    update_driver,
    usrview,
    verdicts,
)
from apt_ostree.system.ostree import remotes
from apt_ostree.system.ostree.remotes import Verification
from apt_ostree.system.ostree.repo import Repo
from apt_ostree.system.ostree.sysroot import Sysroot

_DEPLOY = Path("/ostree/deploy")
#: The unit of ostree that completes a staged deployment when it stops.
_FINALIZING = "ostree-finalize-staged.service"
_TIMER = "apt-ostree-automatic.timer"


def status(query: StatusQuery) -> Status:
    """Return the status of the running system, or of the one below a path.

    Raises Refused when the running system was not booted with OSTree, and ExternalFailure when a system root
    cannot be opened.
    """
    with reading.opened(query.sysroot) as sysroot:
        deployments = sysroot.deployments()
        merge, is_running = deployments.merge, query.sysroot == "/"
        newer = newer_versions.read() if is_running else ()
        signatures_of = cache(partial(_signatures, sysroot.repo))  # GnuPG takes 40 ms each time
        chosen = [d for d in deployments.all if d.booted or not query.booted]
        return Status(
            tuple(
                _with_verdicts(sysroot.repo, _describe(sysroot, d, deployments.booted, newer, signatures_of))
                for d in chosen
            ),
            pending=bool(deployments.booted and deployments.pending),
            busy=sysroot.in_use(),
            uncompleted=_uncompleted(sysroot),
            transaction=_transaction() if is_running else None,
            update=available_update.read(merge.checksum) if merge and is_running else None,
            automatic=_automatic(deployments.pending) if is_running else None,
            driver=_driver() if is_running else None,
        )


def stateroots() -> frozenset[str]:
    """Return the names of the running system's stateroots; none if it was not made by OSTree."""
    return frozenset(path.name for path in _DEPLOY.glob("*"))


def watched() -> tuple[Path, ...]:
    """Return the directories that change when a deployment does, or the live state."""
    return (_DEPLOY, statedb.DIRECTORY)


def stamp() -> tuple[object, ...]:
    """Return what differs when the status of the running system may have changed."""
    others = (
        statedb.path(),
        transaction_files.DIRECTORY,
        Path("/run/ostree"),
        automatic_record.RECORD,
        verdicts.FILE,
    )
    paths = (*watched(), *others)
    return usrview.foreign(), *(path.stat().st_mtime if path.exists() else 0.0 for path in paths)


def _transaction() -> tuple[str, str, str] | None:
    running = transaction_files.running()
    return (running.title, running.caller.user, bus.path_of(running.id)) if running else None


def _driver() -> DriverStatus | None:
    driver = update_driver.read()
    if driver is None:
        return None
    from apt_ostree.system import systemd

    return DriverStatus(driver.name, driver.unit, systemd.is_unit_active(driver.unit))


def _automatic(pending: Deployment | None) -> AutomaticStatus | None:
    """Return what there is to say of automatic updates; None if they are off."""
    if (policy := settings.automatic_policy()) == "none":
        return None
    from apt_ostree.system import systemd

    is_active = systemd.is_unit_active(_TIMER)
    record = automatic_record.read()
    if record is None:
        return AutomaticStatus(policy, is_active)
    prediction = record.prediction
    if prediction and (pending is None or pending.checksum != prediction.commit):
        prediction = None
    return AutomaticStatus(
        policy,
        is_active,
        last_run=record.last_run,
        outcome=record.outcome,
        reasons=record.reasons,
        waiting_since=record.waiting_since or None,
        attempts=record.attempts,
        prediction=prediction,
    )


def _uncompleted(sysroot: Sysroot) -> Uncompleted | None:
    """Return the staged deployment that no shutdown completed, with the reason if it is known."""
    uncompleted = sysroot.uncompleted()
    if uncompleted is None or sysroot.path != "/":
        return uncompleted
    from apt_ostree.system import journal

    return replace(uncompleted, reason=journal.last_error(_FINALIZING, uncompleted.staged))


def requested_packages(_query: RequestedPackages) -> list[str]:
    """Return the names of the packages that the next deployment requests, for shell completion."""
    with reading.opened() as sysroot:
        merge = sysroot.deployments().merge
        return sorted(merge.origin.names) if merge else []


def _describe(
    sysroot: Sysroot,
    deployment: Deployment,
    booted: Deployment | None,
    newer: Sequence[Newer],
    signatures_of: Callable[[str, str | None], tuple[Signature, ...]],
) -> DeploymentStatus:
    repo, checksum, origin = sysroot.repo, deployment.checksum, deployment.origin
    base = repo.base_of(checksum)
    layered: tuple[str, ...] = ()
    changes, diff = PackageDiff(), None
    if base != checksum:
        changes = diff_packages(packages_of(repo, base), packages_of(repo, checksum))
        added = {package.name for package in changes.added}
        layered = tuple(sorted({package_name(r) for r in origin.requested} & added))
    is_running = deployment.booted and sysroot.path == "/"
    verification = remotes.verification(repo, origin.remote)
    if booted and deployment.index < booted.index:
        diff = diff_packages(packages_of(repo, booted.checksum), packages_of(repo, checksum))
    return DeploymentStatus(
        deployment=deployment,
        commit=_commit(repo, checksum),
        base=_commit(repo, base) if base != checksum else None,
        layered=layered,
        upgraded=changes.changed,
        removed=tuple(package for package in changes.removed if package.name in origin.removed),
        diff=diff,
        live=_live(repo, deployment) if is_running else None,
        newer=of_origin(newer, origin),
        etc_beside=_etc_beside() if is_running else (),
        gpg_enabled=verification is Verification.REQUIRED,
        signatures=signatures_of(base, origin.remote) if verification is Verification.REQUIRED else (),
        remote_error=f"there is no remote {origin.remote!r}"
        if verification is Verification.UNKNOWN
        else None,
        mounted_over=usrview.foreign() if is_running else None,
    )


def _with_verdicts(repo: Repo, described: DeploymentStatus) -> DeploymentStatus:
    """Return the status of a deployment with what is remembered of its failures."""
    if not verdicts.exists():
        return described
    from apt_ostree.core.state import marks

    memory, deployment = verdicts.read(), described.deployment
    is_back = deployment.booted and memory.back is not None and memory.back.to == deployment.id
    failed = marks.of_deployment(repo, memory, deployment)
    return replace(described, failed=failed, back=memory.back if is_back else None)


def _signatures(repo: Repo, commit: str, remote: str | None) -> tuple[Signature, ...]:
    from apt_ostree.system.ostree import signatures

    return signatures.of_remote(repo, commit, remote or "")


def _etc_beside() -> tuple[str, ...]:
    """Return what lies beside edited files of /etc, as long as the administrator has not removed it."""
    noted = files.text_of(statedb.DIRECTORY / layout.ETC_BESIDE).splitlines()
    return tuple(f"/etc/{path}" for path in noted if os.path.lexists(f"/etc/{path}"))


def _commit(repo: Repo, checksum: str) -> Commit:
    metadata = repo.metadata(checksum)
    return Commit(checksum, repo.timestamp(checksum), metadata.get(layout.META_VERSION), metadata)


def _live(repo: Repo, booted: Deployment) -> Live | None:
    """Return what was changed live since boot, or None."""
    if not statedb.is_readable():
        return _live_by_mount(repo, booted)
    with statedb.read_only() as db:
        this_boot = running.boot_id()
        generations = [g for g in db.generations() if g.boot_id == this_boot] if db else []
        units = {u.unit for g in generations if db for u in db.unit_records(g.id) if u.action == "start"}
    if not generations:
        return None
    records = live_records(generations)
    newest = records.newest
    if newest is None:
        return Live(unfinished=records.unfinished)
    return Live(
        commit=newest.base,
        generation=newest.id,
        diff=diff_packages(packages_of(repo, booted.checksum), packages_of(repo, newest.base)),
        overlays=tuple(overlay.id for overlay in newest.overlays),
        unfinished=records.unfinished,
        shown=usrview.generation() in records.mounted,
        confirm_by=_wall_clock(records.confirm_by),
        failed=_failed(units),
    )


def _failed(names: Collection[str]) -> tuple[str, ...]:
    if not names:
        return ()
    from apt_ostree.system import systemd

    return tuple(name for name, unit in systemd.units(names, anyone=True).items() if unit.is_in_trouble)


def _wall_clock(monotonic: float | None) -> float | None:
    return None if monotonic is None else time.time() - time.monotonic() + monotonic


def _live_by_mount(repo: Repo, booted: Deployment) -> Live | None:
    """Return the part of the live state that is readable without root: from the mount and the ref."""
    number = usrview.generation()
    target = repo.refs(f"apt-ostree/live/{number}").get(f"apt-ostree/live/{number}/target")
    if number is None or target is None:
        return None
    diff = diff_packages(packages_of(repo, booted.checksum), packages_of(repo, target))
    return Live(commit=target, generation=number, diff=diff)
