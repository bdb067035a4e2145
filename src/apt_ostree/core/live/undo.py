"""Undoes generations: the one way back, whoever asks for it.

Every step may be repeated, so an undo that is itself interrupted is simply run again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from apt_ostree.core.live import etc_restore, unit_files
from apt_ostree.core.live.planning import look
from apt_ostree.core.state import overlay_store
from apt_ostree.errors import ExternalFailure, Incomplete, Refused
from apt_ostree.model import layout, unitundo
from apt_ostree.model.accounts import described_names
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.events import Message, Report, task
from apt_ostree.model.generation import Generation, Phase
from apt_ostree.model.history import Outcome
from apt_ostree.model.treediff import flatten
from apt_ostree.model.unitundo import UnitWork
from apt_ostree.system import buildroot, settings, systemd, systemd_login, usrview
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import diff, layers
from apt_ostree.system.ostree.sysroot import Sysroot
from apt_ostree.system.statedb import StateDb, boot_id

_REFS = "apt-ostree/live"
_SHUTDOWN_UNITS = ("apt-ostree-live.service", "apt-ostree-finalized.service")


@dataclass(frozen=True, slots=True)
class Ending:
    """How generations end that are undone.

    note: for the history; with_units: not while the system starts, when nothing runs yet.
    """

    outcome: Outcome
    note: str
    with_units: bool = True


def undo(
    report: Report, sysroot: Sysroot, db: StateDb, generations: Sequence[Generation], ending: Ending
) -> None:
    """Undo generations, the newest ones: units, then the view, then /etc, then the units of before."""
    if not {generation.id for generation in generations}.isdisjoint(usrview.stacked()):
        usrview.refuse_foreign_mount()
    etc_restore.leave_edited(report, db, generations)
    failpoint("undo.decided")
    for generation in generations:
        db.set_phase(generation.id, Phase.UNDOING)
    failpoint("undo.marked")
    work = unit_work(sysroot, db, generations) if ending.with_units else UnitWork()
    _free_units(report, work)
    failpoint("undo.stopped")
    with task(report, "Switching /usr back"):
        _show_before(sysroot, db, generations)
        settle_unlocked(sysroot)
    failpoint("undo.switched")
    for generation in reversed(generations):
        expected = described_accounts(sysroot, generation)
        etc_restore.restore(report, db.etc_records(generation.id), expected=expected)
    failpoint("undo.etc")
    troubled = _return_units(report, work)
    failpoint("undo.restarted")
    discard_scratch(sysroot)
    for generation in reversed(generations):
        forget(sysroot, db, generation.id, ending)
    if troubled:
        raise Incomplete(
            f"the old versions of {len(troubled)} units do not run: {', '.join(troubled)}",
            details=systemd.log_tail(troubled[0]),
            hint=f"see 'systemctl status {troubled[0]}'; /usr and /etc are as they were before",
        )


def recover_interrupted(report: Report, sysroot: Sysroot, db: StateDb, *, dry_run: bool = False) -> bool:
    """Undo what an earlier call of this boot left unfinished; tell whether there was anything."""
    found = [g for g in db.generations() if g.boot_id == boot_id() and g.phase is not Phase.LIVE]
    if found and dry_run:
        raise Refused("an earlier live change was interrupted", hint="run 'apt-ostree recover' first")
    if found:
        report(Message(f"Undoing {len(found)} live changes that were interrupted."))
        finished = {entry.number for entry in db.history() if entry.outcome is Outcome.LIVE}
        going_back = any(g.id in finished for g in found)
        outcome = Outcome.ROLLED_BACK if going_back else Outcome.INTERRUPTED
        note = "the command did not end; this was undone later"
        finish_undo(report, sysroot, db, found, Ending(outcome, note))
        db.end_others(Outcome.DONE if going_back else Outcome.INTERRUPTED, note)
    return bool(found)


def finish_undo(
    report: Report, sysroot: Sysroot, db: StateDb, generations: Sequence[Generation], ending: Ending
) -> None:
    """Undo generations, and try again when that fails: half a step back is nobody's wish."""
    with systemd_login.inhibited("going back to the system of before"):
        try:
            undo(report, sysroot, db, generations, ending)
        except (Refused, Incomplete):
            raise
        except Exception as failure:
            report(Message(f"Going on after: {failure}", "warning"))
            try:
                undo(report, sysroot, db, generations, ending)
            except Incomplete:
                raise
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


def unit_work(sysroot: Sysroot, db: StateDb, generations: Sequence[Generation]) -> UnitWork:
    """Return what the records of `generations` ask for; the first thing done to a unit says what it was."""
    acted = unitundo.acted_on((g, db.unit_records(g.id)) for g in generations)
    try:
        now, then = generations[-1].target, generations[0].source
        changes = flatten(diff.diff_commits(sysroot.repo, now, then))
        going = unit_files.without_definition(sysroot.repo, changes)
    except ExternalFailure:  # the commit is gone, so it was not shown yet when the change was interrupted
        going = frozenset()
    return unitundo.unit_work(acted, systemd.units(acted.first), going)


def _free_units(report: Report, work: UnitWork) -> None:
    """Stop what the change started, and end what hangs."""
    if work.touched:
        systemd.cancel_jobs(work.touched, patience=settings.load_or_default().unit_timeout)
    if work.stop:
        _try(report, f"Stopping {', '.join(work.stop)}", lambda: systemd.stop(work.stop))


def _return_units(report: Report, work: UnitWork) -> tuple[str, ...]:
    """Have the units of before run their old code again; return those that do not."""
    if any(not name.startswith("user@") for name in work.reexec):
        _try(report, "Executing systemd anew", systemd.daemon_reexec)
    else:
        systemd.daemon_reload()
    # What an overlay had shown since the boot began is not there in the booted tree.
    known = systemd.units(work.start)
    work = replace(work, start=tuple(n for n in work.start if known[n]["LoadState"] != "not-found"))
    for manager in systemd.user_managers() if work.reexec else ():
        systemd.signal_user_manager(manager, reexec=True)
    if not work.touched:
        return ()
    systemd.reset_failed(work.touched)
    if work.restart:
        _try(report, f"Restarting {', '.join(work.restart)}", lambda: systemd.restart(work.restart))
    if work.reload:
        _try(report, f"Reloading {', '.join(work.reload)}", lambda: systemd.reload(work.reload))
    if work.start:
        # One that was stopped before the switch and started after it runs already, but not its old code.
        _try(report, f"Starting {', '.join(work.start)}", lambda: systemd.restart(work.start))
    running = systemd.active(work.touched)
    return tuple(name for name in work.touched if name not in running)


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


def lowers(sysroot: Sysroot, booted: Deployment, generation: Generation) -> tuple[Path, ...]:
    """Return the directories that a generation's view is made of, the topmost first."""
    checked_out = (layers.check_out(sysroot.repo, name, layers_dir(sysroot)) for name in generation.layers)
    return (*checked_out, *map(Path, generation.uppers), sysroot.directory(booted) / "usr")


def described_accounts(sysroot: Sysroot, generation: Generation) -> frozenset[str]:
    """Return the names of accounts that a generation's tree describes, as far as it is still here."""
    try:
        checksum = diff.file_of(sysroot.repo, generation.target, layout.SYSUSERS)
    except ExternalFailure:
        return frozenset()
    return described_names(sysroot.repo.file_state(checksum).content.decode()) if checksum else frozenset()


def forget(sysroot: Sysroot, db: StateDb, number: int, ending: Ending) -> None:
    """Remove a generation's refs and its record; the history keeps how it ended.

    What it made of overlays is undone with it, unless that was settled (StateDb.settle_overlays).
    """
    if db.transitions(number):
        db.revert(number)
        failpoint("undo.overlays")
        overlay_store.sync_refs(sysroot, db)
    sysroot.repo.sync_refs(f"{_REFS}/{number}", {})
    failpoint("undo.unpinned")
    db.end(number, ending.outcome, ending.note)
    db.remove(number)


def pin(sysroot: Sysroot, number: int, shown: Sequence[str], further: Sequence[str]) -> None:
    """Keep a generation's commits from being pruned: what it shows, the base first, and further ones."""
    prefix = f"{_REFS}/{number}"
    wanted = {f"{prefix}/target": shown[0]}
    names = dict.fromkeys((*further, *shown[1:]))
    wanted |= {f"{prefix}/layer{i}": name for i, name in enumerate(names) if name != shown[0]}
    sysroot.repo.sync_refs(prefix, wanted)


def unpin_all_but(sysroot: Sysroot, numbers: frozenset[int]) -> None:
    """Remove the refs of generations of which neither a record nor a mount is left."""
    for ref in sysroot.repo.refs(_REFS):
        number = ref.removeprefix(f"{_REFS}/").partition("/")[0]
        if not (number.isdecimal() and int(number) in numbers):
            sysroot.repo.set_ref(ref, None)


def settle_unlocked(sysroot: Sysroot) -> None:
    """Have ostree tell whether /usr is unlocked as the mount that is shown has it."""
    booted = sysroot.deployments().booted
    if booted and booted.unlocked != "hotfix":
        sysroot.mark_unlocked(booted, usrview.unlocked())


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


def discard_scratch(sysroot: Sysroot) -> None:
    """Remove what `scratch` made and a killed process left behind. The caller holds the system's lock."""
    for directory in sysroot.state_dir.glob("view-*"):
        directory.rmdir()
