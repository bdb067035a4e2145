"""Which overlay is meant, and what it is to become."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.errors import UsageError
from apt_ostree.model.overlay import (
    Applied,
    Definition,
    Goal,
    OnConflict,
    Overlay,
    Persistence,
    Scope,
    State,
    Transition,
)
from apt_ostree.model.overlay_choice import (
    after,
    choose,
    defined,
    find,
    free_name,
    is_shown,
    transition,
    transitions_to,
)


def overlay(name: str, scope: Scope = Scope.SYSTEM, **fields: Any) -> Overlay:
    definition = Definition(name, scope=scope, **fields)
    return Overlay(definition, State(definition.id, "commit", True, "boot"))


def known(*overlays: Overlay) -> dict[str, Overlay]:
    return {one.id: one for one in overlays}


ONE, OTHER, GLOBAL = overlay("one"), overlay("other"), overlay("one", Scope.GLOBAL)


@pytest.mark.parametrize(
    ("name", "chosen"),
    [("other", OTHER), ("system/other", OTHER), ("system/one", ONE), ("global/one", GLOBAL)],
)
def test_find(name: str, chosen: Overlay):
    assert find(known(ONE, OTHER, GLOBAL), name) == chosen


@pytest.mark.parametrize("name", ["one", "missing", "global/other", ""])
def test_a_name_that_is_not_clear_is_refused_with_those_there_are(name: str):
    with pytest.raises(UsageError) as caught:
        find(known(ONE, OTHER, GLOBAL), name)
    assert caught.value.hint and "global/one, system/one, system/other" in caught.value.hint


def test_the_overlay_last_worked_on_is_meant_where_no_name_is_given():
    both = known(ONE, OTHER)
    assert choose(both, "one", "system/other") == ONE
    assert choose(both, None, "system/other") == OTHER
    assert choose(known(ONE), None, "system/gone") == ONE
    for last in (None, "system/gone"):
        with pytest.raises(UsageError):
            choose(both, None, last)


_taken = st.sets(st.sampled_from(["overlay", "overlay-2", "overlay-3", "overlay-9", "other"]))


@given(_taken)
def test_a_free_name_is_free(taken: set[str]):
    assert free_name(known(*map(overlay, taken))) not in taken


def test_names_are_counted():
    assert free_name({}) == "overlay"
    assert free_name(known(overlay("overlay"), overlay("overlay-3"))) == "overlay-2"


# --- definitions


def test_a_definition_is_made_of_words():
    changes = {
        "scope": Scope.USER,
        "user": "joe",
        "persistence": Persistence.HYBRID,
        "on_conflict": OnConflict.DROP,
        "persists": ["/etc/*"],
        "values": {"a": "1"},
        "priority": 7,
    }
    assert defined({}, None, "new", None, changes) == Definition(
        "new", Scope.USER, 7, Persistence.HYBRID, OnConflict.DROP, ("/etc/*",), values={"a": "1"}, user="joe"
    )
    assert defined({}, None, None, None, {}) == Definition("overlay")


def test_values_are_added_and_lists_replaced():
    before = overlay("one", values={"a": "1", "b": "2"}, inherits=("other",), allow=("setuid",))
    wanted = defined(
        known(before), before, None, None, {"values": {"b": "3"}, "inherits": [""], "allow": ["x"]}
    )
    assert (wanted.values, wanted.inherits, wanted.allow) == ({"a": "1", "b": "3"}, (), ("x",))


def test_another_name():
    assert defined(known(ONE), ONE, "one", "new", {}).id == "system/new"
    assert defined(known(ONE), ONE, None, None, {}) == ONE.definition
    with pytest.raises(UsageError):
        defined(known(ONE, OTHER), ONE, None, "other", {})
    with pytest.raises(UsageError):
        defined(known(ONE), ONE, None, "No Name", {})


@pytest.mark.parametrize(
    "changes",
    [
        {"scope": Scope.GLOBAL},  # it ships with the image
        {"persistence": Persistence.HYBRID},  # which of its paths?
        {"persistence": Persistence.HYBRID, "persists": [""]},
        {"scope": Scope.USER},  # for whom?
        {"user": "joe"},
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any]):
    with pytest.raises(UsageError):
        defined({}, None, "new", None, changes)


def test_what_is_there_already_cannot_be_made():
    with pytest.raises(UsageError):
        defined(known(ONE), None, "one", None, {})


# --- transitions

STATE, CHANGED = ONE.state, State("system/one", "newer", True, "boot")
RENAMED = State("system/new", "commit", True, "boot")


@pytest.mark.parametrize(
    ("before", "state", "moves"),
    [
        (None, STATE, [Transition("system/one", None, STATE)]),
        (ONE, STATE, [Transition("system/one", STATE, STATE)]),  # nothing changes
        (ONE, CHANGED, [Transition("system/one", STATE, CHANGED)]),
        (ONE, RENAMED, [Transition("system/one", STATE, None), Transition("system/new", None, RENAMED)]),
    ],
)
def test_transitions(before: Overlay | None, state: State, moves: list[Transition]):
    there = known(before) if before else {}
    assert transitions_to(there, before, state) == moves
    result = after({one.id: one.state for one in there.values()}, moves)
    assert result == {state.id: state}


def test_a_transition_is_named_after_what_there_is():
    assert transition(ONE, None) == Transition("system/one", STATE, None)
    assert transition(None, STATE) == Transition("system/one", None, STATE)


_states = st.dictionaries(st.sampled_from("abc"), st.sampled_from("12")).map(
    lambda rows: {name: State(name, commit, True, "boot") for name, commit in rows.items()}
)


@given(_states, _states)
def test_transitions_lead_from_one_set_to_another_and_back(old: dict[str, State], new: dict[str, State]):
    names = old.keys() | new.keys()
    forth = [Transition(name, old.get(name), new.get(name)) for name in names]
    back = [Transition(move.id, move.after, move.before) for move in forth]
    assert after(old, forth) == new
    assert after(after(old, forth), back) == old


def test_what_is_shown_matters_before_and_after():
    goal = Goal("base", "commit", (Applied("system/one", "commit", "layer"),))
    assert is_shown(goal, [transition(OTHER, None), transition(ONE, None)])
    assert not is_shown(goal, [transition(OTHER, None)])
    assert not is_shown(Goal("base", "base"), [transition(ONE, None)])
