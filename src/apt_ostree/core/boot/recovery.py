"""Finishes what was interrupted, and ends a boot's live state at shutdown and at the next boot."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from apt_ostree.core import host
from apt_ostree.core.boot import overlays_at_boot
from apt_ostree.core.live import confirmation, etc_restore, undo
from apt_ostree.core.live.etc_planning import ETC
from apt_ostree.core.state import overlay_store
from apt_ostree.model.events import Message, Report
from apt_ostree.model.filestate import FileState
from apt_ostree.model.generation import Phase
from apt_ostree.model.history import Outcome
from apt_ostree.system import files, statedb
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import layers
from apt_ostree.system.ostree.sysroot import Sysroot, is_booted_on_ostree
from apt_ostree.system.statedb import StateDb, boot_id

#: A note of the boot that has given /etc back when it ended.
_GIVEN_BACK = "etc-given-back"


def recover(report: Report, *, at: str = "call") -> Mapping[str, Any]:
    """Finish what was interrupted; at certain moments, do what has to be done then.

    at: "call", or one of the moments of a boot at which systemd calls us; see `_MOMENTS`.
    """
    if not is_booted_on_ostree() or not statedb.MARKER.exists():
        report(Message("Nothing to recover."))
        return {"changed": False}
    with host.changing("recover", report) as sysroot, statedb.opened() as db:
        return {"changed": _MOMENTS[at](report, sysroot, db)}


def _at_boot(report: Report, sysroot: Sysroot, db: StateDb) -> bool:
    """End what earlier boots left, and show the overlays that persist, before services start."""
    overlay_store.sync_refs(sysroot, db)  # before the refs of generations go, which may be the only ones yet
    _end_before_soft_reboot(report, sysroot, db)
    _clear_earlier_boots(report, sysroot, db)
    overlays_at_boot.show_overlays(report, sysroot, db)
    shown = frozenset(name for generation in db.generations() for name in generation.layers)
    layers.remove_checkouts(undo.layers_dir(sysroot), shown)
    if not db.generations() and not db.overlays():
        statedb.MARKER.unlink(missing_ok=True)
    return True


def _at_shutdown(report: Report, sysroot: Sysroot, db: StateDb) -> bool:
    """Give /etc back, so that ostree merges the administrator's changes alone into the next deployment."""
    _end_of_boot(report, sysroot, db)
    db.set_note(_GIVEN_BACK, boot_id())
    return True


def _when_finalized(_report: Report, sysroot: Sysroot, db: StateDb) -> bool:
    """Do what had to wait until ostree had merged /etc."""
    _carry_removals(sysroot, db)
    return True


def _at_deadline(report: Report, sysroot: Sysroot, db: StateDb) -> bool:
    """Undo changes that nobody confirmed in time."""
    expired = confirmation.expire(report, sysroot, db)
    return undo.recover_interrupted(report, sysroot, db) or expired


def _when_booted(_report: Report, _sysroot: Sysroot, db: StateDb) -> bool:
    """Note that the system came up well with its overlays."""
    overlays_at_boot.note_success(db)
    return False


#: At shutdown, services can no longer be started, and need not be stopped: nothing interrupted is finished.
_MOMENTS: Mapping[str, Callable[[Report, Sysroot, StateDb], bool]] = {
    "call": undo.recover_interrupted,
    "boot": _at_boot,
    "booted": _when_booted,
    "deadline": _at_deadline,
    "shutdown": _at_shutdown,
    "finalized": _when_finalized,
}


def _end_before_soft_reboot(report: Report, sysroot: Sysroot, db: StateDb) -> None:
    """End live state from before a soft reboot, which keeps the kernel, the mounts and the boot's id.

    The shutdown has given /etc back; /usr follows, so that the new start has both from the booted tree.
    """
    left = [g for g in db.generations() if g.boot_id == boot_id()]
    if left:
        report(Message("The system was restarted without its kernel: its live changes end."))
        db.settle_overlays([g.id for g in left if g.phase is Phase.LIVE])
        ending = undo.Ending(Outcome.ENDED, "with a soft reboot", with_units=False)
        undo.finish_undo(report, sysroot, db, left, ending)


def _end_of_boot(report: Report, sysroot: Sysroot, db: StateDb) -> None:
    """Give /etc back before ostree merges it, and remember what the administrator removed from it."""
    generations = [g for g in db.generations() if g.boot_id == boot_id()]
    newest = {record.path: record for g in generations for record in db.etc_records(g.id)}
    removed = {
        path: record.after
        for path, record in newest.items()
        if record.after and record.after.type != "absent" and files.read_state(ETC / path).type == "absent"
    }
    db.remember_removals(removed)
    failpoint("shutdown.remembered")
    etc_restore.leave_edited(report, db, generations)
    for generation in reversed(generations):
        left = [record for record in db.etc_records(generation.id) if record.path not in removed]
        etc_restore.restore(report, left, expected=undo.described_accounts(sysroot, generation))
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
    given_back = db.note(_GIVEN_BACK)
    places = {d.id: ETC if d.booted else sysroot.directory(d) / "etc" for d in sysroot.deployments().all}
    earlier = [g for g in db.generations() if g.boot_id != boot_id()]
    for name, etc in places.items():
        live = [g for g in earlier if g.deployment == name and g.boot_id != given_back]
        etc_restore.leave_edited(report, db, live, etc=etc)
    for generation in reversed(earlier):
        if generation.deployment in places and generation.boot_id != given_back:
            etc = places[generation.deployment]
            expected = undo.described_accounts(sysroot, generation)
            etc_restore.restore(report, db.etc_records(generation.id), etc=etc, expected=expected)
        done = generation.phase is Phase.LIVE
        outcome = Outcome.ENDED if done else Outcome.INTERRUPTED
        db.settle_overlays([generation.id] if done else [])
        undo.forget(sysroot, db, generation.id, undo.Ending(outcome, ""))
    db.end_others(Outcome.INTERRUPTED, "the boot ended before it did")
    _remove_again(Path("/"), db)
    failpoint("boot.cleared")
    if not any(g.boot_id == boot_id() for g in db.generations()):
        shutil.rmtree(sysroot.state_dir / "uppers", ignore_errors=True)
        undo.discard_scratch(sysroot)
