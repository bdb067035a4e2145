"""Steps back on the running system: to the booted tree, or to what an earlier generation showed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from apt_ostree.core.live import etc_restore, undo
from apt_ostree.core.live.planning import plan_units_back
from apt_ostree.core.state import generations
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
    """Go back to the booted tree; no mount or ref stays behind."""
    if not tx.live.generations:
        tx.message("The running system shows the booted commit already.")
        return Result(changed=False, live=False, details={"commit": tx.live.booted.checksum})
    # Overlays stay what they are by now, since none of them shows anything.
    return _step_back(tx, None, tx.title, policy, dry_run=dry_run, keep_overlays=True)


def step_back(tx: Transaction, number: int | None, policy: RestartPolicy, *, dry_run: bool) -> Result:
    """Go back to what a live generation showed; without a number, to the one before the present."""
    live = tx.live
    target = target_generation(live.first, live.numbers, number)
    if target == (live.current.id if live.current else 0):
        tx.message(f"The running system shows generation {target} already.")
        details = {"generation": target, "commit": live.commit}
        return Result(changed=False, live=bool(target), details=details)
    return _step_back(tx, target or None, f"{tx.title} {target}", policy, dry_run=dry_run)


def _step_back(
    tx: Transaction,
    target: int | None,
    title: str,
    policy: RestartPolicy,
    *,
    dry_run: bool,
    keep_overlays: bool = False,
) -> Result:
    """Undo the generations after `target` (None: all), with a plan before and a record after."""
    going = [g for g in tx.live.generations if target is None or g.id > target]
    usrview.refuse_foreign_mount()
    _refuse_lost_edits(tx, going)
    plan = _plan_back(tx, going, policy)
    tx.report(PlanShown("live", plan.to_json()))
    details: dict[str, Any] = {"commit": plan.target, "plan": plan.to_json()}
    if target is not None:
        details["generation"] = target
    if not dry_run:
        _carry_out(tx, going, plan, title, keep_overlays=keep_overlays)
        shown = "the booted commit" if target is None else f"generation {target}"
        tx.message(f"The running system shows {shown} again.")
    return Result(changed=True, live=target is not None, details=details)


def _carry_out(
    tx: Transaction, going: Sequence[Generation], plan: LivePlan, title: str, *, keep_overlays: bool
) -> None:
    """Undo generations as planned, and record that as an operation."""
    intent = Intent(title, tx.caller.user, plan.source, plan.target, plan.to_json())
    number = tx.records.log(intent)
    # The undo acts on what the records say, also after a crash in the middle of it.
    recorded = undo.unit_work(tx, going).all
    further = [step for step in plan.units if step.acts and step.unit not in recorded]
    tx.records.add_units(going[-1].id, [UnitRecord(s.unit, s.action, begun=True) for s in further])
    tx.records.settle_overlays([g.id for g in going] if keep_overlays else [])
    try:
        undo.finish_undo(tx, going, Ending(Outcome.ROLLED_BACK, f"by operation {number}"))
    except AptOstreeError as error:
        tx.records.end(number, Outcome.FAILED, error.message)
        raise
    tx.records.end(number, Outcome.DONE)


def _plan_back(tx: Transaction, going: Sequence[Generation], policy: RestartPolicy) -> LivePlan:
    """Plan to undo generations: what was acted on is acted on again, the rest that is affected is named."""
    repo, source, target = tx.sysroot.repo, tx.live.commit, going[0].source
    changes, units = plan_units_back(tx, target, policy)
    return LivePlan(
        source=source,
        target=target,
        packages=diff_packages(packages_of(repo, source), packages_of(repo, target)),
        files=count_files(changes),
        etc=etc_restore.plan_restore([r for g in going for r in tx.records.etc_records(g.id)]),
        units=steps_back(undo.unit_work(tx, going), units),
        restart_services=policy,
    )


def _refuse_lost_edits(tx: Transaction, going: Sequence[Generation]) -> None:
    """Refuse a step back that would drop what was edited in an unlocked /usr while it showed the change."""
    # What was there when /usr was locked again has been saved or thrown away already.
    since = itertools.takewhile(lambda generation: generation.uppers, reversed(going))
    views = (generations.lowers(tx.sysroot, tx.live.booted, generation) for generation in since)
    edited = [str(path) for view in views for path in _edits(tx.sysroot, view)]
    if edited:
        raise Refused(
            f"{len(edited)} paths were edited in the unlocked /usr since the live change and would be lost",
            details=edited[:20],
            hint="copy them elsewhere and undo the edits, or reboot",
        )


def _edits(sysroot: Sysroot, directories: Sequence[Path]) -> Iterator[Path]:
    """Yield what was written into a generation's own upper directory; Python's caches are nobody's edits."""
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
