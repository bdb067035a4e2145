"""What undoing a change makes of /etc: what was changed since stays, accounts that others made as well."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model import accounts
from apt_ostree.model.etc_undo import (
    edited_accounts,
    edited_since,
    plan_restore,
    recorded_repeatedly,
    restored,
)
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.generation import EtcRecord
from apt_ostree.model.plan import EtcAction

ONE, TWO, MINE = (FileState("file", 0o644, content=text) for text in (b"1", b"2", b"mine"))
STATES = (ABSENT, ONE, TWO, MINE)


def passwd(*lines: str) -> FileState:
    return FileState("file", 0o644, content="".join(f"{line}\n" for line in lines).encode())


@pytest.mark.parametrize(("before", "after", "current"), list(itertools.product(STATES, repeat=3)))
def test_one_path(before: FileState, after: FileState, current: FileState):
    goal = restored(EtcRecord("p", before, after), current)
    assert goal == (before if current in (before, after) else None)


@pytest.mark.parametrize("current", STATES)
def test_what_was_interrupted_before_it_was_recorded_is_as_before(current: FileState):
    assert restored(EtcRecord("ld.so.cache", ONE, None), current) == ONE


BEFORE, AFTER = ("root:x:0:", "joe:x:1000:"), ("root:x:0:", "joe:x:1000:", "fx:x:999:")


@pytest.mark.parametrize(
    ("current", "edited", "kept"),
    [
        (AFTER, (), BEFORE),
        ((*AFTER, "jane:x:1001:"), (), (*BEFORE, "jane:x:1001:")),  # made since, by somebody else
        (AFTER, ("fx",), AFTER),
        (BEFORE, (), BEFORE),
        (("root:new:0:", *AFTER[1:]), (), ("root:new:0:", BEFORE[1])),
    ],
)
def test_added_accounts_go(current: tuple[str, ...], edited: tuple[str, ...], kept: tuple[str, ...]):
    record = EtcRecord("passwd", passwd(*BEFORE), passwd(*AFTER))
    assert restored(record, passwd(*current), edited_accounts=edited) == passwd(*kept)


def test_accounts_that_were_to_be_added_go_when_it_was_interrupted():
    record = EtcRecord("group", passwd(*BEFORE), None)
    goal = restored(record, passwd(*AFTER, "jane:x:1001:"), expected_accounts={"fx", "joe"})
    assert goal == passwd(*BEFORE, "jane:x:1001:")  # joe was there before
    assert restored(record, passwd(*AFTER)) == passwd(*AFTER)


@pytest.mark.parametrize("name", accounts.FILES)
def test_the_owner_and_mode_that_a_file_of_accounts_has_by_now_stay(name: str):
    now = FileState("file", 0o600, 0, 42, passwd(*AFTER, "jane:x:1001:").content)
    goal = restored(EtcRecord(name, passwd(*BEFORE), passwd(*AFTER)), now)
    assert goal and (goal.mode, goal.gid) == (0o600, 42)


def test_a_backup_of_accounts_is_a_plain_file():
    assert restored(EtcRecord("passwd-", passwd(*BEFORE), passwd(*AFTER)), passwd("x:x:1:")) is None


_lines = st.dictionaries(st.sampled_from(["root", "joe", "fx", "web", "é"]), st.sampled_from("123")).map(
    lambda rows: [f"{name}:{value}" for name, value in rows.items()]
)


@given(_lines, _lines, st.sampled_from(accounts.FILES))
def test_undoing_is_the_inverse_where_nobody_did_anything(before: list[str], more: list[str], name: str):
    present = {line.partition(":")[0] for line in before}
    after = [*before, *(line for line in more if line.partition(":")[0] not in present)]
    record = EtcRecord(name, passwd(*before), passwd(*after))
    goal = restored(record, passwd(*after))
    assert goal == passwd(*before)
    assert restored(record, goal) == goal  # an undo that is run again changes nothing


def test_accounts_with_a_password_by_now_are_edited():
    records = [
        EtcRecord("shadow", passwd("root:*"), passwd("root:*", "fx:!", "web:!")),
        EtcRecord("group", passwd(), passwd("fx:x:1:")),
        EtcRecord("gshadow", passwd(), None),  # nobody knows yet
        EtcRecord("hosts", ONE, TWO),
    ]
    current = {"shadow": passwd("root:$y$", "fx:$y$", "web:!"), "group": passwd("fx:x:1:joe")}
    assert edited_accounts(records, current) == {"fx"}
    assert edited_accounts(records[2:], {}) == frozenset()


# --- several changes to one path


def test_paths_that_are_told_of_more_than_once():
    records = [EtcRecord(path, ONE, TWO) for path in ("a", "b", "a", "c", "c", "c")]
    assert recorded_repeatedly(records) == {"a", "c"}
    assert recorded_repeatedly([]) == frozenset()


@pytest.mark.parametrize(
    ("rows", "current", "edited"),
    [
        ([("p", ONE, TWO)], ABSENT, []),  # with one record, the path tells itself
        ([("p", ONE, ABSENT), ("p", ABSENT, TWO)], TWO, []),
        ([("p", ONE, ABSENT), ("p", ABSENT, TWO)], ABSENT, ["p"]),  # as in between, but by hand
        ([("p", ONE, ABSENT), ("p", ABSENT, TWO)], ONE, ["p"]),
        ([("p", ONE, TWO), ("p", TWO, None)], MINE, []),  # it is not known yet what came of it
        ([("passwd", ONE, TWO), ("passwd", TWO, MINE)], ONE, []),  # accounts are looked at one by one
    ],
)
def test_an_edit_that_looks_like_a_state_in_between(
    rows: list[tuple[str, FileState, FileState | None]], current: FileState, edited: list[str]
):
    records = [EtcRecord(*row) for row in rows]
    assert edited_since(records, {row[0]: current for row in rows}) == edited


def steps(records: list[EtcRecord], **current: FileState) -> dict[str, EtcAction]:
    return {step.path: step.action for step in plan_restore(records, current)}


def test_the_plan_of_a_restore():
    records = [EtcRecord("a", ONE, TWO), EtcRecord("b", ABSENT, TWO), EtcRecord("c", ONE, TWO)]
    assert steps(records, a=TWO, b=TWO, c=MINE) == {
        "a": EtcAction.WRITE, "b": EtcAction.REMOVE, "c": EtcAction.KEEP
    }  # fmt: skip
    assert steps(records, a=ONE, b=ABSENT, c=ONE) == {}


def test_a_plan_goes_back_through_all_changes():
    records = [EtcRecord("a", ONE, ABSENT), EtcRecord("a", ABSENT, TWO), EtcRecord("b", ABSENT, ONE)]
    assert steps(records, a=TWO, b=ABSENT) == {"a": EtcAction.WRITE}
    assert steps(records, a=ABSENT, b=ABSENT) == {"a": EtcAction.KEEP}
    there_and_back = [EtcRecord("a", ONE, TWO), EtcRecord("a", TWO, ONE)]
    assert steps(there_and_back, a=ONE) == {}


def test_the_plan_names_accounts():
    record = EtcRecord("passwd", passwd(*BEFORE), passwd(*AFTER))
    (step,) = plan_restore([record], {"passwd": passwd(*AFTER, "jane:x:1001:")})
    assert (step.action, "accounts" in step.reason) == (EtcAction.WRITE, True)


@given(st.lists(st.sampled_from(STATES), min_size=1, max_size=5))
def test_a_chain_of_changes_leads_back_to_its_beginning(states: list[FileState]):
    records = [EtcRecord("p", one, two) for one, two in itertools.pairwise(states)]
    planned = plan_restore(records, {"p": states[-1]})
    if not records or states[0] == states[-1]:
        assert planned == ()
    else:
        assert [s.action for s in planned] == [EtcAction.REMOVE if states[0] == ABSENT else EtcAction.WRITE]
