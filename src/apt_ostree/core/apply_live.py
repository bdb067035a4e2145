"""apply-live and rollback --live: show another commit on the running system without a reboot."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from apt_ostree.core.live import engine, rollback, undo
from apt_ostree.core.overlays import stack
from apt_ostree.core.state import etc_deltas
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.etc_delta import Delta
from apt_ostree.model.requests.live import ApplyLive, RollbackLive
from apt_ostree.model.requests.options import LiveOptions
from apt_ostree.model.result import Result
from apt_ostree.model.selection import Selection

if TYPE_CHECKING:
    from apt_ostree.core.live.subset import Source


def apply_live(tx: Transaction, request: ApplyLive) -> Result:
    """Make the pending deployment, a part of it, or a commit current; or go back to the booted commit.

    Returns `plan`, `commit` and, after a change, `generation`; with a selection also `selection`. Raises
    UsageError for options that exclude each other, Refused if nothing is pending or the plan is refused.
    """
    if bool(request.reset) + bool(request.target) + bool(request.selection) > 1:
        raise UsageError("--reset, --target, and a selection of packages exclude each other")
    options, dry_run = request.live, request.dry_run
    with tx.changing("change the running system"):
        undo.recover_interrupted(tx, dry_run=dry_run)
        if request.selection:
            return _apply_selection(tx, request.selection, options, dry_run=dry_run)
        if request.reset:
            return _reset(tx, options, dry_run=dry_run)
        return _apply(tx, _target_commit(tx, request.target), options, dry_run=dry_run)


def rollback_live(tx: Transaction, request: RollbackLive) -> Result:
    """Go back to what a live generation of this boot showed, or take only some packages from it.

    Generation 0 is the booted tree. Without a number, the whole system goes back by one generation. Packages
    without a number get the versions of the booted tree.

    Returns `commit` and, depending on the request, `plan`, `generation` and `selection`. Raises UsageError
    for a generation that is not live, and Refused if there is no live change.
    """
    policy, dry_run = request.restart_services, request.dry_run
    with tx.changing("roll back the running system"):
        undo.recover_interrupted(tx, dry_run=dry_run)
        if not request.packages:
            return rollback.step_back(tx, request.generation, policy, dry_run=dry_run)
        source = _source_of_generation(tx, request.generation or 0)
        selection = Selection(request.packages)
        options = LiveOptions(restart_services=policy, allow_failed=True)  # it goes back
        return _apply_selection(tx, selection, options, source=source, dry_run=dry_run)


def apply_pending(tx: Transaction, options: LiveOptions) -> Result:
    """Apply the pending deployment in a transaction that is at work; see `apply_live`."""
    undo.recover_interrupted(tx)
    return _apply(tx, _target_commit(tx, None), options, dry_run=False)


def _apply(tx: Transaction, commit: str, options: LiveOptions, *, dry_run: bool) -> Result:
    """Show a commit together with the enabled overlays."""
    change = engine.plan(tx, stack.goal_on(tx, commit), options, delta=_delta(tx, commit), ask=not dry_run)
    outcome = engine.carry_out(tx, change, options, dry_run=dry_run)
    return Result(outcome.pop("changed"), outcome.pop("live"), details=outcome)


def _delta(tx: Transaction, commit: str) -> Delta:
    """Return what scripts did to /etc for a commit; the booted deployment's /etc has it already."""
    pending = tx.deployments.pending
    if commit == tx.live.booted.checksum and (pending is None or pending.checksum != commit):
        return {}
    return etc_deltas.read(commit)


def _reset(tx: Transaction, options: LiveOptions, *, dry_run: bool) -> Result:
    """Go back to the booted commit. With enabled overlays this is an ordinary change, because they stay."""
    if not any(state.enabled for state in tx.records.overlays()):
        return rollback.step_back_to_booted(tx, options.restart_services, dry_run=dry_run)
    return _apply(tx, tx.live.booted.checksum, replace(options, allow_replacement=True), dry_run=dry_run)


def _apply_selection(
    tx: Transaction,
    selection: Selection,
    options: LiveOptions,
    *,
    source: Source | None = None,
    dry_run: bool,
) -> Result:
    """Make some packages current. Selected packages may be replaced; a removal needs --allow-replacement."""
    from apt_ostree.core.live import subset

    details = {"selection": selection.to_json()}
    removal, replacing = options.allow_replacement, replace(options, allow_replacement=True)
    with subset.built(tx, selection, source, allow_removal=removal) as commit:
        if commit == tx.live.base:
            return Result(changed=False, live=False, details=details | {"commit": commit})
        result = _apply(tx, commit, replacing, dry_run=dry_run)
        return replace(result, details={**details, **result.details})


def _target_commit(tx: Transaction, target: str | None) -> str:
    """Return the commit that `target` names, else that of the pending deployment."""
    if target:
        commit = tx.sysroot.repo.resolve(target)
        _require_signed(tx, target, commit)
        return commit
    pending = tx.deployments.pending
    if pending is None:
        raise Refused(
            "there is no pending deployment to apply",
            hint="make one with 'apt-ostree install' or 'apt-ostree upgrade', or name a commit with --target",
        )
    return pending.checksum


def _require_signed(tx: Transaction, target: str, commit: str) -> None:
    """Raise Refused for a commit that is neither deployed nor was live, and is not signed as it has to be."""
    used = {deployment.checksum for deployment in tx.deployments.all}
    used |= {generation.base for generation in tx.live.generations}
    if commit not in used:
        from apt_ostree.core import trust
        from apt_ostree.model.refspec import Refspec

        named = Refspec.parse(target)
        is_branch = named and (named.remote or tx.sysroot.repo.local_ref(target) == commit)
        branch = named if is_branch else Refspec.parse(tx.merge_deployment.origin.refspec)
        trust.require_signed(tx, branch, tx.sysroot.repo.base_of(commit))


def _source_of_generation(tx: Transaction, number: int) -> Source:
    """Return the commit that a generation showed, as a source of packages."""
    from apt_ostree.core.live.subset import Source

    target = rollback.target_of(tx, number)
    shown = {generation.id: generation.base for generation in tx.live.generations}
    name = f"generation {target}" if target else "the booted tree"
    return Source(shown.get(target, tx.live.booted.checksum), name)
