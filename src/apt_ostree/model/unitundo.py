"""The undo of a live change for units: the actions for units that the change acted on, by its records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from apt_ostree.model.generation import Generation, Phase, UnitRecord
from apt_ostree.model.never_restart import never
from apt_ostree.model.plan import UnitAction, UnitStep
from apt_ostree.model.unit import Unit
from apt_ostree.model.unitsteps import dependents_of


@dataclass(frozen=True, slots=True)
class UnitWork:
    """The names of units to act on for an undo, by action."""

    stop: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()
    reexec: tuple[str, ...] = ()
    stop_late: tuple[str, ...] = ()  # after the switch, when systemd has read the earlier definitions

    @property
    def all(self) -> frozenset[str]:
        """Return all units."""
        return frozenset(
            (*self.stop, *self.stop_late, *self.start, *self.restart, *self.reload, *self.reexec)
        )

    @property
    def touched(self) -> tuple[str, ...]:
        """Return the units that are active after the undo."""
        return tuple(dict.fromkeys((*self.start, *self.restart, *self.reload)))


@dataclass(frozen=True, slots=True)
class Acted:
    """The actions of changes on units.

    first: unit -> first action, which depends on the unit's original state.
    unfinished: units that an unfinished change acted on.
    """

    first: Mapping[str, UnitAction]
    unfinished: frozenset[str]


def acted_on(records: Iterable[tuple[Generation, Iterable[UnitRecord]]]) -> Acted:
    """Return the actions of generations, the oldest first, on units."""
    first: dict[str, UnitAction] = {}
    unfinished: set[str] = set()
    for generation, rows in records:
        for record in rows:
            if record.begun:
                first.setdefault(record.unit, UnitAction(record.action))
                if generation.phase is not Phase.LIVE:
                    unfinished.add(record.unit)
    return Acted(first, frozenset(unfinished))


def untouched(active: Mapping[str, Unit], before: Callable[[Unit], bool]) -> frozenset[str]:
    """Return the names of the active units that an undo must not stop or restart (never_restart).

    before: whether a unit runs since before the changes. One that they started is stopped again.
    """
    return frozenset(
        name for unit in active.values() if never(*unit.names) and before(unit) for name in unit.names
    )


def unit_work(
    acted: Acted,
    states: Mapping[str, Unit],
    removed: frozenset[str],
    *,
    active: Mapping[str, Unit] = MappingProxyType({}),
    protected: frozenset[str] = frozenset(),
) -> UnitWork:
    """Return the actions on units for an undo.

    states: name -> unit, of the units that were acted on.
    removed: units without a unit file after the undo.
    active: the active units.
    protected: see `untouched`; a change may have given such a unit a name that is gone after the undo.
    """

    def names(action: UnitAction) -> tuple[str, ...]:
        """Return the units with this first action that have not been stopped since."""
        return tuple(
            unit
            for unit, first in acted.first.items()
            if first is action
            and unit not in removed
            and (unit in acted.unfinished or unit not in states or states[unit]["ActiveState"] != "inactive")
        )

    started = {
        unit
        for unit in names(UnitAction.START)
        if unit in states and (states[unit].is_active or states[unit].is_in_trouble)
    }
    stopping = sorted((removed | started) - protected)
    late = {u for u in stopping if not protected.isdisjoint(dependents_of(u, active, restarting=False))}
    stopped = (u for u, first in acted.first.items() if first is UnitAction.STOP)
    return UnitWork(
        stop=tuple(unit for unit in stopping if unit not in late),
        stop_late=tuple(sorted(late)),
        start=tuple(u for u in stopped if u not in removed | protected),
        restart=tuple(u for u in names(UnitAction.RESTART) if u not in protected),
        reload=names(UnitAction.RELOAD),
        reexec=names(UnitAction.REEXEC),
    )


def steps_back(work: UnitWork, affected: Iterable[UnitStep]) -> tuple[UnitStep, ...]:
    """Return the steps of a plan to undo changes, sorted by unit.

    affected: the steps for units if the undo were a new change; those for other units are included.
    """
    reason = "the live change acted on it"
    rows: tuple[tuple[UnitAction, Collection[str]], ...] = (
        (UnitAction.STOP, (*work.stop, *work.stop_late)),
        (UnitAction.START, work.start),
        (UnitAction.RESTART, work.restart),
        (UnitAction.RELOAD, work.reload),
        (UnitAction.REEXEC, work.reexec),
    )
    repeated = {name: UnitStep(name, action, reason) for action, names in rows for name in names}
    named = (s for s in affected if s.unit not in repeated and s.action is not UnitAction.START)
    return tuple(sorted((*repeated.values(), *named), key=lambda step: step.unit))
