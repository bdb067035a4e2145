"""Undoes generations, for all verbs and for recovery.

Every step can be repeated, so an interrupted undo is run again from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from apt_ostree.core.live import etc_restore, triggers, unit_files
from apt_ostree.core.state import reserve
from apt_ostree.core.state.generations import (
    Ending,
    described_accounts,
    discard_scratch,
    lowers,
    mark_unlocked,
    remove_generation,
    scratch,
)
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, Incomplete, Refused
from apt_ostree.model import unitundo
from apt_ostree.model.audit import Kind
from apt_ostree.model.generation import Generation, Phase
from apt_ostree.model.history import Outcome
from apt_ostree.model.treediff import PathChange, flatten
from apt_ostree.model.triggers import TriggerStep
from apt_ostree.model.unitundo import UnitWork
from apt_ostree.system import systemd, systemd_login, usrview
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import diff

_SHUTDOWN_UNITS = ("apt-ostree-live.service", "apt-ostree-finalized.service")


def undo(tx: Transaction, generations: Sequence[Generation], ending: Ending) -> None:
    """Undo the newest generations: stop units, restore the view and /etc, then run the earlier units again.

    Raises Refused if something else is mounted over /usr, and Incomplete if units do not run afterwards.
    """
    if not {generation.id for generation in generations}.isdisjoint(usrview.stacked()):
        usrview.refuse_foreign_mount()
    reserve.release(tx.sysroot)
    etc_restore.leave_edited(tx, generations)
    failpoint("undo.decided")
    for generation in generations:
        tx.records.set_phase(generation.id, Phase.UNDOING)
    failpoint("undo.marked")
    changes = _changes_back(tx, generations)
    work = unit_work(tx, generations, changes) if ending.with_units else UnitWork()
    steps = _triggers_back(tx, generations, changes)
    _stop_units(tx, work)
    failpoint("undo.stopped")
    with tx.task("Switching /usr back"):
        _show_before(tx, generations)
        mark_unlocked(tx.sysroot)
    failpoint("undo.switched")
    for generation in reversed(generations):
        expected = described_accounts(tx.sysroot, generation)
        etc_restore.restore(tx, tx.records.etc_records(generation.id), expected=expected)
    failpoint("undo.etc")
    triggers.undo(tx, generations, steps)
    failpoint("undo.triggered")
    failed = _restart_units(tx, work)
    failpoint("undo.restarted")
    discard_scratch(tx.sysroot)
    for generation in reversed(generations):
        remove_generation(tx.sysroot, tx.records, generation.id, ending)
    if failed:
        raise Incomplete(
            f"the old versions of {len(failed)} units do not run: {', '.join(failed)}",
            details=systemd.log_tail(failed[0]),
            hint=f"see 'systemctl status {failed[0]}'; /usr and /etc are as they were before",
        )


def recover_interrupted(tx: Transaction, *, dry_run: bool = False) -> bool:
    """Undo live changes of this boot that were interrupted; return whether there were any.

    Raises Refused for a dry run if there are any, and Incomplete if they cannot be undone completely.
    """
    unfinished = [generation for generation in tx.live.generations if generation.phase is not Phase.LIVE]
    if unfinished and dry_run:
        raise Refused("an earlier live change was interrupted", hint="run 'apt-ostree recover' first")
    if unfinished:
        tx.message(f"Undoing {len(unfinished)} live changes that were interrupted.")
        finished = {entry.number for entry in tx.records.history() if entry.outcome is Outcome.LIVE}
        was_rollback = any(generation.id in finished for generation in unfinished)
        outcome = Outcome.ROLLED_BACK if was_rollback else Outcome.INTERRUPTED
        note = "the command did not end; this was undone later"
        finish_undo(tx, unfinished, Ending(outcome, note))
        tx.records.end_others(Outcome.DONE if was_rollback else Outcome.INTERRUPTED, note)
    return bool(unfinished)


def finish_undo(tx: Transaction, generations: Sequence[Generation], ending: Ending) -> None:
    """Undo generations, and try once more after a failure; an incomplete undo must be avoided.

    Raises Refused if something else is mounted over /usr, and Incomplete if it fails again.
    """
    tx.tidy_at_end()
    with systemd_login.inhibited("undoing a change of the running system"):
        try:
            undo(tx, generations, ending)
        except (Refused, Incomplete):
            raise
        except Exception as failure:
            tx.warning(f"The undo failed and is tried again: {failure}")
            try:
                undo(tx, generations, ending)
            except Incomplete:
                raise
            except Exception as second_failure:
                raise Incomplete(
                    f"the live changes could not be undone completely: {second_failure}",
                    hint="run 'apt-ostree recover', or reboot: the booted deployment was not changed",
                ) from failure
        finally:
            tx.reread()
    if ending.is_automatic:
        numbers = ", ".join(str(generation.id) for generation in generations)
        tx.record(Kind.UNDONE, f"generation {numbers} was undone: {ending.note}", undone=numbers)


def _try(tx: Transaction, title: str, action: Callable[[], None]) -> None:
    """Run an action; a failure only warns, because it must not stop an undo."""
    with tx.task(title):
        try:
            action()
        except ExternalFailure as error:
            tx.warning(error.message)


def _changes_back(tx: Transaction, generations: Sequence[Generation]) -> tuple[PathChange, ...]:
    """Return the differences of /usr when generations are undone."""
    try:
        return tuple(
            flatten(diff.diff_commits(tx.sysroot.repo, generations[-1].target, generations[0].source))
        )
    except ExternalFailure:  # the commit was pruned, so it was not shown before the interruption
        return ()


def _triggers_back(
    tx: Transaction, generations: Sequence[Generation], changes: Sequence[PathChange]
) -> tuple[TriggerStep, ...]:
    etc = [record for generation in generations for record in tx.records.etc_records(generation.id)]
    try:
        return triggers.plan_back(tx, changes, generations, etc)
    except ExternalFailure:  # likewise
        return ()


def unit_work(
    tx: Transaction, generations: Sequence[Generation], changes: Sequence[PathChange] | None = None
) -> UnitWork:
    """Return how to restore units, from the records; the first action on a unit shows its old state.

    changes: the differences of /usr when the generations are undone, if they are known.
    """
    acted = unitundo.acted_on((g, tx.records.unit_records(g.id)) for g in generations)
    differences = _changes_back(tx, generations) if changes is None else changes
    removed = unit_files.without_definition(tx.sysroot.repo, differences)
    active = systemd.active_units() if acted.first or removed else {}
    began = generations[0].began
    protected = unitundo.untouched(active, lambda unit: unit.active_since < began)
    states = systemd.units(acted.first)
    return unitundo.unit_work(acted, states, removed, active=active, protected=protected)


def _stop_units(tx: Transaction, work: UnitWork) -> None:
    """Cancel pending jobs, and stop the units that the change started."""
    if work.touched:
        systemd.cancel_jobs(work.touched, patience=tx.safe_settings.unit_timeout)
    if work.stop:
        _try(tx, f"Stopping {', '.join(work.stop)}", lambda: systemd.stop(work.stop))


def _restart_units(tx: Transaction, work: UnitWork) -> tuple[str, ...]:
    """Start, restart and reload units with their old code; return those that do not run."""
    if any(not name.startswith("user@") for name in work.reexec):
        _try(tx, "Re-executing systemd", systemd.daemon_reexec)
    else:
        systemd.daemon_reload()
    if work.stop_late:
        _try(tx, f"Stopping {', '.join(work.stop_late)}", lambda: systemd.stop(work.stop_late))
    # A unit that an overlay has shown since the boot began does not exist in the booted tree.
    states = systemd.units(work.start)
    work = replace(work, start=tuple(n for n in work.start if states[n]["LoadState"] != "not-found"))
    for manager in systemd.user_managers() if work.reexec else ():
        systemd.signal_user_manager(manager, reexec=True)
    if reset := (*work.touched, *work.stop):
        systemd.reset_failed(reset)
    if not work.touched:
        return ()
    if work.restart:
        _try(tx, f"Restarting {', '.join(work.restart)}", lambda: systemd.restart(work.restart))
    if work.reload:
        _try(tx, f"Reloading {', '.join(work.reload)}", lambda: systemd.reload(work.reload))
    if work.start:
        # A unit that was stopped before the switch and started after it is active, but with its new code.
        _try(tx, f"Starting {', '.join(work.start)}", lambda: systemd.restart(work.start))
    running = systemd.active(work.touched)
    return tuple(name for name in work.touched if name not in running)


def _show_before(tx: Transaction, generations: Sequence[Generation]) -> None:
    """Make /usr show what it showed before the first of `generations`."""
    undone = {g.id for g in generations}
    if undone.isdisjoint(usrview.stacked()):
        usrview.finish_withdrawal()
        return
    usrview.refuse_foreign_mount()
    if usrview.generation() not in undone:  # killed when the new view was below the old one
        usrview.finish_switch()
    earlier = [g for g in tx.live.generations if g.id not in undone and g.phase is Phase.LIVE]
    if earlier and earlier[-1].id not in usrview.stacked():
        previous = earlier[-1]
        with scratch(tx.sysroot) as directory:
            usrview.show(previous.id, lowers(tx.sysroot, tx.live.booted, previous), scratch=directory)
        return
    usrview.withdraw(earlier[-1].id if earlier else None)


def hold_until_finalized() -> None:
    """Start the unit that works on the next deployment's /etc at shutdown, after ostree has merged it."""
    systemd.start(_SHUTDOWN_UNITS[1:], block=False)


def hold_until_shutdown() -> None:
    """Start the units that restore /etc at shutdown, before ostree merges it into the next deployment."""
    systemd.start(_SHUTDOWN_UNITS, block=False)
