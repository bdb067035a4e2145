"""Steps back on the running system: to the booted tree, or to what an earlier generation showed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from apt_ostree.core import host
from apt_ostree.core.live import etc_restore, undo
from apt_ostree.core.live.planning import Situation, look, plan_units_back
from apt_ostree.core.state.inventory import packages_of
from apt_ostree.errors import AptOstreeError, Refused
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.events import Message, PlanShown, Report
from apt_ostree.model.generation import Generation, UnitRecord, target_generation
from apt_ostree.model.history import Intent, Outcome
from apt_ostree.model.package import diff_packages
from apt_ostree.model.plan import LivePlan, RestartPolicy, count_files
from apt_ostree.model.unitundo import steps_back
from apt_ostree.system import usrview
from apt_ostree.system.ostree.sysroot import Sysroot
from apt_ostree.system.statedb import StateDb


def reset(
    report: Report, sysroot: Sysroot, db: StateDb, *, policy: RestartPolicy, dry_run: bool = False
) -> Mapping[str, Any]:
    """Go back to the booted tree; no mount or ref stays behind."""
    situation = look(sysroot, db)
    if not situation.generations:
        report(Message("The running system shows the booted commit already."))
        return {"changed": False, "live": False, "commit": situation.booted.checksum}
    verb = "apply-live --reset"
    return _go_back(
        report, sysroot, db, situation, verb=verb, policy=policy, dry_run=dry_run, keep_overlays=True
    )


def rollback(
    report: Report,
    sysroot: Sysroot,
    db: StateDb,
    situation: Situation,
    *,
    generation: int | None,
    policy: RestartPolicy,
    dry_run: bool,
) -> Mapping[str, Any]:
    """Go back to what a live generation showed; without a number, to the one before the present."""
    goal = target_generation(situation.first, situation.numbers, generation)
    shown = situation.current.id if situation.current else 0
    if goal == shown:
        report(Message(f"The running system shows generation {goal} already."))
        return {"changed": False, "live": bool(goal), "generation": goal, "commit": situation.commit}
    verb = f"rollback --live {goal}"
    return _go_back(report, sysroot, db, situation, goal or None, verb=verb, policy=policy, dry_run=dry_run)


def _go_back(
    report: Report,
    sysroot: Sysroot,
    db: StateDb,
    situation: Situation,
    goal: int | None = None,
    *,
    verb: str,
    policy: RestartPolicy,
    dry_run: bool,
    keep_overlays: bool = False,
) -> Mapping[str, Any]:
    """Undo the generations after `goal` (None: all), with a plan before and a record after.

    keep_overlays: they stay what they are by now, since none of them shows anything.
    """
    going = [g for g in situation.generations if goal is None or g.id > goal]
    usrview.refuse_foreign_mount()
    _refuse_lost_edits(sysroot, situation.booted, going)
    plan = _plan_back(sysroot, db, situation, going, policy=policy)
    report(PlanShown("live", plan.to_json()))
    answer: dict[str, Any] = {"live": goal is not None, "commit": plan.target, "plan": plan.to_json()}
    if goal is not None:
        answer["generation"] = goal
    if not dry_run:
        number = db.log(Intent(verb, host.caller(), plan.source, plan.target, plan.to_json()))
        # The undo acts on what the records say, also after a crash in the middle of it.
        known = undo.unit_work(sysroot, db, going).all
        further = [s for s in plan.units if s.acts and s.unit not in known]
        db.add_units(going[-1].id, [UnitRecord(s.unit, s.action, begun=True) for s in further])
        ending = undo.Ending(Outcome.ROLLED_BACK, f"by operation {number}")
        db.settle_overlays([g.id for g in going] if keep_overlays else [])
        try:
            undo.finish_undo(report, sysroot, db, going, ending)
        except AptOstreeError as error:
            db.end(number, Outcome.FAILED, error.message)
            raise
        db.end(number, Outcome.DONE)
        shown = "the booted commit" if goal is None else f"generation {goal}"
        report(Message(f"The running system shows {shown} again."))
    return answer | {"changed": True}


def _plan_back(
    sysroot: Sysroot,
    db: StateDb,
    situation: Situation,
    going: Sequence[Generation],
    *,
    policy: RestartPolicy,
) -> LivePlan:
    """Plan to undo generations: what was acted on is acted on again, the rest that is affected is named."""
    repo, target = sysroot.repo, going[0].source
    changes, units = plan_units_back(sysroot, situation, target, policy)
    return LivePlan(
        source=situation.commit,
        target=target,
        packages=diff_packages(packages_of(repo, situation.commit), packages_of(repo, target)),
        files=count_files(changes),
        etc=etc_restore.plan_restore([r for g in going for r in db.etc_records(g.id)]),
        units=steps_back(undo.unit_work(sysroot, db, going), units),
        restart_services=policy,
    )


def _refuse_lost_edits(sysroot: Sysroot, booted: Deployment, going: Sequence[Generation]) -> None:
    """Refuse a step back that would drop what was edited in an unlocked /usr while it showed the change."""
    # What was there when /usr was locked again has been saved or thrown away already.
    since = itertools.takewhile(lambda generation: generation.uppers, reversed(going))
    edited = [
        str(path)
        for generation in since
        for path in _edits(sysroot, undo.lowers(sysroot, booted, generation))
    ]
    if edited:
        raise Refused(
            f"{len(edited)} paths were edited in the unlocked /usr since the live change and would be lost",
            details=edited[:20],
            hint="copy them elsewhere and undo the edits, or reboot",
        )


def _edits(sysroot: Sysroot, directories: Sequence[Path]) -> Iterator[Path]:
    """Yield what was written into a generation's own upper directory; Python's caches are nobody's edits."""
    for index, upper in enumerate(directories):
        if not upper.is_relative_to(sysroot.state_dir / "uppers"):
            continue
        for path in upper.rglob("*"):
            name = path.relative_to(upper)
            is_dir = path.is_dir() and not path.is_symlink()
            copied_up = is_dir and any((below / name).is_dir() for below in directories[index + 1 :])
            if "__pycache__" not in name.parts and not copied_up:
                yield path
        return
