"""Applies a live change to the running system: the journal, the visible steps, and the verification."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from apt_ostree.core.live import confirmation, health, triggers, undo, watching
from apt_ostree.core.live.etc_planning import ETC
from apt_ostree.core.live.health import Acted
from apt_ostree.core.live.planning import Change, Prepared
from apt_ostree.core.state import generations, reserve
from apt_ostree.core.state.generations import Ending
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import AptOstreeError, ExternalFailure, Refused
from apt_ostree.model import plan as rules
from apt_ostree.model import unitsteps
from apt_ostree.model.generation import EtcRecord, UnitRecord, ViewRecord
from apt_ostree.model.history import Intent, Outcome
from apt_ostree.model.overlay import Transition
from apt_ostree.model.plan import UnitAction
from apt_ostree.model.requests.options import LiveOptions
from apt_ostree.system import files, signals, systemd, usrview
from apt_ostree.system.failpoints import failpoint


@dataclass(slots=True)
class Application:
    """A change that is applied to the running system. Each public method is a step; the engine orders them.

    tx: the transaction.
    change: the change, with its plan.
    prepared: the view to show.
    options: the options of the request.
    transitions: what the change makes of overlays.
    generation: the number of the new generation; 0 before `begin`.
    failed: new units that do not run.
    """

    tx: Transaction
    change: Change
    prepared: Prepared
    options: LiveOptions
    transitions: Sequence[Transition] = ()
    generation: int = 0
    failed: tuple[str, ...] = ()
    _earlier: frozenset[int] = frozenset()
    _reloaded: Acted | None = None
    _restarted: Acted | None = None
    _started: Acted | None = None
    _waiting: list[tuple[str, ...]] = field(default_factory=list)

    # --- the journal

    def begin(self) -> None:
        """Write the journal, durably: the intent, and the state of every path before the change.

        Raises Refused if a path of /etc was edited since it was planned.
        """
        tx, change, plan = self.tx, self.change, self.change.plan
        self._earlier = frozenset(generation.id for generation in tx.records.generations())
        etc = self._etc_records()
        units = [UnitRecord(step.unit, step.action) for step in plan.units if step.acts]
        writable = self.prepared.writable
        uppers = (*([str(writable / "upper")] if writable else []), *self.prepared.uppers)
        failpoint("journal.before")
        self.generation = tx.records.begin(
            Intent(tx.title, tx.caller.user, plan.source, plan.target, plan.to_json()),
            deployment=tx.live.booted.id,
            view=ViewRecord(
                change.goal.base, change.goal.overlays, self.prepared.layers, uppers, change.hidden
            ),
            etc=etc,
            units=units,
            transitions=self.transitions,
        )
        failpoint("journal.after")
        commits = [state.commit for t in self.transitions for state in (t.before, t.after) if state]
        shown = [change.goal.base, plan.target, *(applied.commit for applied in change.goal.overlays)]
        generations.pin(tx.sysroot, self.generation, shown, (*self.prepared.layers, *commits))

    def _etc_records(self) -> list[EtcRecord]:
        """Return the state of each path of /etc before the change; raise Refused if one was edited since."""
        etc = self.change.etc
        records = [EtcRecord(path, files.read_state(ETC / path), etc.states[path]) for path in etc.changed]
        edited = [record.path for record in records if record.before != etc.seen[record.path]]
        if edited:
            raise Refused(
                "files in /etc were edited while the change was being prepared",
                details=edited,
                hint="run the command again",
            )
        records += [EtcRecord(path, state, state) for path, state in etc.held.items()]
        return records + [
            EtcRecord(name, files.read_state(ETC / name), None)
            for name in triggers.written_by(self.change.plan.triggers)
        ]

    def undo(self, failure: BaseException) -> None:
        """Undo what was begun, as the journal records it; raise Incomplete if that fails."""
        tx = self.tx
        begun = [g for g in tx.records.generations() if g.id not in self._earlier]
        if not begun:
            return
        tx.warning("The change failed and is being undone.")
        tx.clock.stop()
        reserve.release(tx.sysroot)
        tx.records.set_steps(begun[-1].id, tx.clock.seconds)
        note = failure.message if isinstance(failure, AptOstreeError) else str(failure)
        changes_base = self.change.goal.base != tx.live.base
        try:
            undo.finish_undo(tx, begun, Ending(Outcome.FAILED, note))
        finally:
            if changes_base and isinstance(failure, AptOstreeError) and failure.concerns_health:
                watching.mark(tx, self.change.goal.base, failure.message)

    # --- before the switch

    def stop_units(self) -> None:
        """Stop units that are removed, while their old definition is in force; raise ExternalFailure."""
        undo.hold_until_shutdown()
        stopping = self.change.plan.units_with(UnitAction.STOP)
        if stopping:
            with self.tx.task(f"Stopping {', '.join(stopping)}"):
                self.tx.records.set_begun(self.generation, stopping)
                systemd.stop(stopping, timeout=self._unit_timeout)
                failpoint("act.stopped")

    def write_etc(self) -> None:
        """Write /etc, with one flush; raise ExternalFailure if a path was edited during the change."""
        etc = self.change.etc
        if not etc.changed:
            return
        with self.tx.task(f"Updating {len(etc.changed)} paths in /etc"):
            states = [(ETC / path, etc.states[path]) for path in etc.changed]
            edited = files.write_states(states, seen={ETC / path: etc.seen[path] for path in etc.changed})
        if edited:
            raise ExternalFailure(
                "files in /etc were edited during the change",
                details=[str(path) for path in edited],
                hint="run the command again; the edits were kept",
            )

    # --- the switch, and what it requires

    def switch(self) -> None:
        """Mount the new view at /usr; raise ExternalFailure or OSError if that fails."""
        tx, writable = self.tx, self.prepared.writable
        with tx.task("Switching /usr"), generations.scratch(tx.sysroot) as scratch:
            upper = (writable / "upper", writable / "work") if writable else None
            unlocked = self.change.goal.unlock or tx.live.booted.unlocked
            usrview.show(
                self.generation,
                self.prepared.lowers,
                scratch=scratch,
                upper=upper,
                read_only=upper is None or unlocked == "transient",
            )
        generations.mark_unlocked(tx.sysroot)
        failpoint("act.switched")

    def run_triggers(self) -> None:
        """Do what a boot or a package's scripts would do for the changed files; see model.triggers.

        Raises ExternalFailure if a program fails without which what is new cannot run.
        """
        triggers.run(self.tx, self.generation, self.change.plan.triggers)

    def reload_systemd(self) -> None:
        """Reload, or re-execute, systemd and the users' managers; raise ExternalFailure if that fails."""
        reexec = self.change.plan.units_with(UnitAction.REEXEC)
        system = [name for name in reexec if not name.startswith("user@")]
        if system:
            with self.tx.task("Re-executing systemd"):
                self.tx.records.set_begun(self.generation, system)
                systemd.daemon_reexec()
                failpoint("act.reexecuted")
        elif self._touches("lib/systemd/", "etc/systemd/", "etc/init.d/"):
            with self.tx.task("Reloading systemd"):
                systemd.daemon_reload()
                failpoint("act.reloaded")
        reread = self._touches("lib/systemd/user/", "etc/systemd/user/")
        managers = systemd.user_managers() if reread or len(reexec) > len(system) else ()
        for manager in managers:
            if manager in reexec:
                self.tx.records.set_begun(self.generation, [manager])
            if manager in reexec or reread:
                systemd.signal_user_manager(manager, reexec=manager in reexec)

    # --- units

    def act_on_units(self) -> None:
        """Reload units, and restart the first group of units or start new units, without waiting.

        Raises ExternalFailure if a job fails.
        """
        plan = self.change.plan
        reloading = tuple(sorted(systemd.active(plan.units_with(UnitAction.RELOAD))))
        if reloading:
            with self.tx.task(f"Reloading {', '.join(reloading)}"):
                self.tx.records.set_begun(self.generation, reloading)
                failpoint("act.before-reload")
                systemd.reload(reloading, timeout=self._unit_timeout)
                failpoint("act.units-reloaded")
            self._reloaded = _acted(reloading)
        self._waiting = unitsteps.rolling(plan.units_with(UnitAction.RESTART))
        if self._waiting:
            self._restarted = self._restart(self._waiting.pop(0))
        else:
            self._start_new()

    def settle_units(self) -> None:
        """Wait until restarted units run, one group after the other, then start new units and wait for them.

        Raises ExternalFailure if a unit does not run, for a new one if the settings undo the change then.
        """
        if self._restarted:
            self._settle(self._restarted)
            while self._waiting:
                self._settle(self._restart(self._waiting.pop(0)))
            self._start_new()
        if self._reloaded:
            self._settle(self._reloaded)
        if self._started:
            self._settle_new(self._started)

    def _restart(self, names: tuple[str, ...]) -> Acted:
        with self.tx.task(f"Restarting {', '.join(names)}"):
            self.tx.records.set_begun(self.generation, names)
            failpoint("act.before-restart")
            running = tuple(sorted(systemd.active(names)))  # some may have been stopped since
            systemd.restart(running, timeout=self._unit_timeout, running_only=True)
            failpoint("act.restarted")
        return _acted(running)

    def _settle(self, acted: Acted) -> None:
        health.settle(acted, self.change.settings)

    def _settle_new(self, acted: Acted) -> None:
        if self.change.settings.undo_if_new_unit_fails:
            self._settle(acted)
            return
        # dpkg continues if a new service does not run, because many need configuration first.
        failed = set(self.failed)
        for name, failure in health.failures(acted, self.change.settings):
            self.tx.warning("; ".join((failure.message, *failure.details[-1:])))
            failed.add(name)
        self.failed = tuple(sorted(failed))

    def _start_new(self) -> None:
        starting = self.change.plan.units_with(UnitAction.START)
        if not starting:
            return
        with self.tx.task(f"Starting {', '.join(starting)}"):
            self.tx.records.set_begun(self.generation, starting)
            failpoint("act.before-start")
            began = time.monotonic()
            try:
                systemd.start(starting, timeout=self._unit_timeout)
            except ExternalFailure as error:
                # isinstance: the request did not reach systemd.
                if isinstance(error.__cause__, OSError) or self.change.settings.undo_if_new_unit_fails:
                    raise
                self.tx.warning(f"not all new units could be started: {error.message}")
                # These need one that failed. Those that failed themselves are found when they settle.
                units = systemd.units(starting).items()
                self.failed = tuple(n for n, unit in units if not unit.is_active and unit.tried < began)
            self._started = Acted(starting, systemd.units(starting), began, new=True)
            failpoint("act.started")

    # --- the end

    def verify(self) -> None:
        """Check that /usr shows the generation, its packages and the health of the system.

        Raises ExternalFailure if a check fails.
        """
        tx, plan = self.tx, self.change.plan
        with tx.task("Verifying"):
            if usrview.generation() != self.generation:
                raise ExternalFailure("/usr does not show the new generation: something was mounted over it")
            health.verify_packages(tx, plan.target, plan.packages)
        failpoint("verify.packages")
        health.run_checks(tx, self.change.settings)

    def arm(self) -> None:
        """Set the timer if the generation has to be confirmed, or is watched."""
        within, watched = self.options.confirm_within, self.change.settings.live_watch
        if within or watched:
            confirmation.arm(self.tx, self.generation, within=within, watched=watched)
        if watched:
            self.tx.message(f"It is watched for {_span(watched)}, and undone if something fails.")

    def end(self) -> None:
        """Mark the generation as live."""
        tx, within = self.tx, self.options.confirm_within
        failpoint("act.before-end")
        signals.ignore()  # from here on, the change cannot be cancelled
        tx.clock.stop()
        tx.records.keep_as_live(self.generation, tx.clock.seconds)
        tx.reread()
        if within:
            tx.warning(f"It is undone in {_span(within)} unless you run 'apt-ostree confirm'.")

    # --- facts

    @property
    def _unit_timeout(self) -> float:
        return self.change.settings.unit_timeout

    def _touches(self, *prefixes: str) -> bool:
        return rules.touches(self.change.changes, *prefixes)


def _acted(names: tuple[str, ...]) -> Acted:
    return Acted(names, systemd.units(names), time.monotonic())


def _span(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
