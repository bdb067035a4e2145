"""What going back means for units: the first thing done to one says what it was before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model.generation import Generation, Phase, UnitRecord
from apt_ostree.model.plan import UnitAction, UnitStep
from apt_ostree.model.unit import Unit
from apt_ostree.model.unitundo import Acted, UnitWork, acted_on, steps_back, unit_work, untouched

REEXEC, RELOAD, RESTART = UnitAction.REEXEC, UnitAction.RELOAD, UnitAction.RESTART
SKIP, START, STOP = UnitAction.SKIP, UnitAction.START, UnitAction.STOP


def generation(number: int, phase: Phase = Phase.LIVE) -> Generation:
    return Generation(number, "boot", "debian.0", "old", "new", "new", (), (), (), phase, 0.0)


def begun(unit: str, action: UnitAction) -> UnitRecord:
    return UnitRecord(unit, action, begun=True)


def states(**active: str) -> dict[str, Unit]:
    rows = {f"{name}.service": {"ActiveState": state} for name, state in active.items()}
    return {name: Unit(name, row) for name, row in rows.items()}


def work(
    *records: UnitRecord,
    now: dict[str, Unit] | None = None,
    going: frozenset[str] = frozenset(),
    phase: Phase = Phase.LIVE,
) -> UnitWork:
    return unit_work(acted_on([(generation(1, phase), records)]), now or {}, going)


def test_the_first_action_counts_and_what_never_began_does_not():
    acted = acted_on([
        (generation(1), [begun("a.service", STOP), UnitRecord("b.service", RESTART)]),
        (generation(2, Phase.ACTING), [begun("a.service", START), begun("c.service", RELOAD)]),
    ])  # fmt: skip
    assert acted == Acted({"a.service": STOP, "c.service": RELOAD}, frozenset({"a.service", "c.service"}))


@pytest.mark.parametrize(
    ("action", "state", "done"),
    [
        (RESTART, "active", UnitWork(restart=("a.service",))),
        (RESTART, "failed", UnitWork(restart=("a.service",))),
        (RESTART, "inactive", UnitWork()),  # somebody has stopped it since
        (RELOAD, "active", UnitWork(reload=("a.service",))),
        (RELOAD, "inactive", UnitWork()),
        (REEXEC, "active", UnitWork(reexec=("a.service",))),
        (START, "active", UnitWork(stop=("a.service",))),
        (START, "activating", UnitWork(stop=("a.service",))),
        (START, "failed", UnitWork(stop=("a.service",))),  # so that systemd forgets it
        (START, "inactive", UnitWork()),
        (STOP, "inactive", UnitWork(start=("a.service",))),
        (STOP, "active", UnitWork(start=("a.service",))),
    ],
)
def test_one_unit(action: UnitAction, state: str, done: UnitWork):
    assert work(begun("a.service", action), now=states(a=state)) == done


@pytest.mark.parametrize("action", [RESTART, RELOAD])
def test_what_an_interrupted_change_stopped_runs_again(action: UnitAction):
    done = work(begun("a.service", action), now=states(a="inactive"), phase=Phase.ACTING)
    assert done.all == {"a.service"}


def test_units_without_a_file_stop_and_are_not_started():
    going = frozenset({"new.service", "a.service"})
    done = work(begun("a.service", RESTART), begun("new.service", STOP), now=states(a="active"), going=going)
    assert done == UnitWork(stop=("a.service", "new.service"))


def test_what_runs_again_is_looked_at_once():
    done = UnitWork(stop=("s",), start=("a", "b"), restart=("b", "c"), reload=("c",), reexec=("r",))
    assert done.touched == ("a", "b", "c")
    assert done.all == {"s", "a", "b", "c", "r"}


_units = st.sampled_from(["a.service", "b.service", "c.service"])
_records = st.lists(
    st.builds(UnitRecord, _units, st.sampled_from([REEXEC, RELOAD, RESTART, START, STOP]), st.booleans())
)
_states = st.dictionaries(_units, st.sampled_from(["active", "inactive", "failed", "activating"])).map(
    lambda rows: {name: Unit(name, {"ActiveState": state}) for name, state in rows.items()}
)


@given(st.lists(st.tuples(st.sampled_from(list(Phase)), _records)), _states, st.frozensets(_units))
def test_each_unit_gets_one_thing_done(rows: list, now: dict[str, Unit], going: frozenset[str]):
    acted = acted_on([(generation(n, phase), records) for n, (phase, records) in enumerate(rows)])
    done = unit_work(acted, now, going)
    parts = (done.stop, done.start, done.restart, done.reload, done.reexec)
    assert sum(map(len, parts)) == len(done.all)
    assert going <= set(done.stop)
    assert done.all <= acted.first.keys() | going


# --- the plan of it


def test_what_was_acted_on_is_acted_on_again_and_the_rest_is_named():
    affected = [
        UnitStep("a.service", SKIP, "other"),  # it was acted on
        UnitStep("new.service", START, "other"),  # nothing is started that was not there
        UnitStep("z.service", SKIP, "other", acts=False),
        UnitStep("m.service", RESTART, "other"),
    ]
    done = UnitWork(("s.service",), ("b.service",), ("a.service",), ("r.service",), ("init.scope",))
    planned = steps_back(done, affected)
    assert [(step.unit, step.action) for step in planned] == [
        ("a.service", RESTART), ("b.service", START), ("init.scope", REEXEC), ("m.service", RESTART),
        ("r.service", RELOAD), ("s.service", STOP), ("z.service", SKIP),
    ]  # fmt: skip
    assert {step.unit for step in planned if step.reason == "other"} == {"m.service", "z.service"}
    assert steps_back(UnitWork(), []) == ()


# --- what is never restarted


def bus(name: str = "dbus.service", **properties: str) -> dict[str, Unit]:
    return {name: Unit(name, {"ActiveState": "active", **properties})}


def test_a_protected_unit_is_protected_by_each_of_its_names():
    active = bus("new-bus.service", Names="new-bus.service dbus.service") | bus("a.service")
    assert untouched(active, lambda _unit: True) == {"new-bus.service", "dbus.service"}
    assert untouched(active, lambda _unit: False) == frozenset()  # the change started it


@pytest.mark.parametrize("action", [START, STOP, RESTART])
def test_a_protected_unit_is_neither_stopped_nor_restarted(action: UnitAction):
    active = bus("new-bus.service")
    acted = acted_on([(generation(1, Phase.LIVE), [begun("new-bus.service", action)])])
    for removed in (frozenset(), frozenset({"new-bus.service"})):
        done = unit_work(acted, active, removed, active=active, protected=frozenset({"new-bus.service"}))
        assert done.all == frozenset()


def test_what_would_take_a_protected_unit_along_is_stopped_when_systemd_knows_better():
    active = bus() | bus("new.service", RequiredBy="dbus.service") | bus("other.service")
    removed = frozenset({"new.service", "other.service"})
    done = unit_work(acted_on([]), {}, removed, active=active, protected=frozenset({"dbus.service"}))
    assert (done.stop, done.stop_late) == (("other.service",), ("new.service",))
