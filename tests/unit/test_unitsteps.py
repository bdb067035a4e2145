"""Which steps units take, what goes along with them, and which are taken together."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model.plan import RestartPolicy, UnitAction, UnitStep
from apt_ostree.model.unit import Process, Unit
from apt_ostree.model.unitfile import template
from apt_ostree.model.unitrules import Decision, Need
from apt_ostree.model.unitsteps import (
    busy_refusals,
    is_manager,
    managers,
    newly_enabled,
    rolling,
    scopes,
    to_steps,
    with_clients,
    with_dependents,
)

DEFER, RELOAD, RESTART = UnitAction.DEFER, UnitAction.RELOAD, UnitAction.RESTART
REEXEC, REFRESH = UnitAction.REEXEC, UnitAction.REFRESH
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
        "s.service": "together with a.socket", "d.service": "together with a.socket"
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
    assert planned(step("m.service", STOP), step("m.service", START)) == {("m.service", DEFER, False)}


def test_the_untouchable_is_known_by_its_other_names():
    active = units(m__service={"RequiredBy": "new-bus.service"})
    active["new-bus.service"] = Unit("new-bus.service", {"Names": "dbus.service"})
    (deferred,) = with_dependents([step("m.service", RESTART)], active)
    assert deferred.action is DEFER


# --- from decisions to steps

WORKER, CHILD = (Process(pid, "daemon", "d.service", frozenset()) for pid in (900, 40))
STALE = {WORKER: ("/usr/lib/x.so",), CHILD: ("/usr/lib/x.so",)}


@pytest.mark.parametrize(
    ("need", "none", "needed", "everything"),
    [
        (Need.RELOAD, (RELOAD, False), (RELOAD, True), (RELOAD, True)),
        (Need.RESTART, (RESTART, False), (RESTART, True), (RESTART, True)),
        (Need.REFRESH, (REFRESH, False), (REFRESH, False), (RESTART, True)),
        (Need.DEFER, (DEFER, False), (DEFER, False), (DEFER, False)),
        (Need.SKIP, (SKIP, False), (SKIP, False), (SKIP, False)),
        (Need.STOP, (STOP, True), (STOP, True), (STOP, True)),  # its definition goes
    ],
)
def test_a_policy_decides_what_is_acted_on(need: Need, none: tuple, needed: tuple, everything: tuple):
    decision = Decision("d.service", need, "because", ("/usr/lib/x.so",))
    for policy, expected in zip(RestartPolicy, (none, needed, everything), strict=True):
        (one,) = to_steps(decision, STALE, policy)
        assert (one.action, one.acts) == expected
        assert one.processes == ("40 daemon", "900 daemon")
        assert (one.reason, one.evidence) == ("because", ("/usr/lib/x.so",))


@pytest.mark.parametrize(("policy", "acts"), [(RestartPolicy.NONE, False), (RestartPolicy.NEEDED, True)])
def test_what_is_stopped_before_the_switch_is_started_after_it(policy: RestartPolicy, acts: bool):
    decision = Decision("d.service", Need.STOP, "because", start_again=True)
    assert [(s.action, s.acts) for s in to_steps(decision, {}, policy)] == [(STOP, acts), (START, acts)]


def test_what_needs_nothing_takes_no_step():
    assert list(to_steps(Decision("d.service", Need.NONE, ""), STALE, RestartPolicy.ALL)) == []


# --- managers and scopes


def test_who_is_a_manager():
    pid1, user = Unit("init.scope", {}), Unit("user@1000.service", {"MainPID": "500"})

    def process(pid: int) -> Process:
        return Process(pid, "systemd", "", frozenset())

    assert is_manager(process(1), pid1)
    assert not is_manager(process(2), pid1)
    assert is_manager(process(500), user)
    assert not is_manager(process(501), user)  # a program of the user's
    assert not is_manager(process(500), Unit("d.service", {"MainPID": "500"}))


def test_managers_execute_themselves_anew_and_scopes_wait():
    active = units(init__scope={}, d__service={"MainPID": "7"}) | {
        "user@1000.service": Unit("user@1000.service", {"MainPID": "500"}),
        "session-1.scope": Unit("session-1.scope", {}),
    }
    stale = {
        name: {Process(pid, "x", name, frozenset()): (f"/usr/bin/{pid}",)}
        for name, pid in [("init.scope", 1), ("user@1000.service", 500), ("session-1.scope", 600),
                          ("d.service", 7), ("session-gone.scope", 8)]
    }  # fmt: skip
    planned = list(managers(stale, active, RestartPolicy.NEEDED))
    assert [(s.unit, s.action, s.acts) for s in planned] == [
        ("init.scope", REEXEC, True), ("user@1000.service", REEXEC, True)
    ]  # fmt: skip
    assert not any(s.acts for s in managers(stale, active, RestartPolicy.NONE))
    assert [(s.unit, s.action, s.evidence, s.processes) for s in scopes(stale, active)] == [
        ("session-1.scope", DEFER, ("/usr/bin/600",), ("600 x",))
    ]


# --- what is new


@pytest.mark.parametrize(
    ("unit", "targets", "left_out", "overrides", "action"),
    [
        ("new.service", {"multi-user.target"}, (), {}, START),
        ("new.service", {"printer.target"}, (), {}, None),  # what wants it does not run
        ("new.service", {"multi-user.target"}, ("new.service",), {}, None),
        ("runs.service", {"multi-user.target"}, (), {}, None),
        ("new@.service", {"multi-user.target"}, (), {}, None),  # a template
        ("new.service", {"multi-user.target"}, (), {"new.service": Need.SKIP}, SKIP),
        ("new.service", {"multi-user.target"}, (), {"new.service": Need.DEFER}, SKIP),
        ("new.service", {"multi-user.target"}, (), {"new.service": Need.RESTART}, START),
    ],
)
def test_newly_enabled(unit: str, targets: set, left_out: tuple, overrides: dict, action: UnitAction | None):
    active = {"multi-user.target", "runs.service"}
    found = list(newly_enabled({unit: targets}, active, left_out=left_out, overrides=overrides))
    assert [(s.unit, s.action, s.acts) for s in found] == (
        [(unit, action, action is START)] if action else []
    )


# --- how they are taken


_names = st.sampled_from(
    ["a.service", "b.socket", "g@1.service", "g@2.service", "g@3.service", "h@x.service"]
)


@given(st.lists(_names, unique=True))
def test_instances_of_a_template_are_restarted_one_after_the_other(names: list[str]):
    groups = rolling(names)
    assert sorted(name for group in groups for name in group) == sorted(names)
    assert all(groups)
    for group in groups:
        assert len({template(name) for name in group}) == len(group)
    several = {kind for kind, count in Counter(map(template, names)).items() if count > 1}
    assert all(len(group) == 1 for group in groups if template(group[0]) in several)
    assert sum(template(group[0]) not in several for group in groups) <= 1  # all others together


def test_the_others_come_first_so_that_a_bad_instance_is_the_last():
    names = ["g@2.service", "a.service", "g@1.service", "h@1.service"]
    assert rolling(names) == [("a.service", "h@1.service"), ("g@2.service",), ("g@1.service",)]
    assert rolling([]) == []


def test_clients_are_told_of_what_ends_alone():
    steps = [step("a.service", RESTART), step("b.service", STOP), step("c.service", RELOAD)]
    told = with_clients(
        [*steps, step("d.service", RESTART)], {"a.service": 3, "b.service": 1, "c.service": 9}
    )
    assert [s.clients for s in told] == [3, 1, 0, 0]


@pytest.mark.parametrize(
    ("properties", "busy"),
    [
        ({"ActiveState": "active", "Job": "0"}, False),
        ({"ActiveState": "inactive"}, False),
        ({"ActiveState": "activating"}, True),
        ({"ActiveState": "activating", "SubState": "auto-restart"}, False),
        ({"ActiveState": "activating", "SubState": "auto-restart-queued"}, False),
        ({"ActiveState": "deactivating"}, True),
        ({"ActiveState": "reloading"}, True),
        ({"ActiveState": "active", "Job": "77"}, True),
    ],
)
def test_units_on_their_way_are_left_to_it(properties: dict[str, str], busy: bool):
    reasons = busy_refusals({"alias.service": Unit("a.service", properties)})
    assert len(reasons) == busy
    assert all("alias.service" in reason for reason in reasons)
