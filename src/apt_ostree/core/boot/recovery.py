"""Finishes what was interrupted, and ends a boot's live state at shutdown and at the next boot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from apt_ostree.core.boot import overlays_at_boot
from apt_ostree.core.live import confirmation, etc_restore, undo
from apt_ostree.core.live.etc_planning import ETC
from apt_ostree.core.state import generations, overlay_store
from apt_ostree.core.state.generations import Ending
from apt_ostree.core.transaction import Transaction
from apt_ostree.model.filestate import FileState
from apt_ostree.model.generation import Generation, Phase
from apt_ostree.model.history import Outcome
from apt_ostree.model.requests import Moment, Recover
from apt_ostree.model.result import Result
from apt_ostree.system import files, statedb
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree.sysroot import is_booted_on_ostree
from apt_ostree.system.statedb import StateDb, boot_id

#: A note of the boot that has given /etc back when it ended.
_GIVEN_BACK = "etc-given-back"


def recover(tx: Transaction, request: Recover) -> Result:
    """Finish what was interrupted; at certain moments, do what has to be done then."""
    if not is_booted_on_ostree() or not statedb.MARKER.exists():
        tx.message("Nothing to recover.")
        return Result(changed=False)
    with tx.changing("recover"):
        return Result(changed=_MOMENTS[request.at](tx))


def _at_boot(tx: Transaction) -> bool:
    """End what earlier boots left, and show the overlays that persist, before services start."""
    # Before the refs of generations go, which may be the only ones yet.
    overlay_store.sync_refs(tx.sysroot, tx.records)
    _end_before_soft_reboot(tx)
    _clear_earlier_boots(tx)
    overlays_at_boot.show_overlays(tx)
    generations.remove_layers_but(tx.sysroot, tx.records.generations())
    if not tx.records.generations() and not tx.records.overlays():
        statedb.MARKER.unlink(missing_ok=True)
    return True


def _at_shutdown(tx: Transaction) -> bool:
    """Give /etc back, so that ostree merges the administrator's changes alone into the next deployment."""
    _give_etc_back(tx)
    tx.records.set_note(_GIVEN_BACK, boot_id())
    return True


def _when_finalized(tx: Transaction) -> bool:
    """Do what had to wait until ostree had merged /etc."""
    _carry_removals(tx)
    return True


def _at_deadline(tx: Transaction) -> bool:
    """Undo changes that nobody confirmed in time."""
    expired = confirmation.expire(tx)
    return undo.recover_interrupted(tx) or expired


def _when_booted(tx: Transaction) -> bool:
    """Note that the system came up well with its overlays."""
    overlays_at_boot.note_success(tx.records)
    return False


#: At shutdown, services can no longer be started, and need not be stopped: nothing interrupted is finished.
_MOMENTS: Mapping[Moment, Callable[[Transaction], bool]] = {
    Moment.CALL: undo.recover_interrupted,
    Moment.BOOT: _at_boot,
    Moment.BOOTED: _when_booted,
    Moment.DEADLINE: _at_deadline,
    Moment.SHUTDOWN: _at_shutdown,
    Moment.FINALIZED: _when_finalized,
}


def _end_before_soft_reboot(tx: Transaction) -> None:
    """End live state from before a soft reboot, which keeps the kernel, the mounts and the boot's id.

    The shutdown has given /etc back; /usr follows, so that the new start has both from the booted tree.
    """
    left = tx.live.generations
    if left:
        tx.message("The system was restarted without its kernel: its live changes end.")
        tx.records.settle_overlays([g.id for g in left if g.phase is Phase.LIVE])
        undo.finish_undo(tx, left, Ending(Outcome.ENDED, "with a soft reboot", with_units=False))


def _give_etc_back(tx: Transaction) -> None:
    """Give /etc back before ostree merges it, and remember what the administrator removed from it."""
    live = tx.live.generations
    newest = {record.path: record for g in live for record in tx.records.etc_records(g.id)}
    removed = {
        path: record.after
        for path, record in newest.items()
        if record.after and record.after.type != "absent" and files.read_state(ETC / path).type == "absent"
    }
    tx.records.remember_removals(removed)
    failpoint("shutdown.remembered")
    etc_restore.leave_edited(tx, live)
    for generation in reversed(live):
        left = [record for record in tx.records.etc_records(generation.id) if record.path not in removed]
        etc_restore.restore(tx, left, expected=generations.described_accounts(tx.sysroot, generation))
        failpoint("shutdown.etc")


def _carry_removals(tx: Transaction) -> None:
    """Remove from the next deployment's /etc what the administrator removed while it was live."""
    pending = tx.deployments.pending
    if pending and (tx.sysroot.directory(pending) / "etc").is_dir():
        _remove_again(tx.sysroot.directory(pending), tx.records)


def _remove_again(root: Path, records: StateDb) -> None:
    """Remove files that the administrator had removed and a merge brought back as they are shipped."""
    removals = [
        (root / "etc" / path, FileState("absent"))
        for path, shipped in records.removals().items()
        if files.read_state(root / "etc" / path) == shipped == files.read_state(root / "usr/etc" / path)
    ]
    files.write_states(sorted(removals, key=lambda row: row[0], reverse=True))
    records.forget_removals()


def _clear_earlier_boots(tx: Transaction) -> None:
    """Remove every trace of live state that earlier boots left, on disk as well."""
    earlier = [generation for generation in tx.records.generations() if generation.boot_id != boot_id()]
    _give_back_lost_etc(tx, earlier)
    for generation in reversed(earlier):
        done = generation.phase is Phase.LIVE
        outcome = Outcome.ENDED if done else Outcome.INTERRUPTED
        tx.records.settle_overlays([generation.id] if done else [])
        generations.forget(tx.sysroot, tx.records, generation.id, Ending(outcome, ""))
    tx.records.end_others(Outcome.INTERRUPTED, "the boot ended before it did")
    _remove_again(Path("/"), tx.records)
    failpoint("boot.cleared")
    if not tx.live.generations:
        generations.remove_uppers_but(tx.sysroot, ())
        generations.discard_scratch(tx.sysroot)


def _give_back_lost_etc(tx: Transaction, earlier: list[Generation]) -> None:
    """Give /etc back where no shutdown did: after a power cut.

    Another deployment than the one that was changed may have been booted since.
    """
    given_back = tx.records.note(_GIVEN_BACK)
    lost = [generation for generation in earlier if generation.boot_id != given_back]
    places = {d.id: ETC if d.booted else tx.sysroot.directory(d) / "etc" for d in tx.deployments.all}
    for name, etc in places.items():
        mine = [generation for generation in lost if generation.deployment == name]
        etc_restore.leave_edited(tx, mine, etc=etc)
        for generation in reversed(mine):
            expected = generations.described_accounts(tx.sysroot, generation)
            records = tx.records.etc_records(generation.id)
            etc_restore.restore(tx, records, etc=etc, expected=expected)
