"""What goes along with a unit that is stopped or restarted."""

import pytest

from apt_ostree.core.live.unit_planning import with_dependents
from apt_ostree.model.plan import UnitAction, UnitStep
from apt_ostree.system.systemd import Unit

DEFER, RELOAD, RESTART = UnitAction.DEFER, UnitAction.RELOAD, UnitAction.RESTART
SKIP, START, STOP = UnitAction.SKIP, UnitAction.START, UnitAction.STOP


def units(**properties: dict[str, str]) -> dict[str, Unit]:
    """Return active units: a__socket=... is a.socket."""
    named = {name.replace("__", "."): found for name, found in properties.items()}
    return {name: Unit(name, found) for name, found in named.items()}


ACTIVE = units(
    a__socket={"Triggers": "s.service"},
    b__service={"RequiredBy": "c.service"},
    c__service={"ConsistsOf": "d.service a.socket"},
    d__service={},
    idle__socket={"Triggers": "idle.service"},
    m__service={"RequiredBy": "dbus.service"},
    dbus__service={},
    s__service={"BoundBy": "d.service"},
    t__timer={"Triggers": "d.service"},
)


def planned(*steps: UnitStep) -> set[tuple[str, UnitAction, bool]]:
    found = [(step.unit, step.action, step.acts) for step in with_dependents(steps, ACTIVE)]
    assert len(found) == len(set(found))
    return set(found)


def step(unit: str, action: UnitAction, *, acts: bool = True) -> UnitStep:
    return UnitStep(unit, action, "", acts=acts)


def test_those_of_those_go_along_too():
    assert planned(step("b.service", RESTART)) == {
        ("b.service", RESTART, True), ("c.service", RESTART, True), ("d.service", RESTART, True)
    }  # fmt: skip


def test_the_reason_names_the_unit_that_takes_it_along():
    steps = with_dependents([step("a.socket", RESTART)], ACTIVE)
    assert {s.unit: s.reason for s in steps if s.reason} == {
        "s.service": "it goes with a.socket", "d.service": "it goes with a.socket"
    }  # fmt: skip


def test_a_service_is_restarted_with_its_socket_and_not_stopped_with_it():
    assert ("s.service", RESTART, True) in planned(step("a.socket", RESTART))
    assert planned(step("a.socket", STOP)) == {("a.socket", STOP, True)}


def test_no_service_goes_with_a_timer_or_starts_with_a_socket():
    assert planned(step("t.timer", RESTART)) == {("t.timer", RESTART, True)}
    assert planned(step("idle.socket", RESTART)) == {("idle.socket", RESTART, True)}


@pytest.mark.parametrize("acts", [True, False])
@pytest.mark.parametrize("other", [SKIP, RELOAD])
@pytest.mark.parametrize("turn", [1, -1])
def test_a_restart_makes_up_for_less(acts: bool, other: UnitAction, turn: int):
    steps = [step("s.service", other, acts=acts and other is RELOAD), step("a.socket", RESTART, acts=acts)]
    assert planned(*steps[::turn]) == {
        ("a.socket", RESTART, acts), ("s.service", RESTART, acts), ("d.service", RESTART, acts)
    }  # fmt: skip


def test_what_stops_by_itself_stays_so():
    steps = (step("s.service", STOP), step("a.socket", RESTART))
    assert {("s.service", STOP, True), ("a.socket", RESTART, True)} <= planned(*steps)
    assert ("s.service", RESTART, True) not in planned(*steps)


def test_what_is_stopped_and_started_again_takes_along_both_ways():
    assert planned(step("s.service", STOP), step("s.service", START)) == {
        ("s.service", STOP, True), ("d.service", STOP, True), ("d.service", START, True),
        ("s.service", START, True),
    }  # fmt: skip


def test_what_would_take_along_the_untouchable_waits():
    assert planned(step("m.service", RESTART)) == {("m.service", DEFER, False)}
