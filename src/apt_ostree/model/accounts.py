"""Users and groups of a tree as sysusers.d lines: a system whose own /etc/passwd wins still gets them.

Pure text in, text out (passwd(5), group(5), shadow(5), sysusers.d(5)).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

#: What describes accounts below /etc; programs write them, and nothing else may be merged into them.
FILES = ("passwd", "group", "shadow", "gshadow")
#: What systemd-sysusers(8) writes there: each with a backup beside it.
WRITTEN = tuple(f"{name}{end}" for name in FILES for end in ("", "-"))
#: Ids that accounts may use in namespaces (subuid(5)).
SUBORDINATE_IDS = ("subuid", "subgid")
#: Ids given to people (adduser(8)); they are no part of a system and never described.
PEOPLE = range(1000, 60000)
_HEADER = "# Users and groups of this tree, with their ids. Written by apt-ostree; not to be edited.\n"
#: A password field that nobody can log in with.
_LOCKED = re.compile(r"[*!]*")


@dataclass(frozen=True, slots=True)
class User:
    """A line of passwd(5), without the password."""

    name: str
    uid: int
    gid: int
    gecos: str
    home: str
    shell: str


@dataclass(frozen=True, slots=True)
class Group:
    """A line of group(5), without the password."""

    name: str
    gid: int
    members: tuple[str, ...] = ()


def parse_passwd(text: str) -> tuple[User, ...]:
    """Return the users of passwd(5) text; broken lines are passed over, as libc does."""
    rows = (line.split(":") for line in text.splitlines())
    return tuple(
        User(row[0], int(row[2]), int(row[3]), row[4], row[5], row[6])
        for row in rows
        if len(row) == 7 and row[2].isdecimal() and row[3].isdecimal()
    )


def parse_group(text: str) -> tuple[Group, ...]:
    """Return the groups of group(5) text; broken lines are passed over, as libc does."""
    rows = (line.split(":") for line in text.splitlines())
    return tuple(
        Group(row[0], int(row[2]), tuple(name for name in row[3].split(",") if name))
        for row in rows
        if len(row) == 4 and row[2].isdecimal()
    )


def sysusers(users: Iterable[User], groups: Iterable[Group], *, known: frozenset[str] = frozenset()) -> str:
    """Return sysusers.d text that makes the system's users and groups with exactly these ids.

    known: lines that other sysusers.d files hold already, in the form of `pinned`; they are left out.
    """
    group_lines, member_lines = [], []
    for group in sorted(groups, key=lambda group: (group.gid, group.name)):
        if group.gid in PEOPLE:
            continue
        if f"g {group.name} {group.gid}" not in known:
            group_lines.append(f"g {group.name} {group.gid}")
        member_lines += [f"m {member} {group.name}" for member in group.members]
    system_users = [user for user in users if user.uid not in PEOPLE]
    new_users = [user for user in system_users if f"u {user.name} {user.uid}" not in known]
    user_lines = [_user_line(user) for user in sorted(new_users, key=lambda user: (user.uid, user.name))]
    names = {user.name for user in system_users}
    members = sorted(line for line in member_lines if line.split()[1] in names)
    return _HEADER + "".join(f"{line}\n" for line in group_lines + user_lines + members)


def pinned(text: str) -> frozenset[str]:
    """Return what sysusers.d text fixes to a number: "u NAME UID" and "g NAME GID" (both, for a user)."""
    found = set()
    for line in text.splitlines():
        words = line.split()
        if len(words) < 3 or words[0] not in {"u", "u!", "g"}:
            continue
        uid, _, gid = words[2].partition(":")
        if not uid.isdecimal():
            continue
        found.add(f"{words[0][0]} {words[1]} {uid}")
        if words[0] != "g" and not gid:
            found.add(f"g {words[1]} {uid}")
    return frozenset(found)


def without_change_dates(shadow: str) -> str:
    """Return shadow(5) text without the day of the last change for accounts that have no password.

    The day is that of the build, so two builds would differ; ageing means nothing where nobody logs in.
    """
    lines = []
    for line in shadow.splitlines():
        row = line.split(":")
        if len(row) == 9 and _LOCKED.fullmatch(row[1]):
            row[2] = ""
        lines.append(":".join(row))
    return "".join(f"{line}\n" for line in lines)


def _user_line(user: User) -> str:
    fields = [_quote(user.gecos), _quote(user.home), _quote(user.shell)]
    return f"u {user.name} {user.uid}:{user.gid} {' '.join(fields)}"


def _quote(text: str) -> str:
    if not text:
        return "-"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if re.search(r"\s", text) or escaped != text else text


def names(text: str) -> frozenset[str]:
    """Return the names in an account file (passwd, group, shadow, gshadow)."""
    return frozenset(line.partition(":")[0] for line in text.splitlines() if line)


def without_names(text: str, gone: frozenset[str]) -> str:
    """Return an account file without these names."""
    return "".join(line for line in text.splitlines(keepends=True) if line.partition(":")[0] not in gone)


def changed_since(current: str, before: str, after: str) -> frozenset[str]:
    """Return the names that were added between `before` and `after` and have another line now.

    One that is gone is not among them: an undo that was interrupted had come to this file already.
    """
    added = frozenset(after.splitlines()) - frozenset(before.splitlines())
    new = (names(after) - names(before)) & names(current)
    present = frozenset(current.splitlines())
    return frozenset(name for line in added - present if (name := line.partition(":")[0]) in new)


def described_names(sysusers_text: str) -> frozenset[str]:
    """Return the users and groups that sysusers.d text describes."""
    rows = (line.split() for line in sysusers_text.splitlines())
    return frozenset(row[1] for row in rows if len(row) > 1 and row[0] in {"u", "u!", "g"})
