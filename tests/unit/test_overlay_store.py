"""The overlays of a machine: refs hold all that somebody may want back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from apt_ostree.core.overlays import edit
from apt_ostree.core.state import overlay_store
from apt_ostree.core.transaction import Transaction
from apt_ostree.model.history import Intent, Outcome
from apt_ostree.model.overlay import Definition, State, Transition
from apt_ostree.model.overlay_edit import Content
from apt_ostree.system.ostree import damage
from tests.unit.repos import System

INTENT = Intent("test", "me", "a", "a")


@pytest.fixture
def tx(system: System) -> Iterator[Transaction]:
    with system.transaction() as opened:
        yield opened


def written(tx: Transaction, name: str = "x", parent: str | None = None, *, priority: int = 50) -> State:
    """Write a commit of an overlay; its priority tells one from the other."""
    definition = Definition(name, priority=priority)
    commit = edit.write(tx.sysroot.repo, Content(definition), parent=parent, subject="test")
    return State(definition.id, commit, True, "boot")


def move(tx: Transaction, before: State | None, after: State | None, message: str = "") -> None:
    name = (before or after).id  # type: ignore[union-attr]
    moves = [Transition(name, before, after)]
    overlay_store.record(tx.sysroot, tx.records, moves, intent=INTENT, message=message)


def refs(tx: Transaction, prefix: str) -> dict[str, str]:
    return {ref.removeprefix(f"{prefix}/"): c for ref, c in tx.sysroot.repo.refs(prefix).items()}


def test_a_record_has_its_ref_and_its_line_in_the_history(tx):
    state = written(tx)
    move(tx, None, state, "for a reason")
    assert tx.records.overlays() == (state,)
    assert refs(tx, overlay_store.REFS) == {"system/x": state.commit}
    (entry,) = tx.records.history()
    assert (entry.outcome, entry.message) == (Outcome.DONE, "system/x: for a reason")
    assert overlay_store.load(tx.sysroot.repo, [state])["system/x"].definition.priority == 50


def test_earlier_commits_are_kept_the_newest_twenty(tx):
    states = [written(tx)]
    move(tx, None, states[0])
    for number in range(25):
        states.append(written(tx, parent=states[-1].commit, priority=number))
    move(tx, states[0], states[-1])
    tx.sysroot.cleanup()
    past = refs(tx, overlay_store.PAST)
    assert past == {f"system/x/{n}": states[-1 - n].commit for n in range(1, 21)}
    assert overlay_store.is_overlay_commit(tx.sysroot.repo, states[-5].commit)


def test_what_an_undo_takes_away_can_be_had_again(tx):
    first = written(tx)
    second = written(tx, parent=first.commit, priority=1)
    move(tx, None, second)
    move(tx, second, first)
    assert refs(tx, overlay_store.UNDONE) == {"system/x": second.commit}
    move(tx, first, None)
    assert refs(tx, overlay_store.REFS) == {}
    assert refs(tx, overlay_store.UNDONE) == {"system/x": first.commit}
    tx.sysroot.cleanup()
    assert overlay_store.is_overlay_commit(tx.sysroot.repo, first.commit)


def test_what_goes_on_is_not_taken_away(tx):
    first = written(tx)
    move(tx, None, first)
    move(tx, first, written(tx, parent=first.commit, priority=1))
    assert refs(tx, overlay_store.UNDONE) == {}


def test_a_strangers_commit_is_not_known(tx, system: System):
    move(tx, None, written(tx))
    assert not overlay_store.is_overlay_commit(tx.sysroot.repo, system.two)
    assert not overlay_store.is_overlay_commit(tx.sysroot.repo, "0" * 64)


def test_refs_that_a_killed_call_left_are_put_right(tx):
    state = written(tx)
    tx.records.move([Transition(state.id, None, state)])
    tx.sysroot.repo.set_ref(f"{overlay_store.REFS}/system/old", state.commit)
    for _ in range(2):  # a second time changes nothing
        overlay_store.sync_refs(tx.sysroot, tx.records)
        assert refs(tx, overlay_store.REFS) == {"system/x": state.commit}
        assert refs(tx, overlay_store.UNDONE) == {"system/old": state.commit}


def test_a_damaged_one_can_still_be_listed_and_keeps_its_past(tx):
    first = written(tx)
    second = written(tx, parent=first.commit, priority=1)
    move(tx, None, second)
    past = refs(tx, overlay_store.PAST)
    damage.discard(tx.sysroot.repo, [f"{second.commit}.commit"])
    overlay_store.sync_refs(tx.sysroot, tx.records)
    assert refs(tx, overlay_store.PAST) == past
    (overlay,) = overlay_store.load(tx.sysroot.repo, tx.records.overlays()).values()
    assert overlay.definition == Definition("x")
    assert overlay.state == second
