"""rollback and cleanup: the order of the deployments, and what nobody needs any more."""

from __future__ import annotations

import shutil

from apt_ostree.core.state import generations
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.deployment import Deployments, plan_cleanup, plan_rollback
from apt_ostree.model.events import PlanShown
from apt_ostree.model.requests import Cleanup, Rollback
from apt_ostree.model.result import Result
from apt_ostree.system import scratch, space, statedb, usrview

#: What killed workers may leave in `work`, by their prefixes, and else in our directory, as patterns.
_SCRATCH = ("build-", "tree-", "repair-")
_LEFTOVERS = ("view-*", "layers/*.partial")


def rollback(tx: Transaction, request: Rollback) -> Result:
    """Make the rollback deployment the next boot's; a second time takes that back."""
    with tx.changing("roll back"):
        plan = plan_rollback(tx.deployments)
        if plan is None:
            raise Refused(
                "there is no deployment to roll back to",
                hint="'apt-ostree status' lists the deployments; changes made live are "
                "undone by 'apt-ostree apply-live --reset'",
            )
        tx.report(PlanShown("deployments", plan.to_json()))
        next_boot = not (request.dry_run or plan.order[0].booted)
        if not request.dry_run:
            with tx.task("Writing the list of deployments"):
                tx.sysroot.write_order(plan.order)
        details = {**plan.to_json(), "next_boot": next_boot}
        return Result(changed=True, next_boot=next_boot, details=details)


def cleanup(tx: Transaction, request: Cleanup) -> Result:
    """Remove deployments, leftovers, objects that nothing refers to, and downloads, as asked.

    What the running system shows stays, also when its deployment goes: refs hold live commits.
    """
    unreferenced = request.base or request.pending or request.rollback
    if not (unreferenced or request.repomd):
        raise UsageError(
            "nothing to clean up was named", hint="give one of --base, --pending, --rollback, --repomd"
        )
    with tx.changing("clean up"):
        osname = _stateroot(tx.deployments, request.stateroot)
        plan = plan_cleanup(tx.deployments, osname, pending=request.pending, rollback=request.rollback)
        before = _free_bytes(tx)
        if plan.dropped or plan.kept:
            tx.report(PlanShown("deployments", plan.to_json()))
        if plan.dropped:
            with tx.task("Writing the list of deployments"):
                tx.sysroot.write_order(plan.order)
            tx.reread()
        if unreferenced:
            with tx.task("Removing what nothing refers to"):
                _remove_leftovers(tx)
                tx.sysroot.cleanup()
        downloads = _remove_downloads(tx) if request.repomd else 0
        freed = max(0, _free_bytes(tx) - before)
    return Result(changed=True, details={**plan.to_json(), "downloads": downloads, "freed_bytes": freed})


def _free_bytes(tx: Transaction) -> int:
    return space.of(tx.sysroot.state_dir.parent).unused


def _stateroot(deployments: Deployments, name: str | None) -> str:
    """Return the stateroot of that name, else the booted one; UsageError where no deployment has it."""
    names = {deployment.osname for deployment in deployments.all}
    if name is None:
        return deployments.booted.osname if deployments.booted else min(names)
    if name not in names:
        raise UsageError(f"no deployment has the stateroot {name!r}", hint="there are: " + ", ".join(names))
    return name


def _remove_leftovers(tx: Transaction) -> None:
    """Remove refs, layers, uppers, scratch directories and local packages that nothing needs."""
    from apt_ostree.system.apt import local

    sysroot, recorded = tx.sysroot, tx.records.generations()
    mounted = set(usrview.stacked())
    sysroot.sync_base_refs()
    generations.unpin_all_but(sysroot, frozenset({g.id for g in recorded} | mounted))
    # A layer that was mounted in this boot may be in use where no list of mounts shows it; boot removes it.
    if not mounted and not statedb.MARKER.exists():
        generations.remove_layers_but(sysroot, recorded)
        generations.remove_uppers_but(sysroot, recorded)
    for prefix in _SCRATCH:
        scratch.remove_leftovers(sysroot.state_dir / "work", prefix)
    for pattern in _LEFTOVERS:
        for leftover in sysroot.state_dir.glob(pattern):
            shutil.rmtree(leftover)
    local.remove_unused(frozenset(p.sha256 for d in tx.deployments.all for p in d.origin.local))


def _remove_downloads(tx: Transaction) -> int:
    """Remove package lists and archives; return how many files."""
    from apt_ostree.system.apt import acquire, config

    config.use_host()
    with tx.task("Removing package lists and archives"):
        removed = acquire.remove_downloads()
    tx.message(f"{removed} files of package lists and archives removed")
    return removed
