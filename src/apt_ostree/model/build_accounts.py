"""Account files of a build: scripts add to the machine's, and the tree gets what they added.

So the user of a package has an id that is free on this machine, and the tree does not get the accounts of the
machine. Pure text in, text out.
"""

from __future__ import annotations

from apt_ostree.model import accounts

_FIRST_PERSON = accounts.PEOPLE.start


def completed(machine: str, tree: str) -> str:
    """Return the machine's account file with the lines of names that only the tree has."""
    names = accounts.names(machine)
    extra = [line for line in tree.splitlines() if line and _name(line) not in names]
    return "".join(f"{line}\n" for line in [*machine.splitlines(), *extra]) if extra else machine


def harvest(name: str, tree: str, before: str, after: str, *, used: frozenset[str] = frozenset()) -> str:
    """Return the tree's account file with what scripts added to the machine's.

    name: of the file.
    before, after: the machine's file before and after the scripts ran.
    used: names that the machine had already and that the tree gets, too; without their passwords.
    """
    old, members = accounts.names(before), _added_members(name, before, after)
    lines = [_with_members(line, members.get(_name(line), [])) for line in tree.splitlines()]
    for line in after.splitlines():
        account = _name(line)
        if account in accounts.names(tree) or not line:
            continue
        if account not in old:
            lines.append(line)
        elif account in used:
            lines.append(f"{account}:{accounts.LOCKED[name]}" if name in accounts.LOCKED else line)
    return "".join(f"{line}\n" for line in lines)


def _added_members(name: str, before: str, after: str) -> dict[str, list[str]]:
    """Return group -> members that scripts added to it, of group(5) and gshadow(5)."""
    if name not in ("group", "gshadow"):
        return {}
    old = {_name(line): line.rpartition(":")[2].split(",") for line in before.splitlines()}
    new = {_name(line): line.rpartition(":")[2].split(",") for line in after.splitlines()}
    return {
        group: [member for member in members if member and member not in old[group]]
        for group, members in new.items()
        if group in old
    }


def _with_members(line: str, members: list[str]) -> str:
    head, _, present = line.rpartition(":")
    every = dict.fromkeys([*filter(None, present.split(",")), *members])
    return f"{head}:{','.join(every)}" if members else line


def _name(line: str) -> str:
    return line.partition(":")[0]


def used_names(text: str, owners: frozenset[int]) -> frozenset[str]:
    """Return the system accounts of passwd(5) or group(5) text whose ids own files of the build."""
    rows = (line.split(":") for line in text.splitlines())
    return frozenset(
        row[0]
        for row in rows
        if len(row) > 3 and row[2].isdecimal() and 0 < int(row[2]) < _FIRST_PERSON and int(row[2]) in owners
    )
