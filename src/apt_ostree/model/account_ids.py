"""Ids of the system accounts of successive trees: an account keeps its id, and no id is used again.

The machines' files in /var belong to ids. Pure values; the text is in the form of sysusers.d(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from apt_ostree.errors import Refused
from apt_ostree.model import accounts

_HEADER = "# Ids of the accounts of this tree and of earlier ones. Written by apt-ostree; not to be edited.\n"
#: Ids that base-passwd gives, the same on every Debian.
_STATIC = 100
#: Ids that packages get (adduser.conf(5)).
_SYSTEM = range(_STATIC, accounts.PEOPLE.start)


@dataclass(frozen=True, slots=True)
class Ids:
    """Name -> id of users and of groups."""

    users: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)

    def over(self, other: Ids) -> Ids:
        """Return these ids, and those of the other for all other names."""
        return Ids({**other.users, **self.users}, {**other.groups, **self.groups})


@dataclass(frozen=True, slots=True)
class Moves:
    """Old id -> new id of users and of groups, for the ids that change."""

    users: Mapping[int, int]
    groups: Mapping[int, int]

    def __bool__(self) -> bool:
        return bool(self.users or self.groups)


def of_accounts(passwd: str, group: str) -> Ids:
    """Return the ids of the system's accounts in passwd(5) and group(5) text."""
    users = {user.name: user.uid for user in accounts.parse_passwd(passwd)}
    groups = {entry.name: entry.gid for entry in accounts.parse_group(group)}
    return Ids(_of_system(users), _of_system(groups))


def _of_system(ids: Mapping[str, int]) -> dict[str, int]:
    return {name: number for name, number in ids.items() if number not in accounts.PEOPLE}


def parse(text: str) -> Ids:
    """Return the ids in sysusers.d(5) text; a group of a user's name has the same, if it has no line."""
    users = _of_kind("u", text)
    return Ids(users, {**users, **_of_kind("g", text)})


def parse_record(text: str) -> Ids:
    """Return the ids in text of `format_ids`, which names all groups."""
    return Ids(_of_kind("u", text), _of_kind("g", text))


def _of_kind(kind: str, text: str) -> dict[str, int]:
    lines = "\n".join(line for line in text.splitlines() if line.startswith(kind))
    rows = (entry.split() for entry in accounts.pinned(lines))
    return {name: int(number) for of, name, number in rows if of == kind}


def format_ids(ids: Ids) -> str:
    """Return sysusers.d(5) lines of the ids."""
    rows = [("g", number, name) for name, number in ids.groups.items()]
    rows += [("u", number, name) for name, number in ids.users.items()]
    return _HEADER + "".join(f"{kind} {name} {number}\n" for kind, number, name in sorted(rows))


def plan(current: Ids, kept: Ids, fixed: frozenset[str]) -> Moves:
    """Return which ids of a tree have to change so that accounts have the ids that they had.

    kept: ids of accounts now and earlier.
    fixed: ids that packages prescribe, in the form of `accounts.pinned`.

    Raises Refused, naming the accounts, if a package prescribes another id than the one that is kept.
    """
    users, user_drifts = _assign("u", current.users, kept.users, fixed)
    groups, group_drifts = _assign("g", current.groups, kept.groups, fixed)
    drifts = [*(f"user {text}" for text in user_drifts), *(f"group {text}" for text in group_drifts)]
    if drifts:
        raise Refused(
            "accounts would get other ids than in the ref's last commit; machines have files of the old ids",
            details=drifts,
            hint="give the treefile's account-ids a file with the ids that are to hold, or the value none",
        )
    return Moves(users, groups)


def _assign(
    kind: str, current: Mapping[str, int], kept: Mapping[str, int], fixed: frozenset[str]
) -> tuple[dict[int, int], list[str]]:
    """Return old id -> new id, and a text for each account whose id cannot be kept."""
    prescribed = {
        name: number
        for name, number in current.items()
        if number < _STATIC or f"{kind} {name} {number}" in fixed
    }
    result = {
        name: kept.get(name, number) for name, number in current.items() if name in {*kept, *prescribed}
    }
    drifts = [
        f"{name}: {result[name]} before, {number} now"
        for name, number in prescribed.items()
        if result[name] != number
    ]
    owners: dict[int, str] = {}
    for name in sorted(result, key=lambda name: (name not in kept, name)):
        if (number := result[name]) in owners:
            drifts.append(f"{name}: {number}, which is the id of {owners[number]}")
        owners.setdefault(number, name)
    taken = {*kept.values(), *result.values()}
    for name in sorted(set(current) - set(result)):
        number = current[name]
        result[name] = number if number not in taken else _free(taken, current.values())
        taken.add(result[name])
    return {number: result[name] for name, number in current.items() if result[name] != number}, sorted(
        drifts
    )


def _free(*taken: Iterable[int]) -> int:
    """Return the lowest id of the system that is free."""
    used = {number for numbers in taken for number in numbers}
    number = next((number for number in _SYSTEM if number not in used), None)
    if number is None:
        raise Refused("all ids of system accounts are taken", hint="give account-ids the value none once")
    return number


def moved_passwd(text: str, moves: Moves) -> str:
    """Return passwd(5) text with the new ids."""
    return _moved(text, {2: moves.users, 3: moves.groups})


def moved_group(text: str, moves: Moves) -> str:
    """Return group(5) text with the new ids."""
    return _moved(text, {2: moves.groups})


def shared(ids: Ids) -> frozenset[str]:
    """Return a text for each account that has the id of another one."""
    texts: set[str] = set()
    for kind, numbers in (("user", ids.users), ("group", ids.groups)):
        owners: dict[int, str] = {}
        for name, number in sorted(numbers.items()):
            if owners.setdefault(number, name) != name:
                texts.add(f"the {kind}s {owners[number]} and {name} have the id {number}")
    return frozenset(texts)


def changed(now: Ids, before: Ids) -> tuple[str, ...]:
    """Return a text for each account that had another id before."""
    kinds = (("user", now.users, before.users), ("group", now.groups, before.groups))
    return tuple(
        f"{kind} {name}: {old[name]} before, {number} now"
        for kind, new, old in kinds
        for name, number in sorted(new.items())
        if old.get(name, number) != number
    )


def unlike(tree: Ids, before: Ids, machine: Ids) -> tuple[str, ...]:
    """Return a text for each account of a new tree whose id is another account's on the machine, or another.

    before: the ids in the tree that is replaced, whose accounts are not named.
    """
    kinds = (
        ("user", tree.users, before.users, machine.users),
        ("group", tree.groups, before.groups, machine.groups),
    )
    return tuple(
        f"{kind} {name} has the id {number} in the tree, but {number_here}"
        for kind, new, old, here in kinds
        for name, number in sorted(new.items())
        if old.get(name) != number and (number_here := _on_machine(name, number, here))
    )


def _on_machine(name: str, number: int, machine: Mapping[str, int]) -> str:
    if name in machine:
        return f"{machine[name]} on this machine" if machine[name] != number else ""
    owner = next((other for other, taken in machine.items() if taken == number), "")
    return f"{owner} has it on this machine" if owner else ""


def _moved(text: str, columns: Mapping[int, Mapping[int, int]]) -> str:
    lines = []
    for line in text.splitlines():
        row = line.split(":")
        for column, ids in columns.items():
            if len(row) > column and row[column].isdecimal():
                row[column] = str(ids.get(int(row[column]), row[column]))
        lines.append(":".join(row))
    return "".join(f"{line}\n" for line in lines)
