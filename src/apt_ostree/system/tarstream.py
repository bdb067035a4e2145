"""Writes tar archives whose bytes depend on nothing but the members: PAX headers, no times, no user names.

Nothing is kept of what is written, whatever the number of members (tarfile.TarFile keeps each header).
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from apt_ostree.errors import ExternalFailure
from apt_ostree.model.filestate import FileState

_TYPES = {"file": tarfile.REGTYPE, "symlink": tarfile.SYMTYPE, "directory": tarfile.DIRTYPE}
#: How GNU tar and libarchive name an extended attribute.
_XATTR = "SCHILY.xattr."
_CHUNK = 1 << 20


class Source(Protocol):
    """Where the content of a file is read from."""

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes; none at the end."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive.

    path: relative; "." is the root.
    state: of the path. A file's content is not in it.
    size: of a file in bytes.
    link: the path of an earlier file of which this one is a hard link, or "".
    """

    path: str
    state: FileState
    size: int = 0
    link: str = ""


class TarStream:
    """An archive that is being written. write: takes its bytes."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def add(self, member: Member, source: Source | None = None) -> None:
        """Write a member.

        source: the content of a file; not read for a hard link.

        Raises ExternalFailure if the source has another number of bytes than the member, and for an extended
        attribute whose name the format cannot hold.
        """
        self._write(_header(member))
        if source is None or member.link:
            return
        left = member.size
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left >= 0:
                self._write(chunk)
        if left:
            raise ExternalFailure(f"the content of {member.path} has not the size that its metadata say")
        self._write(bytes(-member.size % tarfile.BLOCKSIZE))

    def finish(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))


def _header(member: Member) -> bytes:
    info, state = tarfile.TarInfo(member.path), member.state
    info.type, info.mode, info.uid, info.gid = _TYPES[state.type], state.mode, state.uid, state.gid
    if member.link:
        info.type, info.linkname = tarfile.LNKTYPE, member.link
    elif state.type == "symlink":
        info.linkname = state.content.decode("utf-8", "surrogateescape")
    else:
        info.size = member.size
    if wrong := [name for name, _value in state.xattrs if "=" in name]:
        raise ExternalFailure(f"a tar archive cannot hold the extended attribute {wrong[0]} of {member.path}")
    # tarfile marks a header in which a value is not UTF-8, such as file capabilities.
    info.pax_headers = {
        f"{_XATTR}{name}": value.decode("utf-8", "surrogateescape") for name, value in state.xattrs
    }
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
