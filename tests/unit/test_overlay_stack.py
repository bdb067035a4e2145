"""What a stack of overlays shows: conflicts with the base, and what of each layer is needed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model.overlay import Definition, OnConflict, parents
from apt_ostree.model.overlay_content import WHITEOUT, Node, Nodes
from apt_ostree.model.overlay_stack import (
    Conflicts,
    Piece,
    etc_states,
    is_plain,
    resolve_conflicts,
    settle,
    with_base_metadata,
)

DIRECTORY, OTHER_DIRECTORY = Node("directory", "d0"), Node("directory", "d1")
OLD, NEW, MINE = (Node("file", name) for name in ("old", "new", "mine"))


@pytest.mark.parametrize(
    ("definition", "plain"),
    [
        (Definition("a"), True),
        (Definition("a", values={"x": "1"}, hides=True, priority=1), True),
        (Definition("a", inherits=("b",)), False),
        (Definition("a", when="arch == 'amd64'"), False),
        (Definition("a", conditions={"bin/a": "x"}), False),
    ],
)
def test_what_may_be_used_again(definition: Definition, plain: bool):
    assert is_plain(definition) is plain


# --- conflicts


@pytest.mark.parametrize(
    ("made_against", "base", "node"),
    [
        ("old", {"bin/a": OLD}, MINE),  # the base is what it was
        ("", {}, MINE),  # it had none, and has none
        ("old", {"bin/a": MINE}, MINE),  # the base has the overlay's version by now
        ("old", {}, WHITEOUT),  # the overlay removes it, and the base has, too
    ],
)
@pytest.mark.parametrize("mode", list(OnConflict))
def test_no_conflict(mode: OnConflict, made_against: str, base: Nodes, node: Node):
    definition = Definition("x", on_conflict=mode)
    assert resolve_conflicts(definition, {"bin/a": node}, base, {"bin/a": (made_against, "")}) == Conflicts()


@pytest.mark.parametrize(
    ("made_against", "base", "node"),
    [
        ("old", {"bin/a": NEW}, MINE),
        ("", {"bin/a": NEW}, MINE),  # the base has got a file of that name
        ("old", {}, MINE),  # the base has lost it
        ("old", {"bin/a": NEW}, WHITEOUT),
        ("old", {"bin/a": DIRECTORY}, MINE),
    ],
)
def test_a_conflict_is_decided_by_the_overlay(made_against: str, base: Nodes, node: Node):
    nodes, against = {"bin/a": node, "bin/b": MINE}, {"bin/a": (made_against, ""), "bin/b": ("", "")}
    keep, drop, disable = (
        resolve_conflicts(Definition("x", on_conflict=mode), nodes, base, against)
        for mode in (OnConflict.KEEP, OnConflict.DROP, OnConflict.DISABLE)
    )
    assert (keep.kept, keep.dropped, keep.disabled) == (("bin/a",), (), False)
    assert (drop.kept, drop.dropped, drop.disabled) == ((), ("bin/a",), False)
    assert (disable.kept, disable.dropped, disable.disabled) == ((), (), True)
    assert all(len(c.notes) == 1 and "/usr/bin/a" in c.notes[0] for c in (keep, drop, disable))
    assert "overlay's" in keep.notes[0] and "base's" in drop.notes[0] and "left out" in disable.notes[0]


def test_each_conflict_is_told_in_order_and_other_paths_are_not():
    nodes = dict.fromkeys(("etc/c", "bin/b", "bin/a"), MINE)
    against = dict.fromkeys(("etc/c", "bin/b", "bin/a", "bin/inherited"), ("old", "digest"))
    base = dict.fromkeys((*nodes, "bin/inherited"), NEW)
    kept = resolve_conflicts(Definition("x"), nodes, base, against)
    assert kept.kept == ("bin/a", "bin/b", "etc/c")
    assert [("/etc/c" in note, "/usr/bin/" in note) for note in kept.notes] == [
        (False, True), (False, True), (True, False)
    ]  # fmt: skip


def test_directories_keep_the_metadata_of_the_base():
    nodes = {"lib": OTHER_DIRECTORY, "lib/x": OTHER_DIRECTORY, "bin": OTHER_DIRECTORY, "lib/a": MINE}
    base = {"lib": DIRECTORY, "lib/a": OLD, "bin": OLD}
    assert with_base_metadata(nodes, base) == {**nodes, "lib": DIRECTORY}


def test_states_of_etc_alone_are_expected():
    assert etc_states({"etc/a": ("1", "digest"), "etc/b": ("1", ""), "bin/a": ("1", "")}) == {
        "etc/a": "digest"
    }


# --- settling

FILES = ("a", "b", "d/a", "d/e/a", "d/e/b", "f/x/y")
DIRECTORIES = ("d", "d/e", "f", "f/x")


def with_parents(paths: dict[str, Node]) -> dict[str, Node]:
    """Return nodes with the directories above them, without what would lie in a removed one."""
    gone = {path for path, node in paths.items() if node == WHITEOUT}
    nodes = {path: node for path, node in paths.items() if gone.isdisjoint(parents(path))}
    return {above: DIRECTORY for path in nodes for above in parents(path)} | nodes


def piece(number: int, paths: dict[str, Node], base: Nodes) -> Piece:
    nodes = with_parents(paths)
    return Piece(f"system/{number}", f"c{number}", nodes, {p: base[p] for p in nodes if p in base})


def view(base: Nodes, lowest_first: list[Piece]) -> dict[str, Node]:
    """Return what overlayfs shows, by removing and putting one path after the other."""
    shown = dict(base)
    for layer in lowest_first:
        for path, node in sorted(layer.nodes.items()):
            if node == WHITEOUT:
                shown = {p: n for p, n in shown.items() if p != path and not p.startswith(f"{path}/")}
            else:
                shown[path] = node
    return shown


def files_of(nodes: Nodes) -> dict[str, Node]:
    return {path: node for path, node in nodes.items() if node.kind == "file"}


_bases = st.sets(st.sampled_from(FILES)).map(lambda paths: with_parents(dict.fromkeys(paths, OLD)))
_written = st.dictionaries(st.sampled_from(FILES), st.sampled_from([MINE, NEW, WHITEOUT]), max_size=5)
_removed = st.dictionaries(st.sampled_from(DIRECTORIES), st.just(WHITEOUT), max_size=1)
_changes = st.lists(st.builds(lambda one, two: one | two, _written, _removed), max_size=4)


@given(_bases, _changes)
def test_a_settled_stack_shows_the_same(base: dict[str, Node], changes: list[dict[str, Node]]):
    topmost_first = [piece(number, paths, base) for number, paths in enumerate(changes)]
    settled = settle(topmost_first)
    assert files_of(view(base, settled[::-1])) == files_of(view(base, topmost_first[::-1]))
    assert [p.id for p in settled] == [p.id for p in topmost_first if p.id in {s.id for s in settled}]
    assert all(piece.nodes for piece in settled)


@given(_bases, _changes)
def test_every_removal_has_a_directory_to_remove_from(base: dict[str, Node], changes: list[dict[str, Node]]):
    settled = settle([piece(number, paths, base) for number, paths in enumerate(changes)])
    lowest_first = settled[::-1]
    for count, layer in enumerate(lowest_first):
        below = view(base, lowest_first[:count])
        for path, node in layer.nodes.items():
            assert node != WHITEOUT or all(above in below for above in parents(path))
        assert all(above in layer.nodes for path in layer.nodes for above in parents(path))


@given(_bases, _changes)
def test_settling_twice_changes_nothing(base: dict[str, Node], changes: list[dict[str, Node]]):
    settled = settle([piece(number, paths, base) for number, paths in enumerate(changes)])
    assert settle(settled) == settled


def test_removals_of_nothing_go_with_the_ways_to_them():
    base = with_parents({"d/a": OLD})
    assert settle([piece(1, {"d/b": WHITEOUT, "new/x": WHITEOUT}, base)]) == []
    assert settle([piece(1, {"d/a": WHITEOUT}, base)])[0].nodes == {"d": DIRECTORY, "d/a": WHITEOUT}


def test_what_a_directory_of_the_base_held_is_not_removed_again_after_the_directory():
    base = with_parents({"d/e/b": OLD})
    topmost = piece(1, {"d/e/b": WHITEOUT, "a": NEW}, base)
    again, removed = piece(2, {"d/a": NEW}, base), piece(3, {"d": WHITEOUT}, base)
    assert settle([topmost, again, removed])[0].nodes == {"a": NEW}
    assert settle([topmost, piece(2, {"d": NEW}, base)])[0].nodes == {"a": NEW}


def test_a_directory_of_its_own_stays_though_it_is_empty():
    assert settle([Piece("system/x", "c", {"new": DIRECTORY})])[0].nodes == {"new": DIRECTORY}
    assert settle([Piece("system/x", "c", {"lib": DIRECTORY}, {"lib": DIRECTORY})]) == []


def test_what_another_overlay_adds_can_be_removed_above_it():
    upper, lower = piece(1, {"new/x": WHITEOUT}, {}), piece(2, {"new/x": MINE}, {})
    assert settle([upper, lower]) == [upper, lower]
    assert settle([lower, upper]) == [lower]


def test_a_removal_in_a_directory_that_is_gone_already_is_dropped():
    base = with_parents({"d/e/a": OLD})
    upper, lower = piece(1, {"d/e/a": WHITEOUT}, base), piece(2, {"d": WHITEOUT}, base)
    assert settle([upper, lower]) == [lower]
    again = piece(3, {"d/x": MINE}, base)  # it is made again, but what the base had in it is not
    assert settle([upper, again, lower]) == [again, lower]


def test_a_removal_in_etc_stays_for_etc_may_hold_what_the_base_does_not():
    only = piece(1, {"etc/made-by-hand": WHITEOUT}, {})
    assert settle([only]) == [only]


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))))
def test_a_piece_that_is_shown_already_stays_as_it_is(order: tuple[int, ...]):
    shown_now = Piece("system/s", "c", {"d": DIRECTORY, "d/nothing": WHITEOUT}, layer="layer")
    pieces = [shown_now, piece(1, {"a": MINE}, {})]
    assert settle([pieces[i] for i in order]) == [pieces[i] for i in order]
