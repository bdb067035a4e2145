"""useradd(8): accounts in a tree that is not running, without entering it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.errors import Refused
from apt_ostree.system import process

PROGRAMS: Mapping[str, str] = {"useradd": "passwd"}
_SHELL = "/bin/bash"
_EXISTS = 9


@dataclass(frozen=True, slots=True)
class Account:
    """An account. home: in the tree."""

    name: str
    uid: int
    gid: int
    home: str


def add(root: Path, name: str, groups: Sequence[str]) -> Account:
    """Add a user without a password and without a home directory, and return the account.

    groups: those of them that the tree has become the user's, too.

    Raises Refused if there is such an account.
    """
    present = _names(root / "etc/group")
    also = [group for group in groups if group in present]
    command: list[str | Path] = [
        "useradd",
        "--prefix",
        root,
        "--no-create-home",
        "--user-group",
        "--shell",
        _SHELL,
    ]
    command += ["--groups", ",".join(also)] if also else []
    done = process.run([*command, name], what=f"add the user {name}", check=False)
    if done.returncode == _EXISTS:
        raise Refused(f"the tree has an account {name!r} already", hint="choose another name for --user")
    if done.returncode:
        raise process.failure(f"add the user {name}", done, done.stderr)
    return account(root, name)


def account(root: Path, name: str) -> Account:
    """Return an account of a tree. Raises KeyError if there is none."""
    rows = (line.split(":") for line in (root / "etc/passwd").read_text().splitlines())
    found = {row[0]: row for row in rows if len(row) > 6}[name]
    return Account(name, int(found[2]), int(found[3]), found[5])


def _names(path: Path) -> frozenset[str]:
    return frozenset(line.partition(":")[0] for line in path.read_text().splitlines())
