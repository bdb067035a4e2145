"""Steps back: undoes a generation, resets to the booted tree, recovers what was interrupted.

Every step may be repeated, so an undo that is itself interrupted is simply run again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apt_ostree.core import host
from apt_ostree.core.inventory import packages_of
from apt_ostree.core.live_plan import ETC, Situation, look, plan_units
from apt_ostree.errors import Refused
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.events import Message, PlanShown, Report, task
from apt_ostree.model.filestate import FileState
from apt_ostree.model.generation import EtcRecord, Generation, Phase
from apt_ostree.model.package import diff_packages
from apt_ostree.model.plan import EtcAction, EtcStep, LivePlan, UnitAction, count_files
from apt_ostree.model.treediff import flatten
from apt_ostree.system import buildroot, files, statedb, systemd, usrview
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import diff, layers
from apt_ostree.system.ostree.sysroot import Sysroot, is_booted_on_ostree
from apt_ostree.system.statedb import StateDb, boot_id

_REFS = "apt-ostree/live"
_SHUTDOWN_UNITS = ("apt-ostree-live.service", "apt-ostree-finalized.service")


def reset(report: Report, sysroot: Sysroot, db: StateDb, *, dry_run: bool = False) -> Mapping[str, Any]:
    """Go back to the booted tree; no mount, ref or record stays behind."""
    situation = look(sysroot, db)
    if not situation.generations:
        report(Message("The running system shows the booted commit already."))
        return {"changed": False, "live": False, "commit": situation.booted.checksum}
    usrview.refuse_foreign_mount()
    _refuse_lost_edits(sysroot, situation.generations)
    plan = _plan_reset(sysroot, db, situation)
    report(PlanShown("live", plan.to_json()))
    if not dry_run:
        for generation in situation.generations:
            db.set_phase(generation.id, Phase.UNDOING)
        failpoint("reset.marked")
        _step_back(report, sysroot, db, situation.generations, plan)
        report(Message("The running system shows the booted commit again."))
    return {"changed": True, "live": False, "commit": situation.booted.checksum, "plan": plan.to_json()}


def undo(report: Report, sysroot: Sysroot, db: StateDb, number: int) -> None:
    """Undo one generation that failed or was interrupted: the newest one."""
    generation = next(g for g in db.generations() if g.id == number)
    db.set_phase(number, Phase.UNDOING)
    failpoint("undo.marked")
    _step_back(report, sysroot, db, (generation,), None)


def recover_interrupted(report: Report, sysroot: Sysroot, db: StateDb) -> bool:
    """Undo what an earlier call of this boot left unfinished; tell whether there was anything."""
    found = [g for g in db.generations() if g.boot_id == boot_id() and g.phase is not Phase.LIVE]
    for generation in reversed(found):
        report(Message(f"Undoing generation {generation.id}, which was interrupted."))
        undo(report, sysroot, db, generation.id)
    return bool(found)


def recover(
    report: Report, *, boot: bool = False, shutdown: bool = False, finalized: bool = False
) -> Mapping[str, Any]:
    """Finish what was interrupted; at boot and shutdown, also end the boot's live state.

    boot: clears up after earlier boots. shutdown: gives /etc back, so that ostree merges the
    administrator's changes alone into the next deployment. finalized: ostree has merged.
    """
    if not is_booted_on_ostree() or not statedb.MARKER.exists():
        report(Message("Nothing to recover."))
        return {"changed": False}
    with host.changing("recover") as sysroot, statedb.opened() as db:
        changed = recover_interrupted(report, sysroot, db)
        if shutdown:
            _end_of_boot(report, db)
        if finalized:
            _carry_removals(sysroot, db)
        if boot:
            _clear_earlier_boots(report, sysroot, db)
    return {"changed": changed or boot or shutdown or finalized}


def _plan_reset(sysroot: Sysroot, db: StateDb, situation: Situation) -> LivePlan:
    repo, booted = sysroot.repo, situation.booted.checksum
    changes = tuple(flatten(diff.diff_commits(repo, situation.commit, booted)))
    etc = tuple(
        step
        for g in reversed(situation.generations)
        for record in db.etc_records(g.id)[::-1]
        if (step := _undo_step(record))
    )
    return LivePlan(
        source=situation.commit,
        target=booted,
        packages=diff_packages(packages_of(repo, situation.commit), packages_of(repo, booted)),
        files=count_files(changes),
        etc=etc,
        units=plan_units(changes, ()),
    )


def _undo_step(record: EtcRecord) -> EtcStep | None:
    if record.after is None or record.before == record.after:
        return None
    current = files.read_state(ETC / record.path)
    if current == record.before:
        return None
    if current != record.after:
        return EtcStep(record.path, EtcAction.KEEP, "the administrator changed it since")
    action = EtcAction.REMOVE if record.before.type == "absent" else EtcAction.WRITE
    return EtcStep(record.path, action, "as it was before")


def _step_back(
    report: Report, sysroot: Sysroot, db: StateDb, generations: Sequence[Generation], plan: LivePlan | None
) -> None:
    """Undo generations, the newest first: units, then the view, then /etc, then what had been stopped."""
    units = [record for g in generations for record in db.unit_records(g.id)]
    started = {record.unit for record in units if record.action == UnitAction.START}
    going = {step.unit for step in plan.units if step.action is UnitAction.STOP} if plan else set()
    stopping = systemd.active(started | going)
    if stopping:
        with task(report, f"Stopping {', '.join(sorted(stopping))}"):
            systemd.stop(sorted(stopping))
    failpoint("undo.stopped")
    with task(report, "Switching /usr back"):
        _show_before(sysroot, db, generations)
    failpoint("undo.switched")
    for generation in reversed(generations):
        _restore(report, db.etc_records(generation.id))
    failpoint("undo.etc")
    systemd.daemon_reload()
    stopped = [record.unit for record in units if record.action == UnitAction.STOP]
    if stopped:
        systemd.start(sorted(set(stopped)))
    failpoint("undo.restarted")
    for generation in reversed(generations):
        forget(sysroot, db, generation.id)


def _show_before(sysroot: Sysroot, db: StateDb, generations: Sequence[Generation]) -> None:
    """Make /usr show what it showed before the first of `generations`."""
    gone = {g.id for g in generations}
    earlier = [
        g for g in db.generations() if g.boot_id == boot_id() and g.id not in gone and g.phase is Phase.LIVE
    ]
    if earlier and usrview.generation() in gone and earlier[-1].id not in usrview.stacked():
        previous = earlier[-1]
        booted = look(sysroot, db).booted
        with scratch(sysroot) as directory:
            usrview.show(previous.id, lowers(sysroot, booted, previous), scratch=directory)
        return
    usrview.withdraw(earlier[-1].id if earlier else None)


def _refuse_lost_edits(sysroot: Sysroot, generations: Sequence[Generation]) -> None:
    """Refuse a reset that would drop what was edited in an unlocked /usr while it showed the change."""
    edited = [
        str(path)
        for generation in generations
        for upper in map(Path, generation.uppers)
        if upper.is_relative_to(sysroot.state_dir)
        for path in upper.rglob("*")
    ]
    if edited:
        raise Refused(
            f"{len(edited)} paths were edited in the unlocked /usr since the live change and would be lost",
            details=edited[:20],
            hint="copy them elsewhere and undo the edits, or reboot",
        )


def lowers(sysroot: Sysroot, booted: Deployment, generation: Generation) -> tuple[Path, ...]:
    """Return the directories that a generation's view is made of, the topmost first."""
    checked_out = (layers.check_out(sysroot.repo, name, layers_dir(sysroot)) for name in generation.layers)
    return (*checked_out, *map(Path, generation.uppers), sysroot.directory(booted) / "usr")


def _restore(report: Report, records: Sequence[EtcRecord]) -> None:
    """Give paths of /etc their states from before, but keep what the administrator changed since."""
    wanted = []
    for record in reversed(records):
        current = files.read_state(ETC / record.path)
        if current == record.before:
            continue
        if record.after is not None and current != record.after:
            report(Message(f"kept /etc/{record.path}: it was changed after the update", "warning"))
            continue
        wanted.append((ETC / record.path, record.before))
    files.write_states(wanted)


def forget(sysroot: Sysroot, db: StateDb, number: int) -> None:
    """Remove a generation's refs and its record."""
    sysroot.repo.sync_refs(f"{_REFS}/{number}", {})
    failpoint("undo.unpinned")
    db.remove(number)


def pin(sysroot: Sysroot, number: int, target: str, names: Sequence[str]) -> None:
    """Keep a generation's commits from being pruned."""
    prefix = f"{_REFS}/{number}"
    wanted = {f"{prefix}/target": target} | {f"{prefix}/layer{i}": name for i, name in enumerate(names)}
    sysroot.repo.sync_refs(prefix, wanted)


def unpin_all_but(sysroot: Sysroot, numbers: frozenset[int]) -> None:
    """Remove the refs of generations of which neither a record nor a mount is left."""
    for ref in sysroot.repo.refs(_REFS):
        number = ref.removeprefix(f"{_REFS}/").partition("/")[0]
        if not (number.isdecimal() and int(number) in numbers):
            sysroot.repo.set_ref(ref, None)


def _end_of_boot(report: Report, db: StateDb) -> None:
    """Give /etc back before ostree merges it, and remember what the administrator removed from it."""
    removed: dict[str, FileState] = {}
    for generation in reversed([g for g in db.generations() if g.boot_id == boot_id()]):
        records = db.etc_records(generation.id)
        for record in records:
            shipped = record.after is not None and record.after.type != "absent"
            if record.after and shipped and files.read_state(ETC / record.path).type == "absent":
                removed[record.path] = record.after
        db.remember_removals(removed)
        failpoint("shutdown.remembered")
        _restore(report, [record for record in records if record.path not in removed])
        failpoint("shutdown.etc")


def _carry_removals(sysroot: Sysroot, db: StateDb) -> None:
    """Remove from the next deployment's /etc what the administrator removed while it was live."""
    pending = sysroot.deployments().pending
    if pending and (sysroot.directory(pending) / "etc").is_dir():
        _remove_again(sysroot.directory(pending), db)


def _remove_again(root: Path, db: StateDb) -> None:
    """Remove files that the administrator had removed and a merge brought back as they are shipped."""
    wanted = [
        (root / "etc" / path, FileState("absent"))
        for path, shipped in db.removals().items()
        if files.read_state(root / "etc" / path) == shipped == files.read_state(root / "usr/etc" / path)
    ]
    files.write_states(sorted(wanted, key=lambda row: row[0], reverse=True))
    db.forget_removals()


def _clear_earlier_boots(report: Report, sysroot: Sysroot, db: StateDb) -> None:
    """Remove every trace of live state that earlier boots left, on disk as well."""
    booted = look(sysroot, db).booted
    for generation in reversed([g for g in db.generations() if g.boot_id != boot_id()]):
        if generation.deployment == booted.id:
            _restore(report, db.etc_records(generation.id))
        forget(sysroot, db, generation.id)
    _remove_again(Path("/"), db)
    failpoint("boot.cleared")
    if not any(g.boot_id == boot_id() for g in db.generations()):
        shutil.rmtree(layers_dir(sysroot), ignore_errors=True)
        shutil.rmtree(sysroot.state_dir / "uppers", ignore_errors=True)
        statedb.MARKER.unlink(missing_ok=True)


def hold_until_shutdown() -> None:
    """Have systemd call us at shutdown, before ostree merges /etc into the next deployment."""
    systemd.start(_SHUTDOWN_UNITS, block=False)


def layers_dir(sysroot: Sysroot) -> Path:
    """Return where layers are checked out."""
    return sysroot.state_dir / "layers"


def new_upper(sysroot: Sysroot, like: Path) -> Path:
    """Make a directory with an upper and a work directory for an unlocked system's view."""
    parent = sysroot.state_dir / "uppers"
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="upper-", dir=parent))
    for name in ("upper", "work"):
        (directory / name).mkdir()
    buildroot.copy_directory_metadata(like, directory / "upper")
    return directory


@contextmanager
def scratch(sysroot: Sysroot) -> Iterator[Path]:
    """Give an empty directory to assemble a view on."""
    sysroot.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="view-", dir=sysroot.state_dir))
    try:
        yield directory
    finally:
        directory.rmdir()
