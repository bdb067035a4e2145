"""The people of one system as accounts of another: a tree whose own accounts keep their ids.

Accounts are merged by name (passwd(5), group(5), shadow(5), gshadow(5), subuid(5)). Pure text in, text out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from apt_ostree.errors import Refused
from apt_ostree.model.accounts import (
    FILES,
    LOCKED,
    PEOPLE,
    SUBORDINATE_IDS,
    Group,
    User,
    parse_group,
    parse_passwd,
    without_names,
)

#: The files that are merged, in /etc.
ALL_FILES = (*FILES, *SUBORDINATE_IDS)
_SHELL = "/bin/bash"

Texts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Carried:
    """The accounts of the new system.

    texts: file -> its text.
    users: the people, by name.
    left: (what, reason) of what could not be kept.
    """

    texts: dict[str, str]
    users: tuple[str, ...]
    left: tuple[tuple[str, str], ...]


def carry(old: Texts, tree: Texts, has_program: Callable[[str], bool]) -> Carried:
    """Return the accounts of a tree with the people of another system, and root's password.

    has_program: whether the tree has a program, of an absolute path.

    Raises Refused if an id of a person is another account's in the tree.
    """
    people = [user for user in parse_passwd(old["passwd"]) if user.uid in PEOPLE]
    groups = [group for group in parse_group(old["group"]) if group.gid in PEOPLE]
    _refuse_taken(people, groups, tree)
    names = {user.name for user in people}
    ids = {group.gid: group.name for group in parse_group(old["group"])}
    of_tree = {group.name: group.gid for group in parse_group(tree["group"])}
    shells = {user.name: user.shell for user in people if not has_program(user.shell)}
    changed = [_as_in_tree(user, ids, of_tree, shells) for user in people]
    own = {group.name for group in groups}
    texts = {
        "passwd": without_names(tree["passwd"], frozenset(names)) + "".join(map(_passwd_line, changed)),
        "shadow": _passwords("shadow", old["shadow"], tree["shadow"], names, also={"root"}),
        "group": _groups(old, tree["group"], own, names),
        "gshadow": _gshadow(old, tree["gshadow"], own, names),
        **{name: _added(tree[name], old[name], names) for name in SUBORDINATE_IDS},
    }
    left = [(f"the shell {shell} of {name}", f"not in the tree: {_SHELL}") for name, shell in shells.items()]
    left += _groups_without_place(old, of_tree, own, names)
    return Carried(texts, tuple(sorted(names)), tuple(left))


def _refuse_taken(people: list[User], groups: list[Group], tree: Texts) -> None:
    users = {user.uid: user.name for user in parse_passwd(tree["passwd"])}
    theirs = {group.gid: group.name for group in parse_group(tree["group"])}
    taken = [
        f"user {user.name}: {user.uid}, which is {users[user.uid]} in the tree"
        for user in people
        if users.get(user.uid, user.name) != user.name
    ]
    taken += [
        f"group {group.name}: {group.gid}, which is {theirs[group.gid]} in the tree"
        for group in groups
        if theirs.get(group.gid, group.name) != group.name
    ]
    if taken:
        raise Refused(
            "ids of this machine's users are those of other accounts in the tree",
            details=taken,
            hint="leave accounts with ids from 1000 on out of the tree",
        )


def _as_in_tree(user: User, ids: Mapping[int, str], of_tree: Mapping[str, int], shells: Texts) -> User:
    """Return a user with the tree's id of the primary group, if that is a system's, and a shell it has."""
    gid = user.gid
    if gid not in PEOPLE:
        name = ids.get(gid, "")
        if name not in of_tree:
            raise Refused(
                f"the primary group of {user.name}, {name or gid}, is not in the tree",
                hint=f"give {user.name} a group of its own first: usermod --gid",
            )
        gid = of_tree[name]
    shell = _SHELL if user.name in shells else user.shell
    return User(user.name, user.uid, gid, user.gecos, user.home, shell)


def _passwd_line(user: User) -> str:
    return f"{user.name}:x:{user.uid}:{user.gid}:{user.gecos}:{user.home}:{user.shell}\n"


def _passwords(kind: str, old: str, tree: str, names: set[str], *, also: set[str]) -> str:
    """Return a file of passwords: the old lines of these names, and of others that both have."""
    lines = {line.partition(":")[0]: line for line in old.splitlines()}
    ours = names | {name for name in also if name in lines}
    rows = [lines.get(name, f"{name}:{LOCKED[kind]}") for name in sorted(ours)]
    return without_names(tree, frozenset(ours)) + "".join(f"{row}\n" for row in rows)


def _groups(old: Texts, tree: str, own: set[str], people: set[str]) -> str:
    members = {group.name: group.members for group in parse_group(old["group"])}
    kept = [line for line in old["group"].splitlines() if line.partition(":")[0] in own]
    lines = without_names(tree, frozenset(own)).splitlines()
    joined = [_joined(line, members.get(line.partition(":")[0], ()), people) for line in lines]
    return "".join(f"{line}\n" for line in (*joined, *kept))


def _gshadow(old: Texts, tree: str, own: set[str], people: set[str]) -> str:
    members = {group.name: group.members for group in parse_group(old["group"])}
    text = _passwords("gshadow", old["gshadow"], tree, own, also=set())
    lines = [_joined(line, members.get(line.partition(":")[0], ()), people) for line in text.splitlines()]
    return "".join(f"{line}\n" for line in lines)


def _joined(line: str, members: tuple[str, ...], people: set[str]) -> str:
    """Return a line of group(5) or gshadow(5), whose last field is its members, with these people, too."""
    before, colon, present = line.rpartition(":")
    there = [name for name in present.split(",") if name]
    return before + colon + ",".join(dict.fromkeys([*there, *(one for one in members if one in people)]))


def _added(tree: str, old: str, names: set[str]) -> str:
    ours = [line for line in old.splitlines() if line.partition(":")[0] in names]
    return without_names(tree, frozenset(names)) + "".join(f"{line}\n" for line in ours)


def _groups_without_place(
    old: Texts, of_tree: Mapping[str, int], own: set[str], people: set[str]
) -> Iterator[tuple[str, str]]:
    for group in parse_group(old["group"]):
        members = sorted(people.intersection(group.members))
        if members and group.name not in own and group.name not in of_tree:
            yield f"{', '.join(members)} in the group {group.name}", "the tree has no such group"
