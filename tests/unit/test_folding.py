"""Generations that become one: whatever part of a chain is folded, an undo leads back to its beginning."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apt_ostree.core.live import etc_restore
from apt_ostree.model import accounts, etc_rules, etc_undo, kernel_undo, unitundo
from apt_ostree.model.etc_rules import EtcPlan
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.folding import fold_etc, fold_kernel, fold_transitions, fold_units, to_fold
from apt_ostree.model.generation import EtcRecord, Generation, KernelRecord, Phase, UnitRecord
from apt_ostree.model.overlay import State, Transition
from apt_ostree.model.plan import EtcAction, EtcStep, UnitAction
from apt_ostree.system import files
from tests.unit.repos import ME

FILES = tuple(FileState("file", 0o644, *ME, content=text) for text in (b"1", b"2"))
LINK, DIRECTORY = FileState("symlink", 0o777, *ME, content=b"x"), FileState("directory", 0o755, *ME)
PATHS = ("a", "a/b", "a/b/c", "a/d", "e")
Tree = Mapping[str, FileState]


def generation(number: int, *, phase: Phase = Phase.LIVE, confirm_by: float | None = None) -> Generation:
    return Generation(number, "boot", "x", "s", "t", "t", (), (), (), phase, float(number), confirm_by)


def folded(pairs: Sequence[tuple[Generation, Generation]]) -> list[tuple[int, int]]:
    return [(older.id, newer.id) for older, newer in pairs]


@pytest.mark.parametrize(
    ("numbers", "first", "keep", "pairs"),
    [
        ([], 0, 3, []),
        ([1, 2, 3], 0, 3, []),
        ([1, 2, 3, 5], 0, 3, [(1, 2)]),
        ([1, 2, 3, 5], 0, 1, [(1, 2), (2, 3), (3, 5)]),
        ([1, 2, 3, 5], 1, 3, []),  # the one of the boot stays, and does not count
        ([1, 2, 3, 5], 1, 2, [(2, 3)]),
    ],
)
def test_the_oldest_go_and_the_boots_own_stays(
    numbers: list[int], first: int, keep: int, pairs: list[tuple[int, int]]
):
    assert folded(to_fold([generation(number) for number in numbers], first, keep)) == pairs


@pytest.mark.parametrize(
    ("older", "newer", "before"),
    [
        (("sysctl", "1", "2"), ("sysctl", "2", "3"), "1"),
        (("sysctl", "1", None), ("sysctl", "2", "3"), "1"),
        (("binfmt", "x", "x\ny"), ("binfmt", "x\ny", "x\ny\nz"), "x"),
        # Somebody changed it between the two.
        (("sysctl", "0", "1"), ("sysctl", "5", "2"), "5"),
        (("apparmor", "a", "a\nb"), ("apparmor", "a\nb\nd", "a\nb\nc\nd"), "a\nd"),
    ],
)
def test_the_kernels_first_value_and_its_last_one_stay(older: Any, newer: Any, before: str):
    one, two = (KernelRecord(kind, "", *values) for kind, *values in (older, newer))
    (folded_record,) = fold_kernel([one], [two])
    assert folded_record == KernelRecord(two.kind, "", before, two.after)
    assert kernel_undo.value_before([one, two]) == before


def test_different_settings_of_the_kernel_are_not_folded():
    one, two = KernelRecord("sysctl", "a", "1", "2"), KernelRecord("sysctl", "b", "7", "8")
    assert fold_kernel([one], [two]) == (one, two)
    assert kernel_undo.came(KernelRecord("binfmt", "", "x"), "x\ny") == {"y"}


def test_what_may_be_undone_alone_is_not_part_of_another():
    chain = [generation(1), generation(2), generation(3, confirm_by=9.0), generation(4)]
    assert folded(to_fold(chain, 0, 1)) == [(1, 2)]
    assert to_fold(chain[2:], 0, 1) == ()
    assert to_fold([generation(1), generation(2, phase=Phase.UNDOING)], 0, 1) == ()


# --- /etc


def trees() -> st.SearchStrategy[Tree]:
    """Return trees in which what has something below it is a directory."""
    return st.fixed_dictionaries(
        {path: st.sampled_from([ABSENT, *FILES, LINK, DIRECTORY]) for path in PATHS}
    ).map(lambda tree: {path: state if _has_place(path, tree) else ABSENT for path, state in tree.items()})


def _has_place(path: str, tree: Tree) -> bool:
    above = etc_rules.directory_of(path)
    return above == "." or (tree[above] == DIRECTORY and _has_place(above, tree))


def changes(old: Tree, new: Tree) -> tuple[EtcRecord, ...]:
    """Return the records of a change in the order in which it is carried out."""
    paths = [path for path in PATHS if old[path] != new[path]]
    action = {path: EtcAction.REMOVE if new[path] == ABSENT else EtcAction.WRITE for path in paths}
    plan = EtcPlan(tuple(EtcStep(path, action[path], "") for path in paths), new, old)
    return tuple(EtcRecord(step.path, old[step.path], new[step.path]) for step in etc_rules.in_order(plan))


def apply(top: Path, records: Sequence[EtcRecord]) -> None:
    files.write_states([(top / record.path, record.after or ABSENT) for record in records])


def undo(top: Path, chain: Sequence[Sequence[EtcRecord]]) -> list[str]:
    """Undo a chain of changes, the newest first; return the warnings."""
    warnings: list[str] = []
    tx: Any = SimpleNamespace(warning=warnings.append)
    for records in reversed(chain):
        etc_restore.restore(tx, records, etc=top)
    return warnings


def fold_some(chain: list[tuple[EtcRecord, ...]], count: int) -> list[tuple[EtcRecord, ...]]:
    """Fold the oldest `count` changes into the one after them."""
    for _ in range(min(count, len(chain) - 1)):
        chain = [fold_etc(chain[0], chain[1]), *chain[2:]]
    return chain


EMPTY = dict.fromkeys(PATHS, ABSENT)
FULL: Tree = {"a": DIRECTORY, "a/b": DIRECTORY, "a/b/c": FILES[0], "a/d": LINK, "e": FILES[1]}
A_FILE: Tree = {**EMPTY, "a": FILES[0]}


@given(st.lists(trees(), min_size=1, max_size=6), st.integers(0, 5))
@example([FULL, EMPTY, A_FILE], 1)
@example([A_FILE, EMPTY, FULL], 1)
@example([EMPTY, A_FILE, FULL], 1)
@settings(max_examples=100)
def test_an_undo_leads_back_to_the_beginning(states: list[Tree], count: int):
    chain = [changes(old, new) for old, new in itertools.pairwise(states)]
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        apply(top, changes(EMPTY, states[0]))
        for records in chain:
            apply(top, records)
        assert undo(top, fold_some(chain, count)) == []
        assert {path: files.read_state(top / path) for path in PATHS} == states[0]


@given(st.lists(trees(), min_size=2, max_size=6), st.integers(1, 5), st.sampled_from(PATHS), trees())
def test_an_edit_is_kept_as_before(states: list[Tree], count: int, path: str, edited: Tree):
    """A folded chain and the whole one agree on which paths were edited, and what becomes of the others."""
    chain = [changes(old, new) for old, new in itertools.pairwise(states)]
    current = {**states[-1], path: edited[path]}
    whole, part = ([r for records in c for r in records] for c in (chain, fold_some(chain, count)))
    assert _goal(whole, path, current) == _goal(part, path, current)


def _goal(records: Sequence[EtcRecord], path: str, current: Tree) -> FileState:
    """Return what becomes of one path, by the rules that `etc_restore` follows."""
    state = current[path]
    if path in etc_undo.edited_since(records, current):
        return state
    for record in reversed([record for record in records if record.path == path]):
        goal = etc_undo.restored(record, state)
        if goal is None:
            return state
        state = goal
    return state


@given(
    st.lists(st.tuples(trees(), st.sets(st.sampled_from(PATHS))), min_size=3, max_size=6), st.integers(1, 4)
)
def test_what_was_edited_between_two_changes_is_kept_as_before(
    steps: list[tuple[Tree, set[str]]], count: int
):
    """As above; `steps` are the states after the changes, and the paths that somebody edits then."""
    chain, tree = [], steps[0][0]
    for number, (state, edited) in enumerate(steps[1:]):
        chain.append(changes(tree, state))
        tree = {**state} | {path: FileState("file", 0o600, content=b"%d" % number) for path in edited}
    whole, part = ([r for records in c for r in records] for c in (chain, fold_some(chain, count)))
    for path in PATHS:
        assert _goal(whole, path, tree) == _goal(part, path, tree)


def test_an_account_that_was_added_between_two_changes_stays():
    texts = ("root:x:0:\n", "root:x:0:\nfx:x:1:\n", "root:x:0:\nfx:x:1:\nalice:x:1000:\n")
    root, fx, alice = (FileState("file", 0o644, content=text.encode()) for text in texts)
    both = FileState("file", 0o644, content=alice.content + b"web:x:2:\n")
    (record,) = fold_etc([EtcRecord("passwd", root, fx)], [EtcRecord("passwd", alice, both)])
    assert record.before.content == b"root:x:0:\nalice:x:1000:\n"
    assert etc_undo.restored(record, both) == record.before


@given(st.permutations(["fx", "web", "db", "mail"]), st.integers(0, 3), st.booleans())
def test_accounts_of_all_changes_go(names: list[str], count: int, joined: bool):
    texts = list(itertools.accumulate((f"{n}:x:{i}:\n" for i, n in enumerate(names)), initial="root:x:0:\n"))
    states = [FileState("file", 0o644, content=text.encode()) for text in texts]
    chain = [(EtcRecord("passwd", old, new),) for old, new in itertools.pairwise(states)]
    mine = b"joe:x:1000:\n" if joined else b""  # made by somebody else meanwhile
    current = FileState("file", 0o644, content=states[-1].content + mine)
    for records in reversed(fold_some(list(chain), count)):
        current = etc_undo.restored(records[0], current) or current
    assert current.content == states[0].content + mine
    assert "passwd" in accounts.FILES


def test_what_has_come_back_needs_no_undo():
    assert fold_etc(changes(FULL, A_FILE), changes(A_FILE, FULL)) == ()


def test_what_an_outside_program_has_not_recorded_yet_stays_unknown():
    one, two = FILES
    older, newer = (EtcRecord("ld.so.cache", one, two),), (EtcRecord("ld.so.cache", two, None),)
    assert fold_etc(older, newer) == (EtcRecord("ld.so.cache", one, None),)


# --- units and overlays


def units() -> st.SearchStrategy[tuple[UnitRecord, ...]]:
    names = st.sampled_from(["a.service", "b.service", "c.socket"])
    rows = st.tuples(names, st.sampled_from(UnitAction), st.booleans())
    return st.lists(rows, max_size=4, unique_by=lambda row: row[0]).map(
        lambda given: tuple(UnitRecord(name, action, begun) for name, action, begun in given)
    )


@given(st.lists(units(), min_size=2, max_size=5))
def test_the_first_action_on_a_unit_counts(chain: list[tuple[UnitRecord, ...]]):
    whole = [(generation(number), records) for number, records in enumerate(chain, start=1)]
    part = [(generation(2), fold_units(chain[0], chain[1])), *whole[2:]]
    assert unitundo.acted_on(part) == unitundo.acted_on(whole)


def test_overlays_go_back_over_both():
    none, one, two = None, State("o", "1", True, "b"), State("o", "2", True, "b")
    made, changed, gone = Transition("o", none, one), Transition("o", one, two), Transition("o", two, none)
    assert fold_transitions([made], [changed]) == (Transition("o", none, two),)
    assert fold_transitions([made], [gone]) == (gone,)  # somebody changed it in between: only that goes back
    assert fold_transitions([made], []) == fold_transitions([], [made]) == (made,)
