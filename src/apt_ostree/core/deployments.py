"""Verbs on the deployments there are: reorders, pins, finalizes and removes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from apt_ostree.core import policing
from apt_ostree.core.state import leftovers, marks, reserve
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.deployment import Deployment, Deployments, named, plan_cleanup, plan_rollback
from apt_ostree.model.events import PlanShown
from apt_ostree.model.requests.deployments import Cleanup, FinalizeDeployment, Pin, Rollback, Unpin
from apt_ostree.model.result import Result
from apt_ostree.system import available_update, newer_versions, ocilayout, space, systemd_login, verdicts
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import image_refs


def boot_previous(tx: Transaction, request: Rollback) -> Result:
    """Make the rollback deployment the default for the next boot; a second rollback reverts the first.

    Returns the plan's keys and `next_boot`. Raises Refused when there is no deployment to roll back to, and
    while one is staged: whether that is to go, or an older one is to be booted, is not known.
    """
    with tx.changing("roll back"):
        if staged := tx.deployments.staged:
            raise Refused(
                f"{staged.id} is staged for the next boot, and only an older deployment is rolled back to",
                hint="'apt-ostree cleanup --pending' drops it, and the booted one is the next one again",
            )
        plan = plan_rollback(tx.deployments)
        if plan is None:
            raise Refused(
                "there is no deployment to roll back to",
                hint="'apt-ostree status' lists the deployments; changes made live are "
                "undone by 'apt-ostree apply-live --reset'",
            )
        _require_unfailed(tx, plan.order[0], request)
        tx.report(PlanShown("deployments", plan.to_json()))
        next_boot = not (request.dry_run or plan.order[0].booted)
        if not request.dry_run:
            with tx.task("Writing the list of deployments"):
                tx.sysroot.write_order(plan.order)
        details = {**plan.to_json(), "next_boot": next_boot}
        return Result(changed=True, next_boot=next_boot, details=details)


def _require_unfailed(tx: Transaction, deployment: Deployment, request: Rollback) -> None:
    """Raise Refused for a deployment of which a boot has failed; what is booted runs."""
    mark = None if deployment.booted else marks.of_boot(tx.sysroot.repo, verdicts.read(), deployment)
    policing.require_unfailed(tx, mark, allowed=request.allow_failed, preview=request.dry_run)


def pin(tx: Transaction, request: Pin) -> Result:
    """Keep deployments until they are unpinned.

    Returns `deployments`, the ids of those that were not pinned. Raises UsageError for one that there is not,
    and Refused for a staged one, which ostree cannot pin.
    """
    with tx.changing("pin deployments"):
        return _set_pinned(tx, request.deployments, pinned=True)


def unpin(tx: Transaction, request: Unpin) -> Result:
    """Keep deployments no longer than others; returns and raises what `pin` does."""
    with tx.changing("unpin deployments"):
        return _set_pinned(tx, request.deployments, pinned=False)


def _set_pinned(tx: Transaction, names: Sequence[str], *, pinned: bool) -> Result:
    chosen = [named(tx.deployments, name) for name in names]
    staged = [deployment.id for deployment in chosen if deployment.staged]
    if staged:
        raise Refused(
            f"{staged[0]} is staged, and cannot be pinned before it was booted",
            hint="'apt-ostree status' lists the deployments",
        )
    changed = [deployment for deployment in dict.fromkeys(chosen) if deployment.pinned != pinned]
    for deployment in changed:
        tx.sysroot.pin(deployment, pinned=pinned)
        tx.message(f"{deployment.id} is {'pinned' if pinned else 'not pinned any more'}.")
    return Result(bool(changed), details={"deployments": [deployment.id for deployment in changed]})


def finalize(tx: Transaction, request: FinalizeDeployment) -> Result:
    """Let the next shutdown complete the staged deployment.

    Returns `commit`. Raises Refused if there is none, if it is another one than the caller knows, if it is
    not locked, or if a program inhibits the reboot that follows.
    """
    with tx.changing("finalize the staged deployment"):
        staged = tx.deployments.staged
        if staged is None:
            raise Refused("no deployment is staged", hint="'apt-ostree status' lists the deployments")
        if request.checksum not in (None, staged.checksum, tx.sysroot.repo.base_of(staged.checksum)):
            raise Refused(
                f"commit {staged.checksum[:12]} is staged, and not {request.checksum}",
                hint="look at 'apt-ostree status', and name the commit that is to be booted",
            )
        if not (staged.locked or request.allow_unlocked):
            raise Refused(
                "the staged deployment is not locked", hint="the next shutdown completes it in any case"
            )
        if blocking := systemd_login.blocking_shutdown():
            raise Refused(
                f"a reboot is inhibited by {', '.join(blocking)}",
                hint="wait until that ends; 'systemd-inhibit --list' shows it, too; nothing was changed",
            )
        policing.require_approval(tx, None, staged.checksum)
        details = {"commit": staged.checksum}
        if request.dry_run:
            return Result(changed=staged.locked, details=details)
        failpoint("finalize.before-unlock")
        tx.sysroot.set_locked(False)
        tx.message(f"The next shutdown completes commit {staged.checksum[:12]}.")
    return Result(changed=staged.locked, next_boot=True, details=details)


def cleanup(tx: Transaction, request: Cleanup) -> Result:
    """Remove deployments, temporary files, unreferenced objects and downloads, as requested.

    The commits that the running system shows are kept by refs, even if their deployment is removed.

    Returns the plan's keys, `downloads`, `freed_bytes` and `held`, the generations that keep space. Raises
    UsageError if the request names nothing to remove, or a stateroot that no deployment has.
    """
    unreferenced = request.base or request.pending or request.rollback
    if not (unreferenced or request.repomd):
        raise UsageError(
            "nothing to clean up was named", hint="give one of --base, --pending, --rollback, --repomd"
        )
    with tx.changing("clean up"):
        osname = _stateroot(tx.deployments, request.stateroot)
        plan = plan_cleanup(tx.deployments, osname, pending=request.pending, rollback=request.rollback)
        released = reserve.release(tx.sysroot)
        before = _free_bytes(tx)
        if plan.dropped or plan.kept:
            tx.report(PlanShown("deployments", plan.to_json()))
        if plan.dropped:
            with tx.task("Writing the list of deployments"):
                tx.sysroot.write_order(plan.order)
            tx.reread()
        if request.repomd:
            image_refs.await_image(tx.sysroot.repo, "")
        if unreferenced:
            with tx.task("Removing unreferenced objects"):
                leftovers.remove(tx.sysroot, tx.records, tx.deployments, thorough=True)
        downloads = _remove_downloads(tx) if request.repomd else 0
        freed = max(0, _free_bytes(tx) - before)
        if released:
            reserve.keep(tx.sysroot)
        held = leftovers.held(tx.live.generations) if unreferenced else ()
    details = {"downloads": downloads, "freed_bytes": freed, "held": [asdict(one) for one in held]}
    return Result(changed=True, details=plan.to_json() | details)


def _free_bytes(tx: Transaction) -> int:
    return space.of(tx.sysroot.state_dir.parent).unused


def _stateroot(deployments: Deployments, name: str | None) -> str:
    """Return the named stateroot, else the booted one; raise UsageError if no deployment has it."""
    names = {deployment.osname for deployment in deployments.all}
    if name is None:
        return deployments.booted.osname if deployments.booted else min(names)
    if name not in names:
        raise UsageError(f"no deployment has the stateroot {name!r}", hint="there are: " + ", ".join(names))
    return name


def _remove_downloads(tx: Transaction) -> int:
    """Remove package lists and archives; return the number of files removed."""
    from apt_ostree.system.apt import acquire, config

    config.use_host()
    with tx.task("Removing package lists, archives and fetched images"):
        removed = acquire.remove_downloads() + ocilayout.forget()
        newer_versions.forget()
        available_update.forget()
    tx.message(f"{removed} files of package lists, archives and images removed")
    return removed
