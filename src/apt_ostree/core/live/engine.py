"""apply-live: makes another commit current on the running system, and steps back.

The way is the same for every change: plan, prepare beside the system, write the journal, act, and either
keep the new generation or undo everything in reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apt_ostree.core import host
from apt_ostree.core.live import apply, confirmation, undo
from apt_ostree.core.live import rollback as back
from apt_ostree.core.live.apply import Clock
from apt_ostree.core.live.etc_planning import ETC
from apt_ostree.core.live.planning import BOOT_NOTE, Change, Prepared, Situation, look, plan_change
from apt_ostree.core.state import overlay_store
from apt_ostree.errors import AptOstreeError, ExternalFailure, Incomplete, Refused, UsageError
from apt_ostree.model.events import Message, PlanShown, Report, task
from apt_ostree.model.generation import EtcRecord, UnitRecord, ViewRecord, target_generation
from apt_ostree.model.history import Intent, Outcome
from apt_ostree.model.overlay import Goal, Transition
from apt_ostree.model.plan import RestartPolicy, touches
from apt_ostree.model.selection import Selection
from apt_ostree.system import files, process, settings, signals, statedb, systemd, systemd_login, usrview
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import diff, layers
from apt_ostree.system.ostree.sysroot import Sysroot
from apt_ostree.system.statedb import StateDb

if TYPE_CHECKING:
    from apt_ostree.core.live.subset import Source


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a live change is wanted.

    force: refuse only what could not be done or undone; confirm: ask before acting; confirm_within: seconds
    after which it is undone unless confirmed.
    """

    verb: str = "apply-live"
    allow_replacement: bool = False
    force: bool = False
    confirm: bool = False
    restart_services: str = RestartPolicy.NONE
    confirm_within: float | None = None
    clock: Clock = field(default_factory=Clock)


#: The wishes that a package verb passes on.
WISHES = frozenset(one.name for one in fields(Wishes)) - {"confirm", "clock"}


def apply_live(
    report: Report,
    *,
    target: str | None = None,
    reset: bool = False,
    packages: Sequence[str] = (),
    excluded: Sequence[str] = (),
    security: bool = False,
    dry_run: bool = False,
    **options: Any,
) -> Mapping[str, Any]:
    """Make the pending deployment, a part of it, or `target` current; or go back to the booted commit.

    options: fields of `Wishes`.
    """
    selection = Selection(tuple(packages), tuple(excluded), security)
    if bool(reset) + bool(target) + bool(selection) > 1:
        raise UsageError("--reset, --target, and a selection of packages exclude each other")
    wishes = Wishes(**options)
    with host.changing("change the running system", report) as sysroot, statedb.opened() as db:
        undo.recover_interrupted(report, sysroot, db, dry_run=dry_run)
        if reset and not any(state.enabled for state in db.overlays()):
            policy = RestartPolicy(wishes.restart_services)
            return back.reset(report, sysroot, db, policy=policy, dry_run=dry_run)
        if selection:
            return _apply_selection(report, sysroot, db, selection, wishes, dry_run=dry_run)
        # Overlays that are enabled stay, so that going back to the booted tree is a change like others.
        commit = look(sysroot, db).booted.checksum if reset else _choose_target(sysroot, target)
        wishes = replace(wishes, allow_replacement=wishes.allow_replacement or reset)
        change = plan(report, sysroot, db, commit, wishes)
        return carry_out(report, sysroot, db, change, wishes, dry_run=dry_run)


def rollback(
    report: Report,
    *,
    generation: int | None = None,
    packages: Sequence[str] = (),
    dry_run: bool = False,
    **options: Any,
) -> Mapping[str, Any]:
    """Go back to what a live generation of this boot showed, 0 being the booted tree; or some packages only.

    Without a number, everything goes back by one generation, and single packages to the booted tree's.
    """
    wishes = Wishes(verb="rollback --live", **options)
    with host.changing("roll back the running system", report) as sysroot, statedb.opened() as db:
        undo.recover_interrupted(report, sysroot, db, dry_run=dry_run)
        situation = look(sysroot, db)
        if not packages:
            policy = RestartPolicy(wishes.restart_services)
            return back.rollback(
                report, sysroot, db, situation, generation=generation, policy=policy, dry_run=dry_run
            )
        from apt_ostree.core.live import subset

        goal = target_generation(situation.first, situation.numbers, generation or 0)
        source = subset.Source(
            next((g.base for g in situation.generations if g.id == goal), situation.booted.checksum),
            f"generation {goal}" if goal else "the booted tree",
        )
        selection = Selection(tuple(packages))
        return _apply_selection(report, sysroot, db, selection, wishes, source=source, dry_run=dry_run)


def _apply_selection(
    report: Report,
    sysroot: Sysroot,
    db: StateDb,
    selection: Selection,
    wishes: Wishes,
    *,
    source: Source | None = None,
    dry_run: bool,
) -> Mapping[str, Any]:
    """Make some packages current. Asking for them is asking for their replacement, but not for a removal."""
    from apt_ostree.core.live import subset

    shown, removal = look(sysroot, db), wishes.allow_replacement
    keep, chosen = not dry_run, {"selection": selection.to_json()}
    wishes = replace(wishes, allow_replacement=True)
    with subset.built(
        report, sysroot, shown, selection, source=source, allow_removal=removal, keep=keep
    ) as commit:
        if commit == shown.base:
            return chosen | {"changed": False, "live": False, "commit": commit}
        change = plan(report, sysroot, db, commit, wishes)
        return chosen | carry_out(report, sysroot, db, change, wishes, dry_run=dry_run)


def plan(report: Report, sysroot: Sysroot, db: StateDb, wanted: str | Goal, wishes: Wishes) -> Change:
    """Plan, show the plan, and refuse what must not be done; nothing is touched.

    wanted: a commit, on which the overlays that are enabled stay, or all that the system is to show.
    """
    with wishes.clock.step(report, "detection"), task(report, "Comparing the trees"):
        situation = look(sysroot, db)
        goal = wanted if isinstance(wanted, Goal) else _with_overlays(sysroot, db, situation, wanted)
        change = plan_change(
            sysroot,
            db,
            situation,
            goal,
            allow_replacement=wishes.allow_replacement or wishes.force,
            force=wishes.force,
            policy=RestartPolicy(wishes.restart_services),
        )
    refused = bool(change.plan.refusals)
    report(PlanShown("live", change.plan.to_json(), confirm=wishes.confirm and not refused))
    if refused:
        raise Refused(
            "the change cannot be applied live",
            details=change.plan.refusals,
            hint="see above; --allow-replacement lets running packages be replaced, and --force takes every "
            "risk that may be taken; a reboot into the deployment needs neither",
        )
    return change


def _with_overlays(sysroot: Sysroot, db: StateDb, situation: Situation, base: str) -> Goal:
    if diff.directory_of(sysroot.repo, base, "usr") is None:
        raise UsageError(f"commit {base[:12]} is not a system's tree: it has no /usr")
    enabled = [state for state in db.overlays() if state.enabled]
    if not enabled:
        return Goal(base, base)
    from apt_ostree.core.overlays import stack

    known = overlay_store.load(sysroot.repo, db.overlays())
    chosen = [known[state.id] for state in enabled]
    allowed = settings.load().overlay_allow
    return stack.goal(sysroot.repo, base, chosen, known=known, shown_now=situation.goal, allowed=allowed)


def carry_out(
    report: Report,
    sysroot: Sysroot,
    db: StateDb,
    change: Change,
    wishes: Wishes,
    *,
    transitions: Sequence[Transition] = (),
    meanwhile: Callable[[], None] = lambda: None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Prepare and act on a plan; on any failure everything is undone and the failure raised.

    transitions: what becomes of overlays with it; meanwhile: what else belongs to the change and can be
    done while units settle. It is done once, also where the system shows the commit already.
    """
    outcome: dict[str, Any] = {"plan": change.plan.to_json(), "commit": change.goal.base}
    same = change.plan.source == change.plan.target and not change.plan.etc
    if same and not transitions and change.goal.unlock is None:
        report(Message("The running system shows this commit already."))
        if not dry_run:
            meanwhile()
        return outcome | {"changed": False, "live": False}
    if dry_run:
        return outcome | {"changed": True, "live": False}
    _refuse_shutdown()
    situation = look(sysroot, db)
    statedb.mark()  # what is prepared in vain goes at the next boot
    with wishes.clock.step(report, "preparation"), task(report, "Preparing the layer"):
        prepared = _prepare(sysroot, situation, change)
        _scan(situation, change, prepared)
    why = "a change of the running system"
    with systemd_login.inhibited(why), _undone_on_failure(report, sysroot, db, wishes):
        generation = _begin(
            sysroot, db, situation, change, prepared=prepared, wishes=wishes, transitions=transitions
        )
        with wishes.clock.step(report, "application"):
            apply.apply(
                report,
                sysroot,
                db,
                change,
                prepared=prepared,
                generation=generation,
                meanwhile=cache(meanwhile),
            )
        with wishes.clock.step(report, "verification"):
            apply.verify(report, sysroot, change, generation)
        _end(report, db, generation, wishes)
    if transitions:
        overlay_store.sync_refs(sysroot, db)
    report(Message(f"The running system shows {_named(change.goal)} (generation {generation})."))
    return outcome | {"changed": True, "live": True, "generation": generation}


def show_at_boot(report: Report, sysroot: Sysroot, db: StateDb, goal: Goal) -> bool:
    """Show a goal before services start, and act on none; tell whether there are units in what it changes."""
    wishes = Wishes(verb="boot")
    situation = look(sysroot, db)
    change = plan_change(sysroot, db, situation, goal, allow_replacement=True, force=True, with_units=False)
    if change.plan.refusals:
        raise Refused("overlays cannot be shown", details=change.plan.refusals)
    prepared = _prepare(sysroot, situation, change)
    with _undone_on_failure(report, sysroot, db, wishes):
        generation = _begin(sysroot, db, situation, change, prepared=prepared, wishes=wishes, transitions=())
        apply.apply(report, sysroot, db, change, prepared=prepared, generation=generation)
        _end(report, db, generation, wishes)
    db.set_note(BOOT_NOTE, f"{generation} {statedb.boot_id()}")
    report(Message(f"The running system shows {_named(goal)}."))
    return touches(change.changes, "lib/systemd/system/", "etc/systemd/system/")


def _named(goal: Goal) -> str:
    names = ", ".join(applied.id for applied in goal.overlays)
    return f"commit {goal.base[:12]}" + (f" with {names}" if names else "")


def _end(report: Report, db: StateDb, generation: int, wishes: Wishes) -> None:
    """Keep the generation: for good, or until its time is over."""
    if wishes.confirm_within:
        confirmation.arm(db, generation, wishes.confirm_within)
    failpoint("act.before-end")
    signals.ignore()  # too late: it is done
    db.keep(generation)
    db.end(generation, Outcome.LIVE)
    db.set_steps(generation, wishes.clock.seconds)
    if wishes.confirm_within:
        span = _span(wishes.confirm_within)
        report(Message(f"It is undone in {span} unless you run 'apt-ostree confirm'.", "warning"))


def _span(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _refuse_shutdown() -> None:
    if systemd.state() == "stopping":
        raise Refused("the system is shutting down", hint="the deployment takes effect with the next boot")


def _choose_target(sysroot: Sysroot, target: str | None) -> str:
    if target:
        return sysroot.repo.resolve(target)
    pending = sysroot.deployments().pending
    if pending is None:
        raise Refused(
            "there is no pending deployment to apply",
            hint="make one with 'apt-ostree install' or 'apt-ostree upgrade', or name a commit with --target",
        )
    return pending.checksum


def _prepare(sysroot: Sysroot, situation: Situation, change: Change) -> Prepared:
    """Build the layer beside the system and list what the new view is made of."""
    booted_usr = sysroot.directory(situation.booted) / "usr"
    names: tuple[str, ...] = ()
    if change.view_diff is not None:
        failpoint("prepare.before-layer")
        layer = layers.write_layer(
            sysroot.repo,
            change.view_diff,
            subject=f"live: {situation.booted.checksum} to {change.goal.base}",
        )
        names = (layer,)
    names = (*(applied.layer for applied in change.goal.overlays), *names)
    directories = [layers.check_out(sysroot.repo, name, undo.layers_dir(sysroot)) for name in names]
    uppers = () if change.goal.unlock == "none" else frozen_uppers(situation)
    unlocking = uppers or change.goal.unlock not in (None, "none")
    writable = undo.new_upper(sysroot, booted_usr) if unlocking else None
    lowers = (*directories, *(Path(upper) for upper in uppers), booted_usr)
    return Prepared(names, uppers, lowers, writable)


def _scan(situation: Situation, change: Change, prepared: Prepared) -> None:
    """Have the administrator's scanner look at overlays that are not shown yet."""
    scanner, known = change.settings.overlay_scanner, {applied.layer for applied in situation.goal.overlays}
    for applied, directory in zip(change.goal.overlays, prepared.lowers, strict=False):
        if not scanner or applied.layer in known:
            continue
        try:
            process.run(
                [*scanner, directory],
                what=f"run the scanner {scanner[0]}",
                merge_stderr=True,
                timeout=change.settings.scan_timeout,
            )
        except ExternalFailure as error:
            raise Refused(
                f"the scanner {scanner[0]} does not accept overlay {applied.id}",
                details=error.details,
                internals=error.internals,
            ) from error


def frozen_uppers(situation: Situation) -> tuple[str, ...]:
    """Return the writable layers of an unlocked system, which become read-only under the new view."""
    if situation.current:
        return situation.current.uppers
    upper = usrview.unlocked_upper()
    return (upper,) if upper else ()


def _begin(
    sysroot: Sysroot,
    db: StateDb,
    situation: Situation,
    change: Change,
    *,
    prepared: Prepared,
    wishes: Wishes,
    transitions: Sequence[Transition],
) -> int:
    """Write the journal: the intent and every pre-image, durable before the first change."""
    etc = [EtcRecord(p, files.read_state(ETC / p), change.etc.states[p]) for p in change.etc.changed]
    edited = [record.path for record in etc if record.before != change.etc.seen[record.path]]
    if edited:
        raise Refused(
            "files in /etc were edited while the change was being prepared",
            details=edited,
            hint="run the command again",
        )
    etc += [EtcRecord(path, state, state) for path, state in change.etc.held.items()]
    etc += [EtcRecord(name, files.read_state(ETC / name), None) for name in apply.outside_paths(change)]
    units = [UnitRecord(step.unit, step.action) for step in change.plan.units if step.acts]
    own = (str(prepared.writable / "upper"),) if prepared.writable else ()
    failpoint("journal.before")
    generation = db.begin(
        Intent(wishes.verb, host.caller(), change.plan.source, change.plan.target, change.plan.to_json()),
        deployment=situation.booted.id,
        view=ViewRecord(change.goal.base, change.goal.overlays, prepared.layers, (*own, *prepared.uppers)),
        etc=etc,
        units=units,
        transitions=transitions,
    )
    failpoint("journal.after")
    moved = [state.commit for t in transitions for state in (t.before, t.after) if state]
    shown = [change.goal.base, change.plan.target, *(a.commit for a in change.goal.overlays)]
    undo.pin(sysroot, generation, shown, (*prepared.layers, *moved))
    return generation


@contextmanager
def _undone_on_failure(report: Report, sysroot: Sysroot, db: StateDb, wishes: Wishes) -> Iterator[None]:
    known = {generation.id for generation in db.generations()}
    try:
        yield
    except BaseException as failure:
        try:
            begun = [generation for generation in db.generations() if generation.id not in known]
            if begun:
                report(Message("The change failed and is being undone.", "warning"))
                db.set_steps(begun[-1].id, wishes.clock.seconds)
                note = failure.message if isinstance(failure, AptOstreeError) else str(failure)
                undo.finish_undo(report, sysroot, db, begun, undo.Ending(Outcome.FAILED, note))
        except Incomplete as trouble:
            raise Incomplete(
                f"the change failed ({failure}); {trouble.message}",
                details=trouble.details,
                hint=trouble.hint,
                internals=trouble.internals,
            ) from failure
        except Exception as trouble:
            raise Incomplete(
                f"the change failed ({failure}) and could not be undone completely: {trouble}",
                hint="run 'apt-ostree recover', or reboot: the booted deployment was not changed",
            ) from failure
        if isinstance(failure, AptOstreeError):
            raise
        if isinstance(failure, OSError):
            raise ExternalFailure(
                f"the change failed and was undone: {failure.strerror or failure}",
                details=(str(failure),),
            ) from failure
        raise
