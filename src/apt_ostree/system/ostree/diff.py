"""Reads the difference between the trees of two commits, pruning equal directories by checksum.

The cost depends on the directories that differ. (`OSTree.diff_dirs` cannot be called through introspection.)
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter

from apt_ostree.errors import ExternalFailure
from apt_ostree.model import layout
from apt_ostree.model.treediff import DirDiff, FileDiff, PathChange, flatten
from apt_ostree.system.ostree.gi_ostree import DAMAGE, OSTree, explained
from apt_ostree.system.ostree.repo import DirTree, Repo


def diff_commits(repo: Repo, old: str, new: str, subpath: str = "usr") -> DirDiff | None:
    """Return the difference between a directory of two commits, or None if it is the same in both."""
    before, after = directory_of(repo, old, subpath), directory_of(repo, new, subpath)
    return None if before == after else _diff(repo, "", before, after)


def changed_paths(repo: Repo, old: str, new: str) -> list[PathChange]:
    """Return all paths that differ between the trees of two commits; the path of their root is ""."""
    found = diff_commits(repo, old, new, "")
    if found is None:
        return []
    sides = [side[1] if side else "" for side in (found.old, found.new)]
    own = [PathChange("", found.kind, True, *sides)] if found.own_change else []
    return [*own, *flatten(found)]


def replaced(repo: Repo, old: str, new: str, subpath: str = "usr") -> dict[str, str]:
    """Return path -> file object in `new`, or "", of each file in a directory of `old` that differs there.

    What only `new` has is not read.
    """
    before, after = directory_of(repo, old, subpath), directory_of(repo, new, subpath)
    return dict(_replaced(repo, before, after, "")) if before and before != after else {}


def _replaced(
    repo: Repo, old: tuple[str, str], new: tuple[str, str] | None, prefix: str
) -> Iterator[tuple[str, str]]:
    old_files, old_dirs = read_dirtree(repo, old[0])
    new_files, new_dirs = read_dirtree(repo, new[0]) if new else ({}, {})
    for name, checksum in old_files.items():
        if new_files.get(name) != checksum:
            yield f"{prefix}{name}", new_files.get(name, "")
    for name, below in old_dirs.items():
        if new_dirs.get(name) != below:
            yield from _replaced(repo, below, new_dirs.get(name), f"{prefix}{name}/")


def directory_of(repo: Repo, commit: str, path: str) -> tuple[str, str] | None:
    """Return the checksums (contents, metadata) of a directory in a commit, or None if there is none."""
    return directory_in(repo, repo.tree_checksums(commit), path)


def directory_in(repo: Repo, directory: tuple[str, str] | None, path: str) -> tuple[str, str] | None:
    """Return the checksums (contents, metadata) of a directory in another one, or None if there is none."""
    for name in filter(None, path.split("/")):
        if directory is None:
            return None
        directory = read_dirtree(repo, directory[0])[1].get(name)
    return directory


def file_of(repo: Repo, commit: str, path: str) -> str | None:
    """Return the checksum of a file in a commit, or None if there is none."""
    return file_in(repo, repo.tree_checksums(commit), path)


def file_in(repo: Repo, root: tuple[str, str], path: str) -> str | None:
    """Return the checksum of a file in a directory, or None if there is none."""
    parent, _, name = path.rpartition("/")
    directory = directory_in(repo, root, parent)
    return read_dirtree(repo, directory[0])[0].get(name) if directory else None


def directories_beside_usr(repo: Repo, commit: str) -> dict[str, int]:
    """Return name -> mode of the directories that packages have in the root of a commit (/snap)."""
    _files, dirs = read_dirtree(repo, repo.tree_checksums(commit)[0])
    own = dirs.keys() - layout.TOP_NAMES
    return {name: repo.directory_state(dirs[name][1]).mode for name in sorted(own)}


def read_dirtree(repo: Repo, contents: str) -> DirTree:
    """Return a directory object; it must not be changed, as it is cached.

    Several comparisons of one transaction share most of their directories.
    """
    dirtree = repo.dirtrees.get(contents)
    if dirtree is None:
        dirtree = repo.dirtrees[contents] = _read_dirtree(repo, contents)
    return dirtree


def _read_dirtree(repo: Repo, contents: str) -> DirTree:
    with explained(f"read the directory object {contents[:12]}", hint=DAMAGE):
        _ok, variant = repo.handle.load_variant(OSTree.ObjectType.DIR_TREE, contents)
    if not variant.get_size():  # a power cut may leave an empty file, which would pass for no entries
        raise ExternalFailure(f"the directory object {contents[:12]} is damaged", hint=DAMAGE)
    # It reads all entries at once, eight times faster than Python reads the variant; its own metadata, which
    # the second checksum stands for, is not read.
    tree = OSTree.MutableTree.new_from_checksum(repo.handle, contents, contents)
    subdirs = sorted(tree.get_subdirs().items(), key=itemgetter(0))
    dirs = {name: (sub.get_contents_checksum(), sub.get_metadata_checksum()) for name, sub in subdirs}
    return dict(sorted(tree.get_files().items())), dirs


def _diff(repo: Repo, name: str, old: tuple[str, str] | None, new: tuple[str, str] | None) -> DirDiff:
    old_files, old_dirs = read_dirtree(repo, old[0]) if old else ({}, {})
    new_files, new_dirs = read_dirtree(repo, new[0]) if new else ({}, {})
    files = tuple(
        FileDiff(entry, old_files.get(entry, ""), new_files.get(entry, ""))
        for entry in sorted(old_files.keys() | new_files.keys())
        if old_files.get(entry) != new_files.get(entry)
    )
    dirs = tuple(
        _diff(repo, entry, old_dirs.get(entry), new_dirs.get(entry))
        for entry in sorted(old_dirs.keys() | new_dirs.keys())
        if old_dirs.get(entry) != new_dirs.get(entry)
    )
    return DirDiff(name, old, new, files, dirs)


__all__ = [
    "changed_paths",
    "diff_commits",
    "directories_beside_usr",
    "directory_in",
    "directory_of",
    "file_in",
    "file_of",
    "read_dirtree",
    "replaced",
]
