"""Reads the difference between two commits' trees, pruning equal directories by checksum.

The cost follows the directories that differ. (`OSTree.diff_dirs` cannot be called through introspection.)
"""

from __future__ import annotations

from apt_ostree.errors import ExternalFailure
from apt_ostree.model.treediff import DirDiff, FileDiff
from apt_ostree.system.ostree.gi_ostree import DAMAGE, OSTree, explained
from apt_ostree.system.ostree.repo import Repo, Tree


def diff_commits(repo: Repo, old: str, new: str, subpath: str = "usr") -> DirDiff | None:
    """Compare a directory of two commits; None when it is the same in both."""
    before, after = directory_of(repo, old, subpath), directory_of(repo, new, subpath)
    return None if before == after else _diff(repo, "", before, after)


def directory_of(repo: Repo, commit: str, path: str) -> tuple[str, str] | None:
    """Return the checksums (contents, metadata) of a directory in a commit, or None."""
    found: tuple[str, str] | None = repo.tree_checksums(commit)
    for name in filter(None, path.split("/")):
        if found is None:
            return None
        found = read_tree(repo, found[0])[1].get(name)
    return found


def file_of(repo: Repo, commit: str, path: str) -> str | None:
    """Return the checksum of a file in a commit, or None."""
    parent, _, name = path.rpartition("/")
    directory = directory_of(repo, commit, parent)
    return read_tree(repo, directory[0])[0].get(name) if directory else None


def read_tree(repo: Repo, contents: str) -> Tree:
    """Return a dirtree: files by name (checksum), directories by name (contents, metadata); do not change it.

    What was read is remembered: several comparisons of one call share most of their trees.
    """
    known = repo.trees.get(contents)
    if known is None:
        known = repo.trees[contents] = _read_tree(repo, contents)
    return known


def _read_tree(repo: Repo, contents: str) -> Tree:
    with explained(f"read the directory object {contents[:12]}", hint=DAMAGE):
        _ok, variant = repo.handle.load_variant(OSTree.ObjectType.DIR_TREE, contents)
    if not variant.get_size():  # a power cut may leave an empty file, which would pass for no entries
        raise ExternalFailure(f"the directory object {contents[:12]} is damaged", hint=DAMAGE)
    # Reading the checksums through OSTree is 15 times faster than unpacking byte arrays in Python.
    checksum = OSTree.checksum_from_bytes_v
    files, dirs = {}, {}
    rows = variant.get_child_value(0)
    for index in range(rows.n_children()):
        row = rows.get_child_value(index)
        files[row.get_child_value(0).get_string()] = checksum(row.get_child_value(1))
    rows = variant.get_child_value(1)
    for index in range(rows.n_children()):
        row = rows.get_child_value(index)
        name = row.get_child_value(0).get_string()
        dirs[name] = (checksum(row.get_child_value(1)), checksum(row.get_child_value(2)))
    return files, dirs


def _diff(repo: Repo, name: str, old: tuple[str, str] | None, new: tuple[str, str] | None) -> DirDiff:
    old_files, old_dirs = read_tree(repo, old[0]) if old else ({}, {})
    new_files, new_dirs = read_tree(repo, new[0]) if new else ({}, {})
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


__all__ = ["diff_commits", "directory_of", "file_of", "read_tree"]
