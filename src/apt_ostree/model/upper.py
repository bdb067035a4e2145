"""What the upper directories of an unlocked /usr say: which paths were written, and which removed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["directory", "whiteout", "other"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A path of an upper directory, relative to it; opaque: hides the directories of its name below it."""

    path: str
    kind: Kind
    opaque: bool = False


def changed_paths(uppers: Iterable[Iterable[Entry]]) -> dict[str, str]:
    """Return the paths that uppers, the oldest first, hold: "written" or "removed"."""
    return {
        entry.path: "removed" if entry.kind == "whiteout" else "written"
        for entries in uppers
        for entry in entries
        if entry.kind != "directory"
    }


def is_default_of_etc(path: str) -> bool:
    """Tell whether a path of /usr is one of the defaults of /etc, which belong to packages."""
    return path == "etc" or path.startswith("etc/")


def fold(
    uppers: Sequence[Iterable[Entry]], children: Callable[[str], Iterable[str]]
) -> dict[str, int | None]:
    """Return what uppers, the oldest first, make of a /usr: path -> index of the upper that has it.

    None is a path that is removed. children: gives the paths that the base has in a directory. Of each upper,
    directories come before what is in them.
    """
    result: dict[str, int | None] = {}
    for index, entries in enumerate(uppers):
        for entry in entries:
            path = entry.path
            if entry.kind != "directory" or entry.opaque:
                result = {p: upper for p, upper in result.items() if not p.startswith(f"{path}/")}
            # A directory that is made where one was removed, or in an opaque one, has no mark of its own.
            removed = entry.kind == "directory" and path in result and result[path] is None
            if entry.opaque or removed:
                result |= dict.fromkeys(children(path))
            result[path] = None if entry.kind == "whiteout" else index
    return result
