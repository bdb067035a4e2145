"""Account files of a build: scripts get the host's ids, but the tree must not keep the host's accounts.

/etc/passwd is always modified on a running system, so that ostree's merge keeps the host's. A build starts
from the accounts of the tree and the host, so that the user of a package gets an id that is free on this
host; the accounts of the host alone are removed afterwards. Pure text in, text out.
"""

from __future__ import annotations

#: Account file with passwords -> fields of a seeded line after the name.
LOCKED = {"shadow": "*:::::::", "gshadow": "!::"}

_FIRST_PERSON = 1000  # lowest id of an ordinary user (adduser(8))


def seed(name: str, tree: str, host: str) -> str:
    """Return the tree's account file with additional names of the host's; passwords are never copied."""
    tree_names = _names(tree)
    locked = LOCKED.get(name)
    extra = [
        f"{line.partition(':')[0]}:{locked}" if locked else line
        for line in host.splitlines()
        if line and line.partition(":")[0] not in tree_names
    ]
    return "".join(f"{line}\n" for line in [*tree.splitlines(), *extra])


def harvest(tree: str, seeded: str, result: str, *, used: frozenset[str] = frozenset()) -> str:
    """Return an account file after the build (`result`), without the names that were only seeded.

    used: seeded names that are kept, as a script of a package would have created them otherwise.
    """
    foreign = _names(seeded) - _names(tree) - used
    kept = [line for line in result.splitlines() if line.partition(":")[0] not in foreign]
    return "".join(f"{line}\n" for line in kept)


def used_names(text: str, owners: frozenset[int]) -> frozenset[str]:
    """Return the system accounts of passwd(5) or group(5) text whose ids own files of the build."""
    rows = (line.split(":") for line in text.splitlines())
    return frozenset(
        row[0]
        for row in rows
        if len(row) > 3 and row[2].isdecimal() and 0 < int(row[2]) < _FIRST_PERSON and int(row[2]) in owners
    )


def _names(text: str) -> frozenset[str]:
    return frozenset(line.partition(":")[0] for line in text.splitlines() if line)
