"""Goes back on the running system: to the booted tree, or to what an earlier generation showed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from apt_ostree.core.live import etc_restore, triggers, undo
from apt_ostree.core.live.planning import plan_units_back
from apt_ostree.core.state import generations, reserve
from apt_ostree.core.state.generations import Ending
from apt_ostree.core.state.inventory import packages_of
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import AptOstreeError, Refused
from apt_ostree.model.events import PlanShown
from apt_ostree.model.generation import Generation, UnitRecord, target_generation
from apt_ostree.model.history import Intent, Outcome
from apt_ostree.model.package import diff_packages
from apt_ostree.model.plan import LivePlan, RestartPolicy, count_files
from apt_ostree.model.result import Result
from apt_ostree.model.unitundo import steps_back
from apt_ostree.system import usrview
from apt_ostree.system.ostree.sysroot import Sysroot


def step_back_to_booted(tx: Transaction, policy: RestartPolicy, *, dry_run: bool) -> Result:
    """Go back to the booted tree; no mount and no ref is left.

    Returns `commit` and `plan`. Raises Refused if edits would be lost, and Incomplete if it fails.
    """
    if not tx.live.generations:
        tx.message("The running system shows the booted commit already.")
        return Result(changed=False, live=False, details={"commit": tx.live.booted.checksum})
    # The changes of overlays are kept: no overlay is enabled.
    return _step_back(tx, None, tx.title, policy, dry_run=dry_run, keep_overlays=True)


def step_back(tx: Transaction, number: int | None, policy: RestartPolicy, *, dry_run: bool) -> Result:
    """Go back to what a live generation showed; without a number, to the previous one.

    Returns `generation`, `commit` and, after a change, `plan`. Raises UsageError for a generation that is not
    live, Refused if edits would be lost, and Incomplete if it fails.
    """
    live, target = tx.live, target_of(tx, number)
    if target == (live.current.id if live.current else 0):
        tx.message(f"The running system shows generation {target} already.")
        details = {"generation": target, "commit": live.commit}
        return Result(changed=False, live=bool(target), details=details)
    return _step_back(tx, target or None, f"{tx.title} {target}", policy, dry_run=dry_run)


def target_of(tx: Transaction, number: int | None) -> int:
    """Return the generation that a step back leads to, see `target_generation`."""
    return target_generation(tx.live.first, tx.live.numbers, number, forgotten=tx.records.forgotten())


def _step_back(
    tx: Transaction,
    target: int | None,
    title: str,
    policy: RestartPolicy,
    *,
    dry_run: bool,
    keep_overlays: bool = False,
) -> Result:
    """Show the plan of undoing the generations after `target` (None: all), undo them and record it."""
    undone = [g for g in tx.live.generations if target is None or g.id > target]
    usrview.refuse_foreign_mount()
    _refuse_lost_edits(tx, undone)
    plan = _plan_back(tx, undone, policy)
    tx.report(PlanShown("live", plan.to_json()))
    details: dict[str, Any] = {"commit": plan.target, "plan": plan.to_json()}
    if target is not None:
        details["generation"] = target
    if not dry_run:
        _carry_out(tx, undone, plan, title, keep_overlays=keep_overlays)
        shown = "the booted commit" if target is None else f"generation {target}"
        tx.message(f"The running system shows {shown} again.")
    return Result(changed=True, live=target is not None, details=details)


def _carry_out(
    tx: Transaction, undone: Sequence[Generation], plan: LivePlan, title: str, *, keep_overlays: bool
) -> None:
    """Undo generations as planned, and record that as an operation."""
    intent = Intent(title, tx.caller.user, plan.source, plan.target, plan.to_json())
    reserve.release(tx.sysroot)
    number = tx.records.log(intent)
    # The undo reads its units from the records, also if it is continued after a crash.
    recorded = undo.unit_work(tx, undone).all
    further = [step for step in plan.units if step.acts and step.unit not in recorded]
    tx.records.add_units(undone[-1].id, [UnitRecord(s.unit, s.action, begun=True) for s in further])
    tx.records.settle_overlays([g.id for g in undone] if keep_overlays else [])
    try:
        undo.finish_undo(tx, undone, Ending(Outcome.ROLLED_BACK, f"by operation {number}"))
    except AptOstreeError as error:
        tx.records.end(number, Outcome.FAILED, error.message)
        raise
    tx.records.end(number, Outcome.DONE)


def _plan_back(tx: Transaction, undone: Sequence[Generation], policy: RestartPolicy) -> LivePlan:
    """Plan to undo generations: units that were acted on are acted on again, others are listed."""
    repo, source, target = tx.sysroot.repo, tx.live.commit, undone[0].source
    changes, units = plan_units_back(tx, target, policy)
    etc = [record for g in undone for record in tx.records.etc_records(g.id)]
    return LivePlan(
        source=source,
        target=target,
        packages=diff_packages(packages_of(repo, source), packages_of(repo, target)),
        files=count_files(changes),
        etc=etc_restore.plan_restore(etc),
        units=steps_back(undo.unit_work(tx, undone), units),
        restart_services=policy,
        triggers=triggers.plan_back(tx, changes, undone, etc),
    )


def _refuse_lost_edits(tx: Transaction, undone: Sequence[Generation]) -> None:
    """Refuse to undo generations if that would lose edits that were made in the unlocked /usr since then."""
    # Earlier edits were saved or discarded when /usr was locked.
    since = itertools.takewhile(lambda generation: generation.uppers, reversed(undone))
    views = (generations.lowers(tx.sysroot, tx.live.booted, generation) for generation in since)
    edited = [str(path) for view in views for path in _edits(tx.sysroot, view)]
    if edited:
        raise Refused(
            f"{len(edited)} paths were edited in the unlocked /usr since the live change and would be lost",
            details=edited[:20],
            hint="copy them elsewhere and undo the edits, or reboot",
        )


def _edits(sysroot: Sysroot, directories: Sequence[Path]) -> Iterator[Path]:
    """Yield the paths that were written to a generation's own upper directory, without Python's caches."""
    for index, upper in enumerate(directories):
        if not upper.is_relative_to(generations.uppers_dir(sysroot)):
            continue
        for path in upper.rglob("*"):
            name = path.relative_to(upper)
            is_dir = path.is_dir() and not path.is_symlink()
            copied_up = is_dir and any((below / name).is_dir() for below in directories[index + 1 :])
            if "__pycache__" not in name.parts and not copied_up:
                yield path
        return
