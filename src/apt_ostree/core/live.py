"""apply-live: makes another commit current on the running system, and steps back.

The way is the same for every change: plan, prepare beside the system, write the journal, act, and either
keep the new generation or undo everything in reverse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apt_ostree.core import host, live_undo, subset
from apt_ostree.core.live_plan import ETC, Change, Situation, look, plan_change
from apt_ostree.errors import AptOstreeError, ExternalFailure, Incomplete, Refused, UsageError
from apt_ostree.model import plan as rules
from apt_ostree.model.events import Message, PlanShown, Report, task
from apt_ostree.model.generation import EtcRecord, Phase, UnitRecord
from apt_ostree.model.plan import EtcAction, UnitAction
from apt_ostree.model.selection import Selection
from apt_ostree.model.treediff import Kind
from apt_ostree.system import files, statedb, systemd, usrview
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import layers
from apt_ostree.system.ostree.sysroot import Sysroot
from apt_ostree.system.statedb import StateDb

_LIBRARY_CACHE = "ld.so.cache"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A view that is ready to be shown: lower directories, the topmost first, and an upper if unlocked."""

    layers: tuple[str, ...]
    uppers: tuple[str, ...]
    lowers: tuple[Path, ...]
    writable: Path | None


def apply_live(
    report: Report,
    *,
    target: str | None = None,
    reset: bool = False,
    packages: Sequence[str] = (),
    excluded: Sequence[str] = (),
    security: bool = False,
    allow_replacement: bool = False,
    dry_run: bool = False,
    confirm: bool = False,
) -> Mapping[str, Any]:
    """Make the pending deployment, a part of it, or `target` current; or go back to the booted commit."""
    selection = Selection(tuple(packages), tuple(excluded), security)
    if bool(reset) + bool(target) + bool(selection) > 1:
        raise UsageError("--reset, --target, and a selection of packages exclude each other")
    with host.changing("change the running system") as sysroot, statedb.opened() as db:
        live_undo.recover_interrupted(report, sysroot, db, dry_run=dry_run)
        if reset:
            return live_undo.reset(report, sysroot, db, dry_run=dry_run)
        if selection:
            limits = {"allow_removal": allow_replacement, "dry_run": dry_run, "confirm": confirm}
            return _apply_selection(report, sysroot, db, selection, **limits)
        commit = _choose_target(sysroot, target)
        change = plan(report, sysroot, db, commit, allow_replacement=allow_replacement, confirm=confirm)
        return carry_out(report, sysroot, db, change, dry_run=dry_run)


def _apply_selection(
    report: Report,
    sysroot: Sysroot,
    db: StateDb,
    selection: Selection,
    *,
    allow_removal: bool,
    dry_run: bool,
    confirm: bool,
) -> Mapping[str, Any]:
    """Make some packages current. Asking for them is asking for their replacement, but not for a removal."""
    shown = look(sysroot, db)
    keep, chosen = not dry_run, {"selection": selection.to_json()}
    with subset.built(report, sysroot, shown, selection, allow_removal=allow_removal, keep=keep) as commit:
        if commit == shown.commit:
            return chosen | {"changed": False, "live": False, "commit": commit}
        change = plan(report, sysroot, db, commit, allow_replacement=True, confirm=confirm)
        return chosen | carry_out(report, sysroot, db, change, dry_run=dry_run)


def plan(
    report: Report,
    sysroot: Sysroot,
    db: StateDb,
    commit: str,
    *,
    allow_replacement: bool,
    confirm: bool = False,
) -> Change:
    """Plan, show the plan, and refuse what must not be done; nothing is touched."""
    with task(report, "Comparing the trees"):
        situation = look(sysroot, db)
        change = plan_change(sysroot, situation, commit, allow_replacement=allow_replacement)
    refused = bool(change.plan.refusals)
    report(PlanShown("live", change.plan.to_json(), confirm=confirm and not refused))
    if refused:
        raise Refused(
            "the change cannot be applied live",
            details=change.plan.refusals,
            hint="add --allow-replacement to replace running packages, or reboot into the deployment",
        )
    return change


def carry_out(
    report: Report, sysroot: Sysroot, db: StateDb, change: Change, *, dry_run: bool = False
) -> dict[str, Any]:
    """Prepare and act on a plan; on any failure everything is undone and the failure raised."""
    outcome: dict[str, Any] = {"plan": change.plan.to_json(), "commit": change.plan.target}
    if change.plan.source == change.plan.target:
        report(Message("The running system shows this commit already."))
        return outcome | {"changed": False, "live": False}
    if dry_run:
        return outcome | {"changed": True, "live": False}
    situation = look(sysroot, db)
    statedb.mark()  # what is prepared in vain goes at the next boot
    with task(report, "Preparing the layer"):
        prepared = _prepare(sysroot, situation, change)
    with _undone_on_failure(report, sysroot, db):
        generation = _begin(sysroot, db, situation, change, prepared)
        _act(report, sysroot, db, change=change, prepared=prepared, generation=generation)
    report(Message(f"The running system shows commit {change.plan.target[:12]} (generation {generation})."))
    return outcome | {"changed": True, "live": True, "generation": generation}


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
            subject=f"live: {situation.booted.checksum} to {change.plan.target}",
        )
        names = (layer,)
    directories = [layers.check_out(sysroot.repo, name, live_undo.layers_dir(sysroot)) for name in names]
    uppers = _frozen_uppers(situation)
    writable = live_undo.new_upper(sysroot, booted_usr) if uppers else None
    lowers = (*directories, *(Path(upper) for upper in uppers), booted_usr)
    return Prepared(names, uppers, lowers, writable)


def _frozen_uppers(situation: Situation) -> tuple[str, ...]:
    """Return the writable layers of an unlocked system, which become read-only under the new view."""
    if situation.current:
        return situation.current.uppers
    upper = usrview.unlocked_upper()
    return (upper,) if upper else ()


def _begin(sysroot: Sysroot, db: StateDb, situation: Situation, change: Change, prepared: Prepared) -> int:
    """Write the journal: the intent and every pre-image, durable before the first change."""
    steps = [step.path for step in change.plan.etc if step.action is not EtcAction.KEEP]
    etc = [EtcRecord(path, files.read_state(ETC / path), change.etc_states[path]) for path in steps]
    edited = [record.path for record in etc if record.before != change.etc_seen[record.path]]
    if edited:
        raise Refused(
            "files in /etc were edited while the change was being prepared",
            details=edited,
            hint="run the command again",
        )
    etc += [EtcRecord(name, files.read_state(ETC / name), None) for name in _outside(change)]
    units = [UnitRecord(s.unit, s.action) for s in change.plan.units if s.action is not UnitAction.LIST]
    own = (str(prepared.writable / "upper"),) if prepared.writable else ()
    failpoint("journal.before")
    generation = db.begin(
        deployment=situation.booted.id,
        source=change.plan.source,
        target=change.plan.target,
        layers=prepared.layers,
        uppers=(*own, *prepared.uppers),
        etc=etc,
        units=units,
    )
    failpoint("journal.after")
    live_undo.pin(sysroot, generation, change.plan.target, prepared.layers)
    return generation


def _act(
    report: Report, sysroot: Sysroot, db: StateDb, *, change: Change, prepared: Prepared, generation: int
) -> None:
    """Stop, switch, make current, start: the only part that the running system notices."""
    plan, touched = change.plan, change.changes
    live_undo.hold_until_shutdown()
    stopping = [step.unit for step in plan.units if step.action is UnitAction.STOP]
    if stopping:
        with task(report, f"Stopping {', '.join(stopping)}"):
            systemd.stop(stopping)
            failpoint("act.stopped")
    _write_etc(report, change)
    with task(report, "Switching /usr"), live_undo.scratch(sysroot) as scratch:
        upper = (prepared.writable / "upper", prepared.writable / "work") if prepared.writable else None
        usrview.show(
            generation,
            prepared.lowers,
            scratch=scratch,
            upper=upper,
            read_only=upper is None or look(sysroot, db).booted.unlocked == "transient",
        )
    failpoint("act.switched")
    _make_current(db, change, generation)
    if rules.touches(touched, "lib/systemd/", "etc/systemd/"):
        with task(report, "Reloading systemd"):
            systemd.daemon_reload()
            failpoint("act.reloaded")
    _start_units(report, change)
    failpoint("act.before-end")
    db.set_phase(generation, Phase.LIVE)


def _write_etc(report: Report, change: Change) -> None:
    steps = [step for step in change.plan.etc if step.action is not EtcAction.KEEP]
    if not steps:
        return
    with task(report, f"Updating {len(steps)} paths in /etc"):
        states = [(ETC / step.path, change.etc_states[step.path]) for step in steps]
        seen = {ETC / step.path: change.etc_seen[step.path] for step in steps}
        edited = files.write_states(states, seen=seen)
    if edited:
        raise ExternalFailure(
            "files in /etc were edited during the change",
            details=[str(path) for path in edited],
            hint="run the command again; the edits were kept",
        )


def _make_current(db: StateDb, change: Change, generation: int) -> None:
    """Do on the running system what boot, or a package's scripts, would have done."""
    touched = change.changes
    users = _configs(change, "lib/sysusers.d/")
    if users:
        systemd.create_users(users)
        failpoint("act.users")
        _record_outcome(db, generation, live_undo.ACCOUNT_FILES)
    directories = _configs(change, "lib/tmpfiles.d/")
    if directories:
        systemd.create_files(directories)
        failpoint("act.tmpfiles")
    if _LIBRARY_CACHE in _outside(change):
        systemd.update_library_cache()
        _record_outcome(db, generation, (_LIBRARY_CACHE,))
    if rules.touches(touched, "lib/udev/rules.d/", "lib/udev/hwdb", "etc/udev/"):
        systemd.reload_udev()
    if rules.touches(touched, "share/dbus-1/", "etc/dbus-1/"):
        systemd.reload_bus()


def _outside(change: Change) -> tuple[str, ...]:
    """Return the paths of /etc that programs change which we call."""
    accounts = live_undo.ACCOUNT_FILES if _configs(change, "lib/sysusers.d/") else ()
    cached = _LIBRARY_CACHE not in change.etc_states and _libraries_changed(change)
    return (*accounts, *((_LIBRARY_CACHE,) if cached else ()))


def _record_outcome(db: StateDb, generation: int, names: Sequence[str]) -> None:
    db.set_after(generation, {name: files.read_state(ETC / name) for name in names})


def _libraries_changed(change: Change) -> bool:
    return any(
        ".so" in c.path and c.path.startswith(("lib/", "lib64/", "local/lib/")) for c in change.changes
    )


def _configs(change: Change, directory: str) -> list[str]:
    """Return the names of new and changed files of a configuration directory of /usr."""
    found = (c for c in change.changes if c.path.startswith(directory) and c.kind is not Kind.REMOVED)
    return sorted({Path(c.path).name for c in found if not c.is_dir})


def _start_units(report: Report, change: Change) -> None:
    starting = [step.unit for step in change.plan.units if step.action is UnitAction.START]
    if not starting:
        return
    with task(report, f"Starting {', '.join(starting)}"):
        try:
            systemd.start(starting)
        except ExternalFailure as error:
            # dpkg goes on when a new service does not start, because many need configuration first.
            report(Message(f"not all new units could be started: {error.message}", "warning"))
        failpoint("act.started")


@contextmanager
def _undone_on_failure(report: Report, sysroot: Sysroot, db: StateDb) -> Iterator[None]:
    known = {generation.id for generation in db.generations()}
    try:
        yield
    except BaseException as failure:
        try:
            begun = [generation for generation in db.generations() if generation.id not in known]
            if begun:
                report(Message("The change failed and is being undone.", "warning"))
                live_undo.finish_undo(report, sysroot, db, begun)
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
