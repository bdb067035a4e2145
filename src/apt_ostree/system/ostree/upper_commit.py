"""Commits the changes in the upper directory of an overlay mount, on top of an existing commit.

Only the upper directory is read, so the cost depends on the change and not on the size of the tree.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apt_ostree.model.filestate import FileState
from apt_ostree.system import whiteouts
from apt_ostree.system.ostree import diff, objects
from apt_ostree.system.ostree.gi_ostree import GLib, OSTree, explained
from apt_ostree.system.ostree.repo import Repo


def commit_upper(
    repo: Repo,
    base: str,
    upper: Path,
    *,
    subpath: str = "usr",
    subject: str,
    metadata: Mapping[str, Any],
    beside: Mapping[str, int] | None = None,
    timestamp: int | None = None,
) -> str:
    """Commit `base` with the changes of `upper` applied below `subpath`; return the new commit.

    The upper directory must no longer be mounted: it is consumed (whiteouts removed, overlayfs xattrs
    stripped, files moved into the repository).

    beside: the empty directories of packages in the root of the commit -> mode; by default those of `base`.
    timestamp: of the commit, in seconds since 1970.
    """
    with repo.transaction():
        with explained(f"read the tree of commit {base[:12]}"):
            mtree = OSTree.MutableTree.new_from_commit(repo.handle, base)
            _ok, target = mtree.ensure_dir(subpath)
            _fold(target, upper)
            modifier = OSTree.RepoCommitModifier.new(OSTree.RepoCommitModifierFlags.CONSUME, None)
        if beside is not None:
            _place_beside(repo, mtree, diff.directories_beside_usr(repo, base), beside)
        fd = os.open(upper.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with explained("write the changed files into the repository"):
                repo.handle.write_dfd_to_mtree(fd, upper.name, target, modifier, None)
                _ok, root = repo.handle.write_mtree(mtree, None)
        finally:
            os.close(fd)
        return repo.write_commit(root, parent=base, subject=subject, metadata=metadata, timestamp=timestamp)


def _place_beside(
    repo: Repo, mtree: OSTree.MutableTree, before: Mapping[str, int], after: Mapping[str, int]
) -> None:
    """Replace the empty directories of packages in the root of a tree."""
    for name in before.keys() - after.keys():
        _remove(mtree, name)
    for name, mode in after.items():
        with explained(f"add /{name} to the tree"):
            _ok, directory = mtree.ensure_dir(name)
            directory.set_metadata_checksum(objects.write(repo, FileState("directory", mode)))


def _fold(mtree: OSTree.MutableTree | None, directory: Path) -> None:
    """Apply removals and type changes of an upper directory to `mtree` and leave plain files in it.

    mtree: the directory of the base, or None if the base has none.
    """
    _strip_xattrs(directory)
    with os.scandir(directory) as entries:
        for entry in entries:
            info = entry.stat(follow_symlinks=False)
            if whiteouts.is_whiteout(info):
                Path(entry.path).unlink()
                _remove(mtree, entry.name)
            elif stat.S_ISDIR(info.st_mode):
                if whiteouts.is_opaque(entry.path):
                    _remove(mtree, entry.name)
                _fold(_subdirectory(mtree, entry.name), Path(entry.path))
            else:
                _strip_xattrs(entry.path)
                # Consumed files keep their times; as checked out, every file has the time stamp 0, and
                # compiled Python is compared with its source's (core.build.finish.settle_bytecode).
                os.utime(entry.path, (0, 0), follow_symlinks=False)
                if _subdirectory(mtree, entry.name) is not None:
                    _remove(mtree, entry.name)


def _strip_xattrs(path: Path | str) -> None:
    for name in os.listxattr(path, follow_symlinks=False):
        if name.startswith(whiteouts.XATTRS):
            os.removexattr(path, name, follow_symlinks=False)


def _remove(mtree: OSTree.MutableTree | None, name: str) -> None:
    if mtree is not None:
        with explained(f"remove {name!r} from the tree"):
            mtree.remove(name, True)


def _subdirectory(mtree: OSTree.MutableTree | None, name: str) -> OSTree.MutableTree | None:
    if mtree is None:
        return None
    try:
        _ok, _file, child = mtree.lookup(name)
    except GLib.Error:
        return None  # no entry of that name
    return child
