"""Which overlays a cleanup removes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model.overlay import Definition, Scope, State
from apt_ostree.model.overlay_cleanup import Idle, over_limits, unneeded

DAY = 86400.0
NOW = 100 * DAY
#: The newest first: changed 1, 10 and 40 days ago.
NEW, MIDDLE, OLD = (
    Idle(name, NOW - days * DAY, size)
    for name, days, size in [("new", 1, 50), ("middle", 10, 30), ("old", 40, 5)]
)


def overlay(name: str, *, enabled: bool = False, inherits: tuple[str, ...] = (), scope: Scope = Scope.SYSTEM):
    definition = Definition(name, scope=scope, inherits=inherits)
    return definition, State(definition.id, "commit", enabled, "boot")


def test_what_is_enabled_or_inherited_is_needed():
    overlays = [
        overlay("idle"), overlay("on", enabled=True), overlay("parent"),
        overlay("parent", scope=Scope.GLOBAL), overlay("child", inherits=("parent", "on")),
    ]  # fmt: skip
    assert unneeded(overlays) == ("system/idle", "system/child")
    assert unneeded([]) == ()


@pytest.mark.parametrize(
    ("limits", "going"),
    [
        ({}, ()),
        ({"older_than": 10 * DAY}, ("old",)),
        ({"older_than": 10 * DAY - 1}, ("middle", "old")),
        ({"keep": 0}, ("new", "middle", "old")),
        ({"keep": 2}, ("old",)),
        ({"keep": 9}, ()),
        ({"larger_than": 85}, ()),
        ({"larger_than": 84}, ("old",)),
        ({"larger_than": 79}, ("middle",)),  # the older one still fits
        ({"larger_than": 49}, ("new",)),
        ({"larger_than": 0}, ("new", "middle", "old")),
        ({"keep": 1, "older_than": 20 * DAY, "larger_than": 60}, ("middle", "old")),
        ({"older_than": 20 * DAY, "larger_than": 80}, ("old",)),
    ],
)
def test_limits(limits: dict, going: tuple[str, ...]):
    assert over_limits([OLD, NEW, MIDDLE], now=NOW, **limits) == going


_idle = st.lists(
    st.builds(Idle, st.sampled_from("abcdef"), st.floats(0, NOW), st.integers(0, 100)),
    unique_by=lambda o: o.id,
)


@given(_idle, st.integers(0, 7), st.integers(0, 300))
def test_what_stays_keeps_the_limits(idle: list[Idle], keep: int, larger_than: int):
    going = over_limits(idle, now=NOW, keep=keep, larger_than=larger_than)
    staying = [one for one in idle if one.id not in going]
    assert len(staying) <= keep
    assert sum(one.size for one in staying) <= larger_than
    assert going == over_limits(idle[::-1], now=NOW, keep=keep, larger_than=larger_than) or len(
        {one.changed for one in idle}
    ) < len(idle)
