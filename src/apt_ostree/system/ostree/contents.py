"""Reads what it takes to write a commit's tree elsewhere: paths with their objects, files piece by piece.

It also reads the commit itself, as bytes. Nothing is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from apt_ostree.model.filestate import FileState
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.gi_ostree import DAMAGE, Gio, OSTree, explained
from apt_ostree.system.ostree.repo import Repo, read_xattrs


@dataclass(frozen=True, slots=True)
class Entry:
    """A path of a tree.

    checksum: of the file object (of a link, too), or of the directory's metadata object.
    is_empty: it is a directory with nothing in it.
    """

    checksum: str
    is_directory: bool = False
    is_empty: bool = False


@dataclass(frozen=True, slots=True)
class OpenObject:
    """A file object that is open.

    state: without the content of a file.
    size: of the content in bytes.
    """

    state: FileState
    size: int
    stream: ObjectStream | None


class ObjectStream:
    """The content of a file object. what: the object, for messages."""

    def __init__(self, stream: Any, what: str) -> None:
        self._stream, self._what = stream, what

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes; none at the end."""
        with explained(f"read {self._what}", hint=DAMAGE):
            return self._stream.read_bytes(size, None).get_data() or b""


def entries(repo: Repo, commit: str) -> dict[str, Entry]:
    """Return path -> entry of a commit's tree, parents first; "." is the root."""
    contents, metadata = repo.tree_checksums(commit)
    found = {".": Entry(metadata, is_directory=True)}
    found.update(_below(repo, contents, ""))
    return found


def _below(repo: Repo, contents: str, prefix: str) -> Iterator[tuple[str, Entry]]:
    files, directories = diff.read_dirtree(repo, contents)
    for name, checksum in files.items():
        yield f"{prefix}{name}", Entry(checksum)
    for name, (below, metadata) in directories.items():
        is_empty = not any(diff.read_dirtree(repo, below))
        yield f"{prefix}{name}", Entry(metadata, is_directory=True, is_empty=is_empty)
        yield from _below(repo, below, f"{prefix}{name}/")


def size_of(repo: Repo, checksum: str) -> int:
    """Return the size of a file object's content in bytes; 0 for a link."""
    is_bare = repo.handle.get_mode() == OSTree.RepoMode.BARE  # its objects are the files themselves
    return repo.size(checksum) if is_bare else repo.outline(checksum).size


@contextmanager
def opened(repo: Repo, checksum: str) -> Iterator[OpenObject]:
    """Open a file object; ExternalFailure if it is missing or damaged."""
    what = f"the file object {checksum[:12]}"
    with explained(f"read {what}", hint=DAMAGE):
        _ok, stream, info, xattrs = repo.handle.load_file(checksum)
    owner = (info.get_attribute_uint32("unix::uid"), info.get_attribute_uint32("unix::gid"))
    if info.get_file_type() == Gio.FileType.SYMBOLIC_LINK:
        target = os.fsencode(info.get_symlink_target())
        yield OpenObject(FileState("symlink", 0o777, *owner, target, read_xattrs(xattrs)), 0, None)
        return
    mode = info.get_attribute_uint32("unix::mode") & 0o7777
    state = FileState("file", mode, *owner, b"", read_xattrs(xattrs))
    try:
        yield OpenObject(state, int(info.get_size()), ObjectStream(stream, what))
    finally:
        stream.close(None)


def commit_object(repo: Repo, commit: str) -> bytes:
    """Return the commit object, whose digest is the commit's checksum."""
    return bytes(repo.load_commit(commit).get_data_as_bytes().get_data())


def detached_metadata(repo: Repo, commit: str) -> bytes:
    """Return what is kept beside a commit, such as its signatures, as a variant a{sv}; b"" without any."""
    with explained(f"read what is kept beside commit {commit[:12]}"):
        _ok, variant = repo.handle.read_commit_detached_metadata(commit, None)
    return bytes(variant.get_data_as_bytes().get_data()) if variant is not None else b""
