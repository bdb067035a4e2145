"""What runs at boot, at shutdown and when a deadline passes.

Interrupted changes are undone, the live state ends, and the booted deployment gets its state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from apt_ostree.core.boot import overlays_at_boot, verdict
from apt_ostree.core.build import deferred
from apt_ostree.core.live import confirmation, etc_restore, undo
from apt_ostree.core.live.etc_planning import ETC
from apt_ostree.core.state import (
    account_files,
    etc_deltas,
    etc_trees,
    generations,
    overlay_store,
    reserve,
    seeds,
)
from apt_ostree.core.state.generations import Ending
from apt_ostree.core.transaction import Transaction
from apt_ostree.model.audit import Kind
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.filestate import FileState
from apt_ostree.model.generation import Generation, Phase
from apt_ostree.model.history import Outcome
from apt_ostree.model.notes import Note
from apt_ostree.model.requests.live import Moment, Recover
from apt_ostree.model.result import Result
from apt_ostree.system import files, statedb, systemd
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree.sysroot import is_booted_on_ostree
from apt_ostree.system.running import boot_id
from apt_ostree.system.statedb import StateDb


def recover(tx: Transaction, request: Recover) -> Result:
    """Undo interrupted changes, or do what is due at the moment that the request names.

    Returns whether anything was changed, and whether the caller is to reboot. Raises Incomplete if a change
    cannot be undone completely.
    """
    if not (is_booted_on_ostree() and _is_due(request.at)):
        tx.message("Nothing to recover.")
        return Result(changed=False)
    with tx.changing("recover"):
        if request.at in _JUDGING:
            return verdict.judge_boot(tx, request.at)
        return Result(changed=_MOMENTS[request.at](tx))


def _is_due(at: Moment) -> bool:
    if at in _JUDGING:
        return verdict.is_due()
    return at in (Moment.STATE, Moment.CONFIGURE) or statedb.MARKER.exists() or bool(etc_deltas.due())


def _at_boot(tx: Transaction) -> bool:
    """Remove the live state of earlier boots, and show the enabled overlays, before services start."""
    reserve.release(tx.sysroot)
    # Before the refs of generations are removed, which may be the only refs of a commit.
    overlay_store.sync_refs(tx.sysroot, tx.records)
    last_shown = overlays_at_boot.last_shown(tx)
    _end_before_soft_reboot(tx)
    _remove_earlier_boots(tx)
    overlays_at_boot.show_overlays(tx, last_shown)
    generations.reclaim(tx.sysroot, tx.records)
    if not tx.records.generations() and not tx.records.overlays():
        statedb.MARKER.unlink(missing_ok=True)
    return True


def _give_state(tx: Transaction) -> bool:
    """Give the machine the state that the tree's packages start from, before services start."""
    played = _complete_merge(tx, tx.deployments.rollback, tx.live.booted, ETC)  # after a power cut
    if played:
        _have_units_read_again()
    etc_deltas.drop_others(tx.deployments)
    given, agreed = seeds.give(tx.report), account_files.agree()
    return given or agreed or played


def _configure_packages(tx: Transaction) -> bool:
    """Configure the packages that the tree leaves to the machine, before services start."""
    configured = deferred.configure(tx, tx.live.booted.checksum)
    if configured:  # a generator may have units for what is there now
        _have_units_read_again()
    return configured


def _have_units_read_again() -> None:
    systemd.daemon_reload()
    systemd.start(("default.target",), block=False)


def _complete_merge(tx: Transaction, old: Deployment | None, new: Deployment, etc: Path) -> bool:
    """Complete ostree's merge of a deployment's /etc, if that is due; it is done once.

    ostree forgets modes and owners of directories, and does not know what scripts did.

    old: the deployment that `new` was staged on.
    etc: the /etc of `new`.
    """
    if new.checksum not in etc_deltas.due():
        return False
    if old:
        etc_trees.keep_directories(tx.sysroot.directory(old), tx.sysroot.directory(new) / "usr/etc", etc)
    _play_delta(tx, new.checksum, etc)
    etc_deltas.set_due()
    return True


def _play_delta(tx: Transaction, commit: str, etc: Path) -> None:
    """Play on an /etc what scripts did for a commit's deployment."""
    removed = {
        path for path, state in tx.records.removals().items() if files.read_state(etc / path).type == "absent"
    }
    for path in etc_deltas.play(commit, etc, removed):
        tx.warning(f"/etc/{path} has what the packages' scripts made of a file that was edited")


def _at_shutdown(tx: Transaction) -> bool:
    """Restore /etc, so that ostree merges only the administrator's changes into the next deployment."""
    reserve.release(tx.sysroot)
    _restore_etc(tx)
    tx.records.set_note(Note.ETC_RESTORED, boot_id())
    overlays_at_boot.prepare(tx)
    return True


def _when_finalized(tx: Transaction) -> bool:
    """Work on the next deployment's /etc after ostree has merged it."""
    pending = tx.deployments.pending
    root = tx.sysroot.directory(pending) if pending else None
    if pending and root and (root / "etc").is_dir():
        _complete_merge(tx, tx.live.booted, pending, root / "etc")
        _remove_again(root, tx.records)
    return True


def _at_deadline(tx: Transaction) -> bool:
    """Undo changes that were not confirmed in time."""
    expired = confirmation.expire(tx)
    return undo.recover_interrupted(tx) or expired


def _when_booted(tx: Transaction) -> bool:
    """Record that the boot has succeeded with its overlays."""
    overlays_at_boot.note_success(tx.records)
    return False


#: When a boot is judged.
_JUDGING = (Moment.VERDICT, Moment.TIMEOUT)
#: At shutdown, services can no longer be started and need not be stopped, so no interrupted change is undone.
_MOMENTS: Mapping[Moment, Callable[[Transaction], bool]] = {
    Moment.CALL: undo.recover_interrupted,
    Moment.BOOT: _at_boot,
    Moment.STATE: _give_state,
    Moment.CONFIGURE: _configure_packages,
    Moment.BOOTED: _when_booted,
    Moment.DEADLINE: _at_deadline,
    Moment.SHUTDOWN: _at_shutdown,
    Moment.FINALIZED: _when_finalized,
}


def _end_before_soft_reboot(tx: Transaction) -> None:
    """End live changes after a soft reboot, which keeps the kernel, the mounts and the boot's id.

    The shutdown has restored /etc. Now /usr is restored, so that both are those of the booted tree.
    """
    earlier = tx.live.generations
    if earlier:
        tx.message("The system was soft-rebooted: its live changes end.")
        tx.records.settle_overlays([g.id for g in earlier if g.phase is Phase.LIVE])
        undo.finish_undo(tx, earlier, Ending(Outcome.ENDED, "with a soft reboot", with_units=False))


def _restore_etc(tx: Transaction) -> None:
    """Restore /etc before ostree merges it, and record which files the administrator removed from it."""
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
        records = [record for record in tx.records.etc_records(generation.id) if record.path not in removed]
        etc_restore.restore(tx, records, expected=generations.described_accounts(tx.sysroot, generation))
        failpoint("shutdown.etc")


def _remove_again(root: Path, records: StateDb) -> None:
    """Remove files that the administrator had removed and that a merge restored unchanged."""
    removals = [
        (root / "etc" / path, FileState("absent"))
        for path, shipped in records.removals().items()
        if files.read_state(root / "etc" / path) == shipped == files.read_state(root / "usr/etc" / path)
    ]
    files.write_states(sorted(removals, key=lambda row: row[0], reverse=True))
    records.forget_removals()


def _remove_earlier_boots(tx: Transaction) -> None:
    """Remove the live state of earlier boots: records, refs and files."""
    earlier = [generation for generation in tx.records.generations() if generation.boot_id != boot_id()]
    _restore_etc_after_crash(tx, earlier)
    for generation in reversed(earlier):
        is_live = generation.phase is Phase.LIVE
        outcome = Outcome.ENDED if is_live else Outcome.INTERRUPTED
        tx.records.settle_overlays([generation.id] if is_live else [])
        generations.remove_generation(tx.sysroot, tx.records, generation.id, Ending(outcome, ""))
        if not is_live:
            text = f"generation {generation.id} was undone: the boot ended before it was complete"
            tx.record(Kind.UNDONE, text, undone=str(generation.id))
    tx.records.end_others(Outcome.INTERRUPTED, "the boot ended before it did")
    _remove_again(Path("/"), tx.records)
    failpoint("boot.cleared")
    if not tx.live.generations:
        generations.remove_uppers_but(tx.sysroot, ())
        generations.discard_scratch(tx.sysroot)


def _restore_etc_after_crash(tx: Transaction, earlier: list[Generation]) -> None:
    """Restore /etc after a boot without a shutdown, such as a power failure.

    The booted deployment may be another one than the one that was changed.
    """
    restored_boot = tx.records.note(Note.ETC_RESTORED)
    unrestored = [generation for generation in earlier if generation.boot_id != restored_boot]
    etc_directories = {d.id: ETC if d.booted else tx.sysroot.directory(d) / "etc" for d in tx.deployments.all}
    for name, etc in etc_directories.items():
        of_deployment = [generation for generation in unrestored if generation.deployment == name]
        etc_restore.leave_edited(tx, of_deployment, etc=etc)
        for generation in reversed(of_deployment):
            expected = generations.described_accounts(tx.sysroot, generation)
            records = tx.records.etc_records(generation.id)
            etc_restore.restore(tx, records, etc=etc, expected=expected)
