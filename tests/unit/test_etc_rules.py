"""What a change does to each path of /etc: decisions, their order, and what overlays mean for it."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model.etc_merge import three_way
from apt_ostree.model.etc_rules import (
    NOT_MERGED,
    EtcPlan,
    OverlayEtc,
    decide,
    decide_all,
    digest,
    directory_of,
    hidden_after,
    in_order,
    join_sides,
    keep_aliases,
    keep_occupied,
    on_new_base,
    replaced_directories,
)
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.plan import EtcAction, EtcStep

KEEP, REMOVE, WRITE = EtcAction.KEEP, EtcAction.REMOVE, EtcAction.WRITE
ONE, TWO, MINE = (FileState("file", 0o644, content=text) for text in (b"1", b"2", b"mine"))
DIRECTORY, LINK = FileState("directory", 0o755), FileState("symlink", 0o777, content=b"x")
STATES = (ABSENT, ONE, TWO, MINE, DIRECTORY, LINK)
NO_OVERLAYS = OverlayEtc()


def test_accounts_and_what_is_the_hosts_are_not_merged():
    assert {"passwd", "shadow-", "gshadow", "subuid-", "subgid-", "machine-id", "fstab"} <= NOT_MERGED
    assert not {"hosts", "subuid", "passwd.d", "ssh/sshd_config"} & NOT_MERGED


@pytest.mark.parametrize(("path", "above"), [("hosts", "."), ("a/b", "a"), ("a/b/c", "a/b")])
def test_directory_of(path: str, above: str):
    assert directory_of(path) == above


@given(st.lists(st.sampled_from(STATES), min_size=2, max_size=2), st.sampled_from(["mode", "uid", "content"]))
def test_digests_tell_states_apart(states: list[FileState], field: str):
    one, two = states
    assert (digest(one) == digest(two)) == (one == two)
    other = replace(one, **{field: b"other" if field == "content" else 77})
    assert digest(other) != digest(one)


# --- one path


@pytest.mark.parametrize(("old", "new", "current"), list(itertools.product(STATES, repeat=3)))
def test_without_overlays_it_is_the_three_way_rule(old: FileState, new: FileState, current: FileState):
    decision = three_way(old, new, current)
    for overlays in (NO_OVERLAYS, OverlayEtc(frozenset({"p"}), frozenset({"p"}))):
        assert decide("p", old, new, current, overlays=overlays) == ((*decision, new) if decision else None)


@pytest.mark.parametrize(
    ("old", "new", "current", "made_against", "action"),
    [
        (ONE, TWO, TWO, None, None),  # it holds that already
        (ONE, TWO, ONE, None, WRITE),
        (ONE, ABSENT, ONE, None, REMOVE),  # the overlay hides it
        (ABSENT, TWO, ABSENT, None, WRITE),
        (ONE, TWO, MINE, None, KEEP),
        (ONE, TWO, MINE, MINE, WRITE),  # the overlay was made of this edit
        (ONE, TWO, MINE, ONE, KEEP),
        (ONE, ONE, MINE, MINE, WRITE),  # the trees do not differ, but it is the overlay's now
        (ONE, ABSENT, MINE, MINE, REMOVE),
    ],
)
def test_an_overlay_comes(
    old: FileState,
    new: FileState,
    current: FileState,
    made_against: FileState | None,
    action: EtcAction | None,
):
    expected = {"p": digest(made_against)} if made_against else {}
    decision = decide("p", old, new, current, overlays=OverlayEtc(after=frozenset({"p"}), expected=expected))
    assert (decision[0] if decision else None) is action
    assert decision is None or (decision[1] and decision[2] == new)


@pytest.mark.parametrize(
    ("shown", "base", "current", "before", "action", "goal"),
    [
        (TWO, ONE, TWO, None, WRITE, ONE),  # the base's shows again
        (TWO, ABSENT, TWO, None, REMOVE, ABSENT),
        (TWO, ONE, TWO, MINE, WRITE, MINE),  # it had been edited before the overlay hid it
        (TWO, ONE, TWO, ABSENT, REMOVE, ABSENT),
        (TWO, ONE, MINE, None, KEEP, ONE),  # edited while the overlay showed it
        (TWO, ONE, ONE, None, None, ONE),
        (ABSENT, ONE, ABSENT, MINE, WRITE, MINE),  # the overlay had hidden it
    ],
)
def test_an_overlay_goes(
    shown: FileState,
    base: FileState,
    current: FileState,
    before: FileState | None,
    action: EtcAction | None,
    goal: FileState,
):
    without = {"p": before} if before else {}
    overlays = OverlayEtc(before=frozenset({"p"}), without=without)
    decision = decide("p", shown, base, current, overlays=overlays)
    assert (decision[0] if decision else None) is action
    assert decision is None or decision[2] == goal


# --- all of them together


def test_a_directory_that_becomes_a_file_is_one_path():
    entries = [("p", DIRECTORY, ABSENT), ("q", ONE, TWO), ("p", ABSENT, ONE)]
    sides = join_sides(entries)
    assert sides == join_sides(entries[::-1]) == {"p": (DIRECTORY, ONE), "q": (ONE, TWO)}
    assert list(sides) == ["p", "q"]


NAMES = ("a", "d", "d/a", "d/e", "d/e/a", "x")


def tree(paths: dict[str, FileState]) -> dict[str, FileState]:
    """Return paths without what lies below anything but a directory."""
    here = {".": DIRECTORY}
    for path, state in sorted(paths.items()):
        if state != ABSENT and here.get(directory_of(path), ABSENT).type == "directory":
            here[path] = state
    return here


_trees = st.dictionaries(st.sampled_from(NAMES), st.sampled_from((*STATES, DIRECTORY, DIRECTORY))).map(tree)


def planned(old: dict, new: dict, current: dict) -> EtcPlan:
    """Plan as core does."""
    sides = {
        path: (old.get(path, ABSENT), new.get(path, ABSENT))
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    }
    held = {path: current.get(path, ABSENT) for path in (".", *NAMES)}
    plan = decide_all(sides, held, NO_OVERLAYS)
    going = {path for path, state in plan.states.items() if state == ABSENT}
    occupied = [
        path
        for path in replaced_directories(plan)
        if any(other.startswith(f"{path}/") and other not in going for other in current)
    ]
    plan = keep_occupied(plan, occupied)
    return replace(plan, steps=in_order(plan))


@given(_trees, _trees, _trees)
def test_steps_can_be_taken_in_their_order(old: dict, new: dict, current: dict):
    plan = planned(old, new, current)
    here = dict(current)
    for path in plan.changed:
        assert here.get(path, ABSENT) == plan.seen[path]
        below = [other for other in here if other.startswith(f"{path}/")]
        if plan.states[path] == ABSENT:
            if not below:  # else files of the administrator are in it, and it stays
                here.pop(path, None)
            continue
        assert here[directory_of(path)].type == "directory"
        assert not below or plan.states[path].type == "directory"
        here[path] = plan.states[path]
    assert all(state in (current.get(path), new.get(path)) for path, state in here.items())


def test_a_plan_in_order_stays_as_it_is():
    """What scripts did to /etc is added to such a plan."""
    old = tree({"d": DIRECTORY, "d/a": ONE, "d/e": DIRECTORY, "d/e/a": TWO})
    plan = planned(old, tree({}), old)
    assert plan.changed == ("d/e/a", "d/e", "d/a", "d")
    assert in_order(plan) == plan.steps


@given(_trees, _trees, _trees)
def test_what_was_edited_stays(old: dict, new: dict, current: dict):
    plan = planned(old, new, current)
    assert plan.states.keys() == plan.seen.keys() == set(plan.changed)
    assert all(current.get(path, ABSENT) == old.get(path, ABSENT) for path in plan.changed)
    assert len({step.path for step in plan.steps}) == len(plan.steps)


@given(_trees, _trees)
def test_an_etc_as_it_was_shipped_becomes_the_new_one(old: dict, new: dict):
    plan = planned(old, new, old)
    assert not any(step.action is KEEP for step in plan.steps)
    result = {p: s for p, s in {**old, **plan.states}.items() if s != ABSENT}
    assert result == new


def test_nothing_is_written_into_a_directory_that_was_removed():
    new = {"d": DIRECTORY, "d/a": ONE}
    plan = planned(tree({"d": DIRECTORY}), tree(new), tree({}))
    assert [(step.path, step.action) for step in plan.steps] == [("d/a", KEEP)]
    assert "directory" in plan.steps[0].reason


def test_a_new_directory_is_made_before_what_is_in_it_and_an_old_one_goes_after():
    old, new = tree({"d": DIRECTORY, "d/a": ONE}), tree({"x": ONE})
    assert [step.path for step in planned(old, new, old).steps] == ["x", "d/a", "d"]
    assert [step.path for step in planned(new, old, new).steps] == ["d", "d/a", "x"]


def test_a_directory_is_replaced_when_it_is_empty_and_kept_when_somebody_uses_it():
    old, new = tree({"d": DIRECTORY, "d/a": ONE}), tree({"d": TWO})
    assert planned(old, new, old).changed == ("d/a", "d")
    plan = planned(old, new, {**old, "d/x": MINE})
    assert plan.changed == ("d/a",)
    assert [step.path for step in plan.steps if step.action is KEEP] == ["d"]


# --- what overlays hide


def hides(
    before: Collection[str], after: Collection[str], shipped: FileState, **seen: FileState
) -> tuple[EtcPlan, OverlayEtc]:
    """Return what a change does to /etc, and the paths that overlays show before and after it.

    shipped: what the base before the change ships.
    """
    held = {path: state for path, state in seen.items() if path in after}
    plan = EtcPlan(seen={path: state for path, state in seen.items() if path not in held}, held=held)
    sides = dict.fromkeys({*before, *after}, (shipped, DIRECTORY))
    return plan, OverlayEtc(frozenset(before), frozenset(after), sides)


def test_what_paths_held_before_overlays_showed_them():
    assert hidden_after({}, EtcPlan(), NO_OVERLAYS) == {}
    first = hidden_after({}, *hides((), "p", ABSENT, p=ONE, other=ONE))
    assert first == {"p": (ONE, ABSENT)}
    # What a path held when the first overlay hid it counts, whatever is made of it then.
    second = hidden_after(first, *hides("p", "pq", TWO, p=TWO, q=MINE))
    assert second == {"p": (ONE, ABSENT), "q": (MINE, TWO)}
    # Once it shows again, it begins anew.
    third = hidden_after(second, *hides("pq", (), ONE, p=TWO))
    assert third == {}
    assert hidden_after(third, *hides((), "p", ONE, p=MINE)) == {"p": (MINE, ONE)}


@pytest.mark.parametrize(
    ("old", "new", "hidden", "goal"),
    [
        (ONE, TWO, ONE, TWO),  # not edited: the new base's
        (ONE, ABSENT, ONE, ABSENT),
        (ABSENT, TWO, ABSENT, TWO),
        (ONE, TWO, MINE, MINE),
        (ONE, TWO, ABSENT, ABSENT),  # the administrator had removed it
        (ONE, ONE, ONE, ONE),
        (ONE, ONE, MINE, MINE),
        (ONE, TWO, TWO, TWO),
    ],
)
def test_a_hidden_path_follows_the_base_unless_it_had_been_edited(
    old: FileState, new: FileState, hidden: FileState, goal: FileState
):
    assert on_new_base(old, new, hidden) == goal


@pytest.mark.parametrize(
    ("path", "target", "kept"),
    [
        ("systemd/system/dbus.service", b"/usr/lib/systemd/system/dbus-broker.service", True),
        ("systemd/system/dbus.service", b"/usr/lib/systemd/system/dbus.service", False),
        ("systemd/system/dbus.service", b"/dev/null", False),
        ("systemd/system/cron.service", b"/usr/lib/systemd/system/cronie.service", False),  # may be
        ("systemd/system/display-manager.service", b"/usr/lib/systemd/system/gdm.service", False),
        ("systemd/system/multi-user.target.wants/dbus.service", b"../dbus-broker.service", False),
    ],
)
def test_an_alias_does_not_replace_what_is_never_restarted(path: str, target: bytes, kept: bool):
    state = FileState("symlink", 0o777, content=target)
    plan = EtcPlan((EtcStep(path, EtcAction.WRITE, "new"),), {path: state}, {path: ABSENT})
    held = keep_aliases(plan, ["dbus.service", "cron.service"])
    assert held.changed == (() if kept else (path,))
    assert (held == plan) is not kept
