"""Undoes generations: the one way back, whoever asks for it.

Every step may be repeated, so an undo that is itself interrupted is simply run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from apt_ostree.core.live import etc_restore, unit_files
from apt_ostree.core.state.generations import (
    Ending,
    described_accounts,
    discard_scratch,
    forget,
    lowers,
    scratch,
    settle_unlocked,
)
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, Incomplete, Refused
from apt_ostree.model import unitundo
from apt_ostree.model.generation import Generation, Phase
from apt_ostree.model.history import Outcome
from apt_ostree.model.treediff import flatten
from apt_ostree.model.unitundo import UnitWork
from apt_ostree.system import systemd, systemd_login, usrview
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import diff

_SHUTDOWN_UNITS = ("apt-ostree-live.service", "apt-ostree-finalized.service")


def undo(tx: Transaction, generations: Sequence[Generation], ending: Ending) -> None:
    """Undo generations, the newest ones: units, then the view, then /etc, then the units of before."""
    if not {generation.id for generation in generations}.isdisjoint(usrview.stacked()):
        usrview.refuse_foreign_mount()
    etc_restore.leave_edited(tx, generations)
    failpoint("undo.decided")
    for generation in generations:
        tx.records.set_phase(generation.id, Phase.UNDOING)
    failpoint("undo.marked")
    work = unit_work(tx, generations) if ending.with_units else UnitWork()
    _free_units(tx, work)
    failpoint("undo.stopped")
    with tx.task("Switching /usr back"):
        _show_before(tx, generations)
        settle_unlocked(tx.sysroot)
    failpoint("undo.switched")
    for generation in reversed(generations):
        expected = described_accounts(tx.sysroot, generation)
        etc_restore.restore(tx, tx.records.etc_records(generation.id), expected=expected)
    failpoint("undo.etc")
    troubled = _return_units(tx, work)
    failpoint("undo.restarted")
    discard_scratch(tx.sysroot)
    for generation in reversed(generations):
        forget(tx.sysroot, tx.records, generation.id, ending)
    if troubled:
        raise Incomplete(
            f"the old versions of {len(troubled)} units do not run: {', '.join(troubled)}",
            details=systemd.log_tail(troubled[0]),
            hint=f"see 'systemctl status {troubled[0]}'; /usr and /etc are as they were before",
        )


def recover_interrupted(tx: Transaction, *, dry_run: bool = False) -> bool:
    """Undo what an earlier call of this boot left unfinished; tell whether there was anything."""
    unfinished = [generation for generation in tx.live.generations if generation.phase is not Phase.LIVE]
    if unfinished and dry_run:
        raise Refused("an earlier live change was interrupted", hint="run 'apt-ostree recover' first")
    if unfinished:
        tx.message(f"Undoing {len(unfinished)} live changes that were interrupted.")
        finished = {entry.number for entry in tx.records.history() if entry.outcome is Outcome.LIVE}
        going_back = any(generation.id in finished for generation in unfinished)
        outcome = Outcome.ROLLED_BACK if going_back else Outcome.INTERRUPTED
        note = "the command did not end; this was undone later"
        finish_undo(tx, unfinished, Ending(outcome, note))
        tx.records.end_others(Outcome.DONE if going_back else Outcome.INTERRUPTED, note)
    return bool(unfinished)


def finish_undo(tx: Transaction, generations: Sequence[Generation], ending: Ending) -> None:
    """Undo generations, and try again when that fails: half a step back is nobody's wish."""
    with systemd_login.inhibited("going back to the system of before"):
        try:
            undo(tx, generations, ending)
        except (Refused, Incomplete):
            raise
        except Exception as failure:
            tx.warning(f"Going on after: {failure}")
            try:
                undo(tx, generations, ending)
            except Incomplete:
                raise
            except Exception as trouble:
                raise Incomplete(
                    f"the live changes could not be undone completely: {trouble}",
                    hint="run 'apt-ostree recover', or reboot: the booted deployment was not changed",
                ) from failure
        finally:
            tx.reread()


def _try(tx: Transaction, title: str, action: Callable[[], None]) -> None:
    """Do what must not hold up an undo."""
    with tx.task(title):
        try:
            action()
        except ExternalFailure as error:
            tx.warning(error.message)


def unit_work(tx: Transaction, generations: Sequence[Generation]) -> UnitWork:
    """Return what the records of `generations` ask for; the first thing done to a unit says what it was."""
    acted = unitundo.acted_on((g, tx.records.unit_records(g.id)) for g in generations)
    try:
        now, then = generations[-1].target, generations[0].source
        changes = flatten(diff.diff_commits(tx.sysroot.repo, now, then))
        going = unit_files.without_definition(tx.sysroot.repo, changes)
    except ExternalFailure:  # the commit is gone, so it was not shown yet when the change was interrupted
        going = frozenset()
    return unitundo.unit_work(acted, systemd.units(acted.first), going)


def _free_units(tx: Transaction, work: UnitWork) -> None:
    """Stop what the change started, and end what hangs."""
    if work.touched:
        systemd.cancel_jobs(work.touched, patience=tx.safe_settings.unit_timeout)
    if work.stop:
        _try(tx, f"Stopping {', '.join(work.stop)}", lambda: systemd.stop(work.stop))


def _return_units(tx: Transaction, work: UnitWork) -> tuple[str, ...]:
    """Have the units of before run their old code again; return those that do not."""
    if any(not name.startswith("user@") for name in work.reexec):
        _try(tx, "Executing systemd anew", systemd.daemon_reexec)
    else:
        systemd.daemon_reload()
    # What an overlay had shown since the boot began is not there in the booted tree.
    states = systemd.units(work.start)
    work = replace(work, start=tuple(n for n in work.start if states[n]["LoadState"] != "not-found"))
    for manager in systemd.user_managers() if work.reexec else ():
        systemd.signal_user_manager(manager, reexec=True)
    if not work.touched:
        return ()
    systemd.reset_failed(work.touched)
    if work.restart:
        _try(tx, f"Restarting {', '.join(work.restart)}", lambda: systemd.restart(work.restart))
    if work.reload:
        _try(tx, f"Reloading {', '.join(work.reload)}", lambda: systemd.reload(work.reload))
    if work.start:
        # One that was stopped before the switch and started after it runs already, but not its old code.
        _try(tx, f"Starting {', '.join(work.start)}", lambda: systemd.restart(work.start))
    running = systemd.active(work.touched)
    return tuple(name for name in work.touched if name not in running)


def _show_before(tx: Transaction, generations: Sequence[Generation]) -> None:
    """Make /usr show what it showed before the first of `generations`."""
    gone = {g.id for g in generations}
    if gone.isdisjoint(usrview.stacked()):
        return
    usrview.refuse_foreign_mount()
    if usrview.generation() not in gone:  # killed with the new view beneath the old one: bring it up
        usrview.finish_switch()
    earlier = [g for g in tx.live.generations if g.id not in gone and g.phase is Phase.LIVE]
    if earlier and earlier[-1].id not in usrview.stacked():
        previous = earlier[-1]
        with scratch(tx.sysroot) as directory:
            usrview.show(previous.id, lowers(tx.sysroot, tx.live.booted, previous), scratch=directory)
        return
    usrview.withdraw(earlier[-1].id if earlier else None)


def hold_until_shutdown() -> None:
    """Have systemd call us at shutdown, before ostree merges /etc into the next deployment."""
    systemd.start(_SHUTDOWN_UNITS, block=False)
