"""rollback and cleanup: the order of the deployments, and what nobody needs any more."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apt_ostree.core import host
from apt_ostree.core.live import undo
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.deployment import Deployments, plan_cleanup, plan_rollback
from apt_ostree.model.events import Message, PlanShown, Report, task
from apt_ostree.model.generation import Generation
from apt_ostree.system import space, statedb, usrview
from apt_ostree.system.ostree import layers
from apt_ostree.system.ostree.sysroot import Sysroot

#: What killed workers may leave in our directory on the repository's file system (glob patterns).
_SCRATCH = ("work/build-*", "tree-*", "view-*", "layers/*.partial")


def rollback(report: Report, *, dry_run: bool = False) -> Mapping[str, Any]:
    """Make the rollback deployment the next boot's; a second time takes that back."""
    with host.changing("roll back", report) as sysroot:
        plan = plan_rollback(sysroot.deployments())
        if plan is None:
            raise Refused(
                "there is no deployment to roll back to",
                hint="'apt-ostree status' lists the deployments; changes made live are "
                "undone by 'apt-ostree apply-live --reset'",
            )
        report(PlanShown("deployments", plan.to_json()))
        if dry_run:
            return plan.to_json() | {"changed": True, "next_boot": False}
        with task(report, "Writing the list of deployments"):
            sysroot.write_order(plan.order)
        next_one = plan.order[0]
        return plan.to_json() | {"changed": True, "next_boot": not next_one.booted}


def cleanup(
    report: Report,
    *,
    base: bool = False,
    pending: bool = False,
    rollback: bool = False,
    repomd: bool = False,
    stateroot: str | None = None,
) -> Mapping[str, Any]:
    """Remove deployments, leftovers, objects that nothing refers to, and downloads, as asked.

    What the running system shows stays, also when its deployment goes: refs hold live commits.
    """
    if not (base or pending or rollback or repomd):
        raise UsageError(
            "nothing to clean up was named", hint="give one of --base, --pending, --rollback, --repomd"
        )
    with host.changing("clean up", report) as sysroot, statedb.read_only() as db:
        generations = db.generations() if db else ()
        deployments = sysroot.deployments()
        osname = _stateroot(deployments, stateroot)
        plan = plan_cleanup(deployments, osname, pending=pending, rollback=rollback)
        before = space.of(sysroot.state_dir.parent).unused
        if plan.dropped or plan.kept:
            report(PlanShown("deployments", plan.to_json()))
        if plan.dropped:
            with task(report, "Writing the list of deployments"):
                sysroot.write_order(plan.order)
        if base or pending or rollback:
            with task(report, "Removing what nothing refers to"):
                _remove_leftovers(sysroot, generations)
                sysroot.cleanup()
        downloads = _remove_downloads(report) if repomd else 0
        freed = max(0, space.of(sysroot.state_dir.parent).unused - before)
    return plan.to_json() | {"changed": True, "downloads": downloads, "freed_bytes": freed}


def _stateroot(deployments: Deployments, wanted: str | None) -> str:
    known = {deployment.osname for deployment in deployments.all}
    if wanted is None:
        return deployments.booted.osname if deployments.booted else min(known)
    if wanted not in known:
        raise UsageError(f"no deployment has the stateroot {wanted!r}", hint="known: " + ", ".join(known))
    return wanted


def _remove_leftovers(sysroot: Sysroot, generations: tuple[Generation, ...]) -> None:
    """Remove refs, layers, uppers, scratch directories and local packages that nothing needs."""
    from apt_ostree.system.apt import local

    known, shown = {g.id for g in generations}, set(usrview.stacked())
    sysroot.sync_base_refs()
    undo.unpin_all_but(sysroot, frozenset(known | shown))
    # A layer that was mounted in this boot may be in use where no list of mounts shows it; boot removes it.
    if not shown and not statedb.MARKER.exists():
        layers.remove_checkouts(
            undo.layers_dir(sysroot), frozenset(name for g in generations for name in g.layers)
        )
        _remove_uppers(sysroot, generations)
    for pattern in _SCRATCH:
        for leftover in sysroot.state_dir.glob(pattern):
            shutil.rmtree(leftover)
    used = frozenset(p.sha256 for d in sysroot.deployments().all for p in d.origin.local)
    local.remove_unused(used)


def _remove_uppers(sysroot: Sysroot, generations: tuple[Generation, ...]) -> None:
    used = {Path(upper).parent for g in generations for upper in g.uppers}
    for directory in sysroot.state_dir.glob("uppers/*"):
        if directory not in used:
            shutil.rmtree(directory)


def _remove_downloads(report: Report) -> int:
    from apt_ostree.system.apt import acquire, config

    config.use_host()
    with task(report, "Removing package lists and archives"):
        removed = acquire.remove_downloads()
    report(Message(f"{removed} files of package lists and archives removed"))
    return removed
