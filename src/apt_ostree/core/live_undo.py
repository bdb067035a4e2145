"""Steps back: undoes a generation, resets to the booted tree, recovers what was interrupted.

Every step may be repeated, so an undo that is itself interrupted is simply run again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apt_ostree.core import etc_restore, host
from apt_ostree.core.inventory import packages_of
from apt_ostree.core.live_plan import ETC, Situation, look, plan_units
from apt_ostree.errors import ExternalFailure, Incomplete, Refused
from apt_ostree.model import layout
from apt_ostree.model.accounts import described_names
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.events import Message, PlanShown, Report, task
from apt_ostree.model.filestate import FileState
from apt_ostree.model.generation import Generation, Phase
from apt_ostree.model.package import diff_packages
from apt_ostree.model.plan import LivePlan, UnitAction, count_files
from apt_ostree.model.treediff import flatten
from apt_ostree.system import buildroot, files, statedb, systemd, usrview
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import diff, layers
from apt_ostree.system.ostree.sysroot import Sysroot, is_booted_on_ostree
from apt_ostree.system.statedb import StateDb, boot_id

#: What systemd-sysusers(8) writes in /etc: the account files, with their backups.
ACCOUNT_FILES = tuple(f"{name}{end}" for name in etc_restore.ACCOUNTS for end in ("", "-"))
_REFS = "apt-ostree/live"
_SHUTDOWN_UNITS = ("apt-ostree-live.service", "apt-ostree-finalized.service")


def reset(report: Report, sysroot: Sysroot, db: StateDb, *, dry_run: bool = False) -> Mapping[str, Any]:
    """Go back to the booted tree; no mount, ref or record stays behind."""
    situation = look(sysroot, db)
    if not situation.generations:
        report(Message("The running system shows the booted commit already."))
        return {"changed": False, "live": False, "commit": situation.booted.checksum}
    usrview.refuse_foreign_mount()
    _refuse_lost_edits(sysroot, situation)
    plan = _plan_reset(sysroot, db, situation)
    report(PlanShown("live", plan.to_json()))
    if not dry_run:
        finish_undo(report, sysroot, db, situation.generations)
        report(Message("The running system shows the booted commit again."))
    return {"changed": True, "live": False, "commit": situation.booted.checksum, "plan": plan.to_json()}


def undo(report: Report, sysroot: Sysroot, db: StateDb, generations: Sequence[Generation]) -> None:
    """Undo generations, the newest ones: units, then the view, then /etc, then what had been stopped."""
    for generation in generations:
        db.set_phase(generation.id, Phase.UNDOING)
    failpoint("undo.marked")
    started, stopped = _unit_changes(sysroot, db, generations)
    stopping = sorted(systemd.active(started))
    if stopping:
        _try(report, f"Stopping {', '.join(stopping)}", lambda: systemd.stop(stopping))
    failpoint("undo.stopped")
    with task(report, "Switching /usr back"):
        _show_before(sysroot, db, generations)
    failpoint("undo.switched")
    for generation in reversed(generations):
        expected = _described_accounts(sysroot, generation)
        etc_restore.restore(report, db.etc_records(generation.id), expected=expected)
    failpoint("undo.etc")
    systemd.daemon_reload()
    starting = sorted(stopped)
    if starting:
        _try(report, f"Starting {', '.join(starting)}", lambda: systemd.start(starting))
    failpoint("undo.restarted")
    for generation in reversed(generations):
        forget(sysroot, db, generation.id)


def recover_interrupted(report: Report, sysroot: Sysroot, db: StateDb, *, dry_run: bool = False) -> bool:
    """Undo what an earlier call of this boot left unfinished; tell whether there was anything."""
    found = [g for g in db.generations() if g.boot_id == boot_id() and g.phase is not Phase.LIVE]
    if found and dry_run:
        raise Refused("an earlier live change was interrupted", hint="run 'apt-ostree recover' first")
    if found:
        report(Message(f"Undoing {len(found)} live changes that were interrupted."))
        finish_undo(report, sysroot, db, found)
    return bool(found)


def finish_undo(report: Report, sysroot: Sysroot, db: StateDb, generations: Sequence[Generation]) -> None:
    """Undo generations, and try again when that fails: half a step back is nobody's wish."""
    try:
        undo(report, sysroot, db, generations)
    except Refused:
        raise
    except Exception as failure:
        report(Message(f"Going on after: {failure}", "warning"))
        try:
            undo(report, sysroot, db, generations)
        except Exception as trouble:
            raise Incomplete(
                f"the live changes could not be undone completely: {trouble}",
                hint="run 'apt-ostree recover', or reboot: the booted deployment was not changed",
            ) from failure


def _try(report: Report, title: str, action: Callable[[], None]) -> None:
    """Do what must not hold up an undo."""
    with task(report, title):
        try:
            action()
        except ExternalFailure as error:
            report(Message(error.message, "warning"))


def _unit_changes(
    sysroot: Sysroot, db: StateDb, generations: Sequence[Generation]
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the units to stop and those to start to get back to how it was before `generations`."""
    first: dict[str, str] = {}
    for generation in generations:
        for record in db.unit_records(generation.id):
            first.setdefault(record.unit, record.action)
    started = {unit for unit, action in first.items() if action == UnitAction.START}
    stopped = {unit for unit, action in first.items() if action == UnitAction.STOP}
    try:
        changes = tuple(
            flatten(diff.diff_commits(sysroot.repo, generations[-1].target, generations[0].source))
        )
    except ExternalFailure:  # the commit is gone, so it was not shown yet when the change was interrupted
        changes = ()
    going = {step.unit for step in plan_units(changes, ()) if step.action is UnitAction.STOP}
    return frozenset(started | going), frozenset(stopped)


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
        changed = False
        if not (shutdown or finalized):  # services can no longer be started then, and need not be stopped
            changed = recover_interrupted(report, sysroot, db)
        if shutdown:
            _end_of_boot(report, sysroot, db)
        if finalized:
            _carry_removals(sysroot, db)
        if boot:
            _clear_earlier_boots(report, sysroot, db)
    return {"changed": changed or boot or shutdown or finalized}


def _plan_reset(sysroot: Sysroot, db: StateDb, situation: Situation) -> LivePlan:
    repo, booted = sysroot.repo, situation.booted.checksum
    changes = tuple(flatten(diff.diff_commits(repo, situation.commit, booted)))
    return LivePlan(
        source=situation.commit,
        target=booted,
        packages=diff_packages(packages_of(repo, situation.commit), packages_of(repo, booted)),
        files=count_files(changes),
        etc=etc_restore.plan_restore([r for g in situation.generations for r in db.etc_records(g.id)]),
        units=plan_units(changes, ()),
    )


def _show_before(sysroot: Sysroot, db: StateDb, generations: Sequence[Generation]) -> None:
    """Make /usr show what it showed before the first of `generations`."""
    gone = {g.id for g in generations}
    if gone.isdisjoint(usrview.stacked()):
        return
    usrview.refuse_foreign_mount()
    if usrview.generation() not in gone:  # killed with the new view beneath the old one: bring it up
        usrview.finish_switch()
    earlier = [
        g for g in db.generations() if g.boot_id == boot_id() and g.id not in gone and g.phase is Phase.LIVE
    ]
    if earlier and earlier[-1].id not in usrview.stacked():
        previous = earlier[-1]
        booted = look(sysroot, db).booted
        with scratch(sysroot) as directory:
            usrview.show(previous.id, lowers(sysroot, booted, previous), scratch=directory)
        return
    usrview.withdraw(earlier[-1].id if earlier else None)


def _refuse_lost_edits(sysroot: Sysroot, situation: Situation) -> None:
    """Refuse a reset that would drop what was edited in an unlocked /usr while it showed the change."""
    edited = [
        str(path)
        for generation in situation.generations
        for path in _edits(sysroot, lowers(sysroot, situation.booted, generation))
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


def lowers(sysroot: Sysroot, booted: Deployment, generation: Generation) -> tuple[Path, ...]:
    """Return the directories that a generation's view is made of, the topmost first."""
    checked_out = (layers.check_out(sysroot.repo, name, layers_dir(sysroot)) for name in generation.layers)
    return (*checked_out, *map(Path, generation.uppers), sysroot.directory(booted) / "usr")


def _described_accounts(sysroot: Sysroot, generation: Generation) -> frozenset[str]:
    """Return the names of accounts that a generation's tree describes, as far as it is still here."""
    try:
        checksum = diff.file_of(sysroot.repo, generation.target, layout.SYSUSERS)
    except ExternalFailure:
        return frozenset()
    return described_names(sysroot.repo.file_state(checksum).content.decode()) if checksum else frozenset()


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


def _end_of_boot(report: Report, sysroot: Sysroot, db: StateDb) -> None:
    """Give /etc back before ostree merges it, and remember what the administrator removed from it."""
    removed: dict[str, FileState] = {}
    for generation in reversed([g for g in db.generations() if g.boot_id == boot_id()]):
        records = db.etc_records(generation.id)
        for record in records:
            shipped = record.after is not None and record.after.type != "absent"
            if record.after and shipped and files.read_state(ETC / record.path).type == "absent":
                removed.setdefault(record.path, record.after)
        db.remember_removals(removed)
        failpoint("shutdown.remembered")
        left = [record for record in records if record.path not in removed]
        etc_restore.restore(report, left, expected=_described_accounts(sysroot, generation))
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
    # After a power cut, another deployment than the one that was changed may have been booted.
    places = {d.id: ETC if d.booted else sysroot.directory(d) / "etc" for d in sysroot.deployments().all}
    for generation in reversed([g for g in db.generations() if g.boot_id != boot_id()]):
        if generation.deployment in places:
            etc = places[generation.deployment]
            expected = _described_accounts(sysroot, generation)
            etc_restore.restore(report, db.etc_records(generation.id), etc=etc, expected=expected)
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
