"""The difference between two trees (or directories of them), as nested directories.

It contains only directories that differ, so that its size depends on the change and not on the trees. Objects
are named by their checksums in the repository; a file's checksum covers its content, owner, mode and xattrs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """How an entry differs."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class FileDiff:
    """A file or symlink that differs.

    old: the old checksum, or empty if it was added.
    new: the new checksum, or empty if it was removed.
    """

    name: str
    old: str
    new: str

    @property
    def kind(self) -> Kind:
        """Return how it differs."""
        if not self.old:
            return Kind.ADDED
        return Kind.CHANGED if self.new else Kind.REMOVED


@dataclass(frozen=True, slots=True)
class DirDiff:
    """A directory with differences below it, or whose own metadata differs.

    old, new: (contents checksum, metadata checksum), or None if it does not exist on that side.
    files: files in it that differ.
    dirs: directories in it that differ.
    """

    name: str
    old: tuple[str, str] | None
    new: tuple[str, str] | None
    files: tuple[FileDiff, ...] = ()
    dirs: tuple[DirDiff, ...] = ()

    @property
    def kind(self) -> Kind:
        """Return how the directory differs; CHANGED also if only its contents do."""
        if self.old is None:
            return Kind.ADDED
        return Kind.CHANGED if self.new is not None else Kind.REMOVED

    @property
    def own_change(self) -> bool:
        """Return whether the directory was added, removed, or has other metadata."""
        return self.old is None or self.new is None or self.old[1] != self.new[1]


@dataclass(frozen=True, slots=True)
class PathChange:
    """One path of a flattened difference.

    old, new: checksums of the file objects, or of the metadata objects of a directory; empty for none.
    """

    path: str
    kind: Kind
    is_dir: bool
    old: str = field(default="", compare=False)
    new: str = field(default="", compare=False)


def flatten(diff: DirDiff | None, prefix: str = "") -> Iterator[PathChange]:
    """Yield every differing path, parents before children; paths begin with `prefix`."""
    if diff is None:
        return
    for entry in diff.files:
        yield PathChange(f"{prefix}{entry.name}", entry.kind, False, entry.old, entry.new)
    for directory in diff.dirs:
        path = f"{prefix}{directory.name}"
        if directory.own_change:
            metadata = [side[1] if side else "" for side in (directory.old, directory.new)]
            yield PathChange(path, directory.kind, True, *metadata)
        yield from flatten(directory, f"{path}/")


def without(diff: DirDiff, path: str, kinds: frozenset[Kind]) -> DirDiff:
    """Return the difference without entries of these kinds at and below a path (relative to `diff`).

    A removed parent directory is kept if a path below it is kept.
    """
    head, _, rest = path.partition("/")
    dirs = []
    kept = False
    for directory in diff.dirs:
        if directory.name != head:
            dirs.append(directory)
            continue
        pruned = without(directory, rest, kinds) if rest else _prune(directory, kinds)
        kept = directory.new is None and (pruned is None or pruned.new is not None)
        if pruned:
            dirs.append(pruned)
    new = diff.old if kept and diff.new is None else diff.new
    return DirDiff(diff.name, diff.old, new, diff.files, tuple(dirs))


def _prune(diff: DirDiff, kinds: frozenset[Kind]) -> DirDiff | None:
    if diff.kind in kinds and diff.kind is not Kind.CHANGED:
        return None
    files = tuple(entry for entry in diff.files if entry.kind not in kinds)
    dirs = tuple(kept for directory in diff.dirs if (kept := _prune(directory, kinds)))
    new = diff.new
    if diff.old and new and Kind.CHANGED in kinds:
        new = (new[0], diff.old[1])  # its own metadata is kept
    pruned = DirDiff(diff.name, diff.old, new, files, dirs)
    return pruned if files or dirs or pruned.own_change else None
