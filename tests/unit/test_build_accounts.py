"""The account files of a build: the tree gets what scripts added to the machine's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model import accounts, build_accounts

_users = st.sampled_from(["root", "daemon", "joe", "jane", "fx", "sshd", "_apt"])
_files = st.dictionaries(_users, st.integers(0, 99999), max_size=6).map(
    lambda d: "".join(f"{name}:x:{number}:\n" for name, number in d.items())
)


def _names(text: str) -> set[str]:
    return {line.partition(":")[0] for line in text.splitlines()}


@given(st.sampled_from(accounts.FILES), _files, _files, _files)
def test_the_tree_gets_what_was_added_and_nothing_of_the_machine(
    name: str, tree: str, machine: str, added: str
):
    new = [line for line in added.splitlines() if line.partition(":")[0] not in _names(machine)]
    after = machine + "".join(f"{line}\n" for line in new)
    result = build_accounts.harvest(name, tree, machine, after)
    fresh = [line for line in new if line.partition(":")[0] not in _names(tree)]
    assert result == tree + "".join(f"{line}\n" for line in fresh)


def test_accounts_that_were_here_already_come_without_their_passwords():
    tree, machine = "root:*:::::::\n", "root:$secret:::::::\nfx:$secret:::::::\njoe:$secret:::::::\n"
    assert (
        build_accounts.harvest("shadow", tree, machine, machine, used=frozenset({"fx"}))
        == tree + "fx:!*:::::::\n"
    )
    passwd = "root:x:0:0::/:/bin/sh\nfx:x:9:9::/:/bin/sh\n"
    assert (
        build_accounts.harvest("passwd", "", passwd, passwd, used=frozenset({"fx"}))
        == passwd.splitlines()[1] + "\n"
    )


def test_members_that_scripts_add_to_a_group():
    tree, before = "ssl:x:100:www\nadm:x:4:\n", "ssl:x:100:www,joe\nadm:x:4:joe\n"
    after = "ssl:x:100:www,joe,postgres\nadm:x:4:joe\npostgres:x:101:\n"
    assert build_accounts.harvest("group", tree, before, after) == (
        "ssl:x:100:www,postgres\nadm:x:4:\npostgres:x:101:\n"
    )


@given(_files, _files)
def test_pending_accounts_are_added_to_those_of_the_machine(machine: str, tree: str):
    text = build_accounts.completed(machine, tree)
    assert text.startswith(machine)
    assert _names(text) == _names(machine) | _names(tree)
    assert build_accounts.completed(text, tree) == text
