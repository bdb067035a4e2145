"""Ids of accounts from one tree to the next."""

from __future__ import annotations

import pytest

from apt_ostree.errors import Refused
from apt_ostree.model import account_ids
from apt_ostree.model.account_ids import Ids, Moves

NONE: frozenset[str] = frozenset()


def plan(current: dict[str, int], kept: dict[str, int], fixed: frozenset[str] = NONE) -> dict[int, int]:
    """Return the moves of users; groups are moved by the same rules."""
    moves = account_ids.plan(Ids(users=current), Ids(users=kept), fixed)
    assert account_ids.plan(Ids(groups=current), Ids(groups=kept), frozenset(f"g{e[1:]}" for e in fixed)) == (
        Moves({}, moves.users)
    )
    return dict(moves.users)


def test_the_first_tree_takes_the_ids_that_there_are():
    assert plan({"root": 0, "a": 100, "b": 998}, {}) == {}
    assert not account_ids.plan(Ids({"a": 100}), Ids({"a": 100, "gone": 101}), NONE)


def test_accounts_change_places():
    assert plan({"a": 101, "b": 100}, {"a": 100, "b": 101}) == {101: 100, 100: 101}


def test_a_new_account_makes_room():
    assert plan({"new": 100, "a": 101}, {"a": 100}) == {101: 100, 100: 102}


def test_an_id_of_an_earlier_account_is_not_used_again():
    assert plan({"new": 100}, {"gone": 100}) == {100: 101}


def test_new_accounts_get_the_same_ids_whatever_their_order():
    kept = {"gone": 100, "away": 101}
    one, other = plan({"x": 100, "y": 101}, kept), plan({"y": 101, "x": 100}, kept)
    assert one == other == {100: 102, 101: 103}


def test_what_a_package_prescribes_is_a_drift():
    with pytest.raises(Refused) as caught:
        plan({"net": 998}, {"net": 997}, frozenset({"u net 998"}))
    assert caught.value.details == ("user net: 997 before, 998 now",)
    with pytest.raises(Refused) as caught:
        plan({"games": 5}, {"games": 105})
    assert "games: 105 before, 5 now" in caught.value.details[0]


def test_a_prescribed_id_that_another_account_has():
    with pytest.raises(Refused) as caught:
        plan({"a": 101, "net": 998}, {"a": 998}, frozenset({"u net 998"}))
    assert caught.value.details == ("user net: 998, which is the id of a",)


def test_a_prescribed_id_that_stays():
    assert plan({"net": 998, "games": 5}, {"net": 998, "games": 5}, frozenset({"u net 998"})) == {}


PASSWD = "root:x:0:0:root:/root:/bin/bash\na:x:101:102::/:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n"
GROUP = "root:x:0:\na:x:102:me\nme:x:1000:\n"


def test_account_files_get_the_new_ids():
    moves = Moves({101: 100}, {102: 103})
    assert account_ids.moved_passwd(PASSWD, moves) == PASSWD.replace("101:102", "100:103")
    assert account_ids.moved_group(GROUP, moves) == GROUP.replace("102", "103")


def test_ids_are_of_the_system_and_read_as_written():
    ids = account_ids.of_accounts(PASSWD, GROUP)
    assert ids == Ids({"root": 0, "a": 101}, {"root": 0, "a": 102})
    assert account_ids.parse_record(account_ids.format_ids(ids)) == ids


def test_a_file_of_sysusers_d():
    text = '# x\ng g 7\nu a 101 "An account" /\nu b 102:7 - /\nu c - - /\nm a g\n'
    assert account_ids.parse(text) == Ids({"a": 101, "b": 102}, {"g": 7, "a": 101, "b": 102})


def test_the_first_ids_win():
    assert Ids({"a": 1}, {}).over(Ids({"a": 2, "b": 3}, {"a": 2})) == Ids({"a": 1, "b": 3}, {"a": 2})


@pytest.mark.parametrize(
    ("machine", "notes"),
    [
        ({"root": 0, "a": 100, "new": 101}, ()),
        ({"root": 0}, ()),
        ({"mine": 101}, ("user new has the id 101 in the tree, but mine has it on this machine",)),
        ({"new": 105}, ("user new has the id 101 in the tree, but 105 on this machine",)),
        ({"a": 999, "b": 100}, ()),  # it was so before
    ],
)
def test_ids_of_a_new_tree_that_mean_others_on_the_machine(machine: dict[str, int], notes: tuple[str, ...]):
    tree, before = {"root": 0, "a": 100, "new": 101}, {"root": 0, "a": 100}
    assert account_ids.unlike(Ids(tree), Ids(before), Ids(machine)) == notes
    of_groups = tuple(note.replace("user", "group") for note in notes)
    assert account_ids.unlike(Ids({}, tree), Ids({}, before), Ids({}, machine)) == of_groups


def test_accounts_with_one_id():
    ids = {"root": 0, "a": 100, "b": 100, "c": 100}
    of_users = {"the users a and b have the id 100", "the users a and c have the id 100"}
    assert account_ids.shared(Ids(ids, {"a": 100, "b": 101})) == of_users
    assert account_ids.shared(Ids({}, ids)) == {text.replace("users", "groups") for text in of_users}
    assert account_ids.shared(Ids({"a": 100}, {"b": 100})) == frozenset()
