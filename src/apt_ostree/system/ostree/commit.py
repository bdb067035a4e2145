"""Writes a directory into a repository as a commit on a ref, in one transaction.

A failure, a cancel or a crash leaves every ref as it was.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from apt_ostree.errors import UsageError
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree.gi_ostree import Gio, GLib, OSTree, explained
from apt_ostree.system.ostree.repo import Repo

_CHECKSUM = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Written:
    """The result of committing a directory.

    checksum: the commit that the ref names now.
    changed: the ref named another commit before, or none.
    counts: libostree's counts of what was written, see Repo.transaction; those of content are not there if
        files were moved into the repository, which libostree does not count.
    """

    checksum: str
    changed: bool
    counts: Mapping[str, int] = field(default_factory=dict)


def exists(path: Path) -> bool:
    """Return whether there is a repository at `path`.

    UsageError is raised for anything else there, except for an empty directory.
    """
    if (path / "objects").is_dir() and (path / "config").is_file():
        return True
    if path.is_dir() and not any(path.iterdir()):
        return False
    if path.exists() or path.is_symlink():
        raise UsageError(
            f"{path} is not an OSTree repository",
            hint="name a repository, or a path where there is nothing yet",
        )
    if not path.parent.is_dir():
        raise UsageError(f"the directory {path.parent} does not exist", hint="create it first")
    return False


def head(path: Path, ref: str) -> str | None:
    """Return the commit that a ref names, or None if there is no repository or no such ref."""
    return _head(Repo.open(path), ref) if exists(path) else None


def parent_of(path: Path, rev: str | None) -> str | None:
    """Return the commit that a new one is to name as its parent; None without one.

    rev: a ref or commit; a full checksum is taken as it is, as the history may be in another repository.

    UsageError is raised for any other that the repository does not have.
    """
    return rev if rev is None or _CHECKSUM.fullmatch(rev) else found(path, rev)


def found(path: Path, rev: str) -> str:
    """Return the checksum of a ref or commit; UsageError if the repository does not have it."""
    if not exists(path):
        raise UsageError(f"no commit or ref {rev!r}: there is no repository {path} yet")
    return Repo.open(path).resolve(rev)


def commit_directory(
    path: Path,
    directory: Path,
    ref: str,
    *,
    subject: str,
    timestamp: int,
    metadata: Mapping[str, Any],
    keep_parent: bool = True,
    parent: str | None = None,
    sign: Callable[[Repo, str], object] | None = None,
    consume: bool = True,
    leave_out: str = "",
) -> Written:
    """Commit a directory to a ref; a missing repository is created (bare).

    A directory that equals the ref's commit yields that commit again, not a child of it.

    timestamp: of the commit, in seconds since 1970.
    metadata: of the commit, as variants.
    keep_parent: the ref's commit becomes the parent.
    parent: becomes the parent in place of that; the repository need not have it.
    sign: signs the commit before the ref names it, or the one that is there already.
    consume: the directory is not needed any more.
    leave_out: the name of an entry of the directory that is not committed.
    """
    created = not exists(path)
    repo = _create(path) if created else Repo.open(path)

    def write(root: OSTree.RepoFile, parent: str | None) -> str:
        return repo.write_commit(root, parent=parent, subject=subject, metadata=metadata, timestamp=timestamp)

    try:
        with repo.transaction() as counts:
            root = _write_tree(repo, directory, consume=consume, leave_out=leave_out)
            failpoint("commit.objects-written")
            written = _set_ref(repo, root, ref, write, keep_parent=keep_parent, parent=parent, sign=sign)
        is_counted = not (consume and repo.is_bare)
        known = {name: n for name, n in counts.items() if is_counted or not name.startswith("content_")}
        return replace(written, counts=known)
    except BaseException:
        if created:
            shutil.rmtree(path, ignore_errors=True)
        raise


def texts(values: Iterable[str]) -> GLib.Variant:
    """Return the variant of a list of strings, for a commit's metadata."""
    return GLib.Variant("as", list(values))


def flag(value: bool) -> GLib.Variant:
    """Return the variant of a boolean, for a commit's metadata."""
    return GLib.Variant("b", value)


def _create(path: Path) -> Repo:
    repo = OSTree.Repo.new(Gio.File.new_for_path(str(path)))
    path.mkdir(exist_ok=True)
    with explained(f"create the repository {path}"):
        repo.create(OSTree.RepoMode.BARE, None)
    return Repo.open(path)


def _set_ref(
    repo: Repo,
    root: OSTree.RepoFile,
    ref: str,
    write: Callable[[OSTree.RepoFile, str | None], str],
    *,
    keep_parent: bool,
    parent: str | None,
    sign: Callable[[Repo, str], object] | None,
) -> Written:
    before = _head(repo, ref)
    contents = (root.tree_get_contents_checksum(), root.tree_get_metadata_checksum())
    is_same = before and repo.tree_checksums(before) == contents
    if before and is_same and write(root, parent or repo.parent(before)) == before:
        if sign:
            sign(repo, before)
        return Written(before, changed=False)
    checksum = write(root, parent or (before if keep_parent else None))
    if sign:
        sign(repo, checksum)
        failpoint("commit.signed")
    repo.handle.transaction_set_ref(None, ref, checksum)
    return Written(checksum, changed=checksum != before)


def _write_tree(repo: Repo, directory: Path, *, consume: bool, leave_out: str) -> OSTree.RepoFile:
    flags = OSTree.RepoCommitModifierFlags.NONE
    if consume:
        _clear_times(directory)
        flags = OSTree.RepoCommitModifierFlags.CONSUME
    skip = f"/{leave_out}" if leave_out and os.path.lexists(directory / leave_out) else None
    modifier = OSTree.RepoCommitModifier.new(flags, _leaving_out, skip) if skip else None
    modifier = modifier or OSTree.RepoCommitModifier.new(flags, None)
    mtree = OSTree.MutableTree()
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with explained(f"write {directory} to the repository"):
            repo.handle.write_dfd_to_mtree(fd, ".", mtree, modifier, None)
            _ok, root = repo.handle.write_mtree(mtree, None)
    finally:
        os.close(fd)
    return root


def _leaving_out(
    _repo: OSTree.Repo, path: str, _info: Gio.FileInfo, skip: str
) -> OSTree.RepoCommitFilterResult:
    result = OSTree.RepoCommitFilterResult
    return result.SKIP if path == skip else result.ALLOW


def _clear_times(directory: Path) -> None:
    """Give files the time stamp 0: libostree does so for objects that it copies, not for consumed files."""
    for where, _directories, files in os.walk(directory):
        for name in files:
            os.utime(f"{where}/{name}", (0, 0), follow_symlinks=False)


def _head(repo: Repo, ref: str) -> str | None:
    with explained(f"read the ref {ref}"):
        _ok, checksum = repo.handle.resolve_rev(ref, True)
    return checksum or None
