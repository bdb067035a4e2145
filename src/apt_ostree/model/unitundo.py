"""What going back means for units: what is done with those that changes acted on, as the records tell."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from apt_ostree.model.generation import Generation, Phase, UnitRecord
from apt_ostree.model.plan import UnitAction, UnitStep
from apt_ostree.model.unit import Unit


@dataclass(frozen=True, slots=True)
class UnitWork:
    """What to do with units to get back to how it was before: each a list of names."""

    stop: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()
    reexec: tuple[str, ...] = ()

    @property
    def all(self) -> frozenset[str]:
        """Return all units that something is done with."""
        return frozenset((*self.stop, *self.start, *self.restart, *self.reload, *self.reexec))

    @property
    def touched(self) -> tuple[str, ...]:
        """Return the units that the change acted on and that run again afterwards."""
        return tuple(dict.fromkeys((*self.start, *self.restart, *self.reload)))


@dataclass(frozen=True, slots=True)
class Acted:
    """What changes have done with units.

    first: unit -> the first thing that was done with it, which says what it was; unfinished: those that a
    change acted on which did not come to its end.
    """

    first: Mapping[str, UnitAction]
    unfinished: frozenset[str]


def acted_on(records: Iterable[tuple[Generation, Iterable[UnitRecord]]]) -> Acted:
    """Return what generations, the oldest first, have done with units."""
    first: dict[str, UnitAction] = {}
    unfinished: set[str] = set()
    for generation, rows in records:
        for record in rows:
            if record.begun:
                first.setdefault(record.unit, UnitAction(record.action))
                if generation.phase is not Phase.LIVE:
                    unfinished.add(record.unit)
    return Acted(first, frozenset(unfinished))


def unit_work(acted: Acted, states: Mapping[str, Unit], going: frozenset[str]) -> UnitWork:
    """Return what is to be done with units.

    states: what systemd knows of those acted on; going: units that have no unit file any more then.
    """

    def names(action: UnitAction) -> tuple[str, ...]:
        """Return units that were acted on so, and that nobody has stopped since."""
        return tuple(
            unit
            for unit, done in acted.first.items()
            if done is action
            and unit not in going
            and (unit in acted.unfinished or unit not in states or states[unit]["ActiveState"] != "inactive")
        )

    started = {unit for unit in names(UnitAction.START) if unit in states and states[unit].is_active}
    return UnitWork(
        stop=tuple(sorted(going | started)),
        start=tuple(u for u, done in acted.first.items() if done is UnitAction.STOP and u not in going),
        restart=names(UnitAction.RESTART),
        reload=names(UnitAction.RELOAD),
        reexec=names(UnitAction.REEXEC),
    )


def steps_back(work: UnitWork, affected: Iterable[UnitStep]) -> tuple[UnitStep, ...]:
    """Return the steps of a plan to go back, by unit: what was acted on is acted on again.

    affected: what the way back would mean for units, had it been a change of its own.
    """
    reason = "the live change acted on it"
    rows: tuple[tuple[UnitAction, Collection[str]], ...] = (
        (UnitAction.STOP, work.stop),
        (UnitAction.START, work.start),
        (UnitAction.RESTART, work.restart),
        (UnitAction.RELOAD, work.reload),
        (UnitAction.REEXEC, work.reexec),
    )
    again = {name: UnitStep(name, action, reason) for action, names in rows for name in names}
    named = (s for s in affected if s.unit not in again and s.action is not UnitAction.START)
    return tuple(sorted((*again.values(), *named), key=lambda step: step.unit))
