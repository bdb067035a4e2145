"""Account files of a build: scripts must see the host's ids, the tree must not keep the host's accounts.

/etc/passwd is always modified on a running system, so ostree's merge keeps the host's. A package's user
gets an id that is free on this host because the build starts from both lists; afterwards everything that
came from the host alone is dropped again. Pure text in, text out.
"""

from __future__ import annotations

#: Account file with passwords -> what a seeded line holds after the name.
LOCKED = {"shadow": "*:::::::", "gshadow": "!::"}

_FIRST_PERSON = 1000  # ids from here on belong to people (adduser(8))


def seed(name: str, tree: str, host: str) -> str:
    """Return the tree's account file with the host's further names; passwords are never copied."""
    known = _names(tree)
    locked = LOCKED.get(name)
    extra = [
        f"{line.partition(':')[0]}:{locked}" if locked else line
        for line in host.splitlines()
        if line and line.partition(":")[0] not in known
    ]
    return "".join(f"{line}\n" for line in [*tree.splitlines(), *extra])


def harvest(tree: str, seeded: str, result: str, *, used: frozenset[str] = frozenset()) -> str:
    """Return what the build made of the tree's account file, without the names that were only seeded.

    used: seeded names that stay. A package's script found them and would have made them otherwise.
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
