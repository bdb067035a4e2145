"""The changes in the upper directories of an unlocked /usr: written and removed paths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["directory", "whiteout", "other"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A path of an upper directory.

    path: relative to the upper directory.
    opaque: a directory that hides the same path in lower directories.
    """

    path: str
    kind: Kind
    opaque: bool = False


def changed_paths(uppers: Iterable[Iterable[Entry]]) -> dict[str, str]:
    """Return path -> "written" or "removed", for the entries of upper directories, the oldest first."""
    return {
        entry.path: "removed" if entry.kind == "whiteout" else "written"
        for entries in uppers
        for entry in entries
        if entry.kind != "directory"
    }


def is_default_of_etc(path: str) -> bool:
    """Return whether a path of /usr lies in /usr/etc, the defaults of /etc."""
    return path == "etc" or path.startswith("etc/")


def fold(
    uppers: Sequence[Iterable[Entry]], children: Callable[[str], Iterable[str]]
) -> dict[str, int | None]:
    """Return the combined changes of upper directories: path -> index of the upper that has it, or None.

    None is a removed path.

    uppers: the entries of each, the oldest upper first, a directory before its contents.
    children: returns the paths that the base has in a directory.
    """
    result: dict[str, int | None] = {}
    for index, entries in enumerate(uppers):
        for entry in entries:
            path = entry.path
            if entry.kind != "directory" or entry.opaque:
                result = {p: upper for p, upper in result.items() if not p.startswith(f"{path}/")}
            # A directory created in place of a removed one, or in an opaque one, is not marked as opaque.
            removed = entry.kind == "directory" and path in result and result[path] is None
            if entry.opaque or removed:
                result |= dict.fromkeys(children(path))
            result[path] = None if entry.kind == "whiteout" else index
    return result
