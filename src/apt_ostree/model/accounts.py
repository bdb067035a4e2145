"""Users and groups of a tree as sysusers.d lines, for systems that keep their own /etc/passwd.

Pure text in, text out (passwd(5), group(5), shadow(5), sysusers.d(5)).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: The account files in /etc; only programs such as useradd write them, and no merge may change them.
FILES = ("passwd", "group", "shadow", "gshadow")
#: The files that systemd-sysusers(8) writes there: each with its backup.
WRITTEN = tuple(f"{name}{end}" for name in FILES for end in ("", "-"))
#: Ids that accounts may use in namespaces (subuid(5)).
SUBORDINATE_IDS = ("subuid", "subgid")
#: Ids of ordinary users (adduser(8)); they do not belong to a tree and are never described.
PEOPLE = range(1000, 60000)
_HEADER = "# Users and groups of this tree, with their ids. Written by apt-ostree; not to be edited.\n"
#: A password field that permits no login.
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
    """Return the users of passwd(5) text; invalid lines are skipped, as libc does."""
    rows = (line.split(":") for line in text.splitlines())
    return tuple(
        User(row[0], int(row[2]), int(row[3]), row[4], row[5], row[6])
        for row in rows
        if len(row) == 7 and row[2].isdecimal() and row[3].isdecimal()
    )


def parse_group(text: str) -> tuple[Group, ...]:
    """Return the groups of group(5) text; invalid lines are skipped, as libc does."""
    rows = (line.split(":") for line in text.splitlines())
    return tuple(
        Group(row[0], int(row[2]), tuple(name for name in row[3].split(",") if name))
        for row in rows
        if len(row) == 4 and row[2].isdecimal()
    )


def sysusers(
    users: Iterable[User], groups: Iterable[Group], *, existing: frozenset[str] = frozenset()
) -> str:
    """Return sysusers.d text that makes the system's users and groups with exactly these ids.

    existing: lines of other sysusers.d files, in the form of `pinned`; they are left out.
    """
    group_lines, member_lines = [], []
    for group in sorted(groups, key=lambda group: (group.gid, group.name)):
        if group.gid in PEOPLE:
            continue
        if f"g {group.name} {group.gid}" not in existing:
            group_lines.append(f"g {group.name} {group.gid}")
        member_lines += [f"m {member} {group.name}" for member in group.members]
    system_users = [user for user in users if user.uid not in PEOPLE]
    new_users = [user for user in system_users if f"u {user.name} {user.uid}" not in existing]
    user_lines = [_user_line(user) for user in sorted(new_users, key=lambda user: (user.uid, user.name))]
    names = {user.name for user in system_users}
    members = sorted(line for line in member_lines if line.split()[1] in names)
    return _HEADER + "".join(f"{line}\n" for line in group_lines + user_lines + members)


def pinned(text: str) -> frozenset[str]:
    """Return the entries with numeric ids: "u NAME UID" and "g NAME GID"; a user has both."""
    entries = set()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 3 or fields[0] not in {"u", "u!", "g"}:
            continue
        uid, _, gid = fields[2].partition(":")
        if not uid.isdecimal():
            continue
        entries.add(f"{fields[0][0]} {fields[1]} {uid}")
        if fields[0] != "g" and not gid:
            entries.add(f"g {fields[1]} {uid}")
    return frozenset(entries)


def without_change_dates(shadow: str) -> str:
    """Return shadow(5) text without the day of the last change for accounts that have no password.

    It is the day of the build, so that two builds would differ; without a login, passwords do not expire.
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


def without_names(text: str, removed: frozenset[str]) -> str:
    """Return an account file without these names."""
    return "".join(line for line in text.splitlines(keepends=True) if line.partition(":")[0] not in removed)


def changed_since(current: str, before: str, after: str) -> frozenset[str]:
    """Return the names that were added between `before` and `after` and have another line now.

    Names without a line now are not included: an interrupted undo has removed them already.
    """
    added = frozenset(after.splitlines()) - frozenset(before.splitlines())
    new = (names(after) - names(before)) & names(current)
    present = frozenset(current.splitlines())
    return frozenset(name for line in added - present if (name := line.partition(":")[0]) in new)


def described_names(sysusers_text: str) -> frozenset[str]:
    """Return the users and groups that sysusers.d text describes."""
    rows = (line.split() for line in sysusers_text.splitlines())
    return frozenset(row[1] for row in rows if len(row) > 1 and row[0] in {"u", "u!", "g"})


def described_accounts(sysusers_text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the users, and the groups, that sysusers.d text makes; each user has a group of its name."""
    rows = [row for line in sysusers_text.splitlines() if len(row := line.split()) > 1]
    users = frozenset(row[1] for row in rows if row[0] in {"u", "u!"})
    return users, users | {row[1] for row in rows if row[0] == "g"}


def lines_about(sysusers_text: str, chosen: frozenset[str]) -> list[str]:
    """Return the lines of sysusers.d text that make these users and groups, or make them members."""
    rows = ((line, line.split()) for line in sysusers_text.splitlines())
    return [
        line
        for line, row in rows
        if len(row) > 2 and (row[1] in chosen or (row[0] == "m" and row[2] in chosen))
    ]


#: File with passwords -> fields after the name of an account without one, as systemd-sysusers(8) writes them.
LOCKED = {"shadow": "!*:::::::", "gshadow": "!*::"}
#: File with the names -> file with their passwords.
_PASSWORDS = {"passwd": "shadow", "group": "gshadow"}


def lines_without_password(texts: Mapping[str, str]) -> dict[str, str]:
    """Return the text to add to shadow(5) and gshadow(5), so that each has all names of passwd and group.

    ostree merges /etc by files: of two that belong together, one may be the administrator's and one the
    tree's. An account that is only in one of them cannot be used.

    texts: the account files that exist.
    """
    added = {}
    for name, password_file in _PASSWORDS.items():
        if name in texts and password_file in texts:
            rows = [line.split(":") for line in texts[name].splitlines()]
            shadowed = {row[0] for row in rows if row[1:2] == ["x"]}
            missing = sorted(shadowed - names(texts[password_file]))
            if missing:
                added[password_file] = "".join(f"{account}:{LOCKED[password_file]}\n" for account in missing)
    return added
