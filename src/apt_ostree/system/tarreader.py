"""Reads tar archives from somewhere else, member by member, in one pass and in little memory.

tarfile parses the headers. It would follow some of them backwards, read without end, or take what it cannot
read for the end of the archive: `_Stream` and `members` do not let it.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from apt_ostree.model.image_screen import Header, Kind, Unfit

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
#: What the headers of one member may have in bytes, with extended attributes.
_MOST_METADATA = 4 << 20
#: tarfile takes longer numbers than Python reads for 0, too.
_MOST_DIGITS = 20
#: Zeros behind the end, in bytes; GNU tar writes 10 kB.
_MOST_PADDING = 1 << 20
#: How extended attributes are named, by GNU tar and libarchive.
_XATTR = "SCHILY.xattr."
#: Keywords that change what a member is, in ways that are not read here.
_UNREAD = ("GNU.", "LIBARCHIVE.xattr.", "LIBARCHIVE.symlinktype", "RHT.", "SCHILY.acl.", "SCHILY.realsize")
_LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE)
_KINDS: dict[bytes, Kind] = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hard link",
    tarfile.GNUTYPE_SPARSE: "sparse file",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "fifo",
}


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive. chunks: the content of a file, which is read before the next member."""

    header: Header
    chunks: Iterator[bytes]


def members(read: Callable[[int], bytes]) -> Iterator[Member]:
    """Yield the members of an archive; all of it is read at the end.

    read: returns at most so many bytes, and none at the end.

    Raises Unfit for what is no archive, or ends before its end or after it.
    """
    stream, last = _Stream(read), "the first member"
    archive = None
    while True:
        stream.left = _MOST_METADATA
        try:
            if archive is None:
                archive = tarfile.TarFile(fileobj=stream, encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
            info = archive.next()
        except (tarfile.TarError, RecursionError, ValueError, OverflowError) as error:
            if isinstance(error, Unfit):
                raise
            raise Unfit(last, f"or what follows it cannot be read: {error}") from error
        archive.members = []  # type: ignore[attr-defined]  # it would keep them all
        if info is None:
            break
        last = info.name
        if strange := sorted(set(archive.pax_headers) - {"comment"}):
            raise Unfit(last, f"comes after a header for all members: {strange[0]}")
        header = _header(info)
        content = stream.content(info) if header.kind == "file" else iter(())
        yield Member(header, content)
        for _rest in content:
            pass
    stream.finish()


def _header(info: tarfile.TarInfo) -> Header:
    kind = _KINDS.get(info.type, "other")
    if info.sparse is not None or any(key.startswith("GNU.sparse.") for key in info.pax_headers):
        kind = "sparse file"
    elif unread := [key for key in info.pax_headers if key.startswith(_UNREAD)]:
        raise Unfit(info.name, f"has the keyword {unread[0]!r}, which is not read")
    xattrs = tuple(
        (key.removeprefix(_XATTR), value.encode("utf-8", "surrogateescape"))
        for key, value in info.pax_headers.items()
        if key.startswith(_XATTR)
    )
    # tarfile takes what is no number for 0.
    texts = [info.pax_headers.get(key, "0") for key in ("size", "uid", "gid")]
    if not all(text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS for text in texts):
        raise Unfit(info.name, "has a number that is none")
    numbers = (info.size, info.mode, info.uid, info.gid)
    return Header(
        info.name, kind, *numbers, target=info.linkname if info.type in _LINKS else "", xattrs=xattrs
    )


class _Stream:
    """What tarfile reads: forward only, and no more than `left` bytes of headers."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.left = _MOST_METADATA
        self._read = read
        self._position = 0
        self._before = b""  # the last bytes: tarfile looks at the one before a header
        self._again = 0  # so many of them are read once more

    def tell(self) -> int:
        return self._position - self._again

    def seek(self, position: int) -> int:
        """Go to a position ahead, or a block back."""
        back = self._position - position
        if back > len(self._before):
            raise tarfile.ReadError("it would be read backwards")
        self._again = max(0, back)
        while self._position < position:
            self._take(min(_CHUNK, position - self._position))
        return position

    def read(self, size: int) -> bytes:
        """Return so many bytes of headers."""
        if not 0 <= size <= self.left:
            raise tarfile.ReadError("a header is too large")
        self.left -= size
        again = self._before[len(self._before) - self._again :][:size]
        self._again -= len(again)
        data = again
        while len(data) < size:
            data += self._take(size - len(data))
        return data

    def content(self, info: tarfile.TarInfo) -> Iterator[bytes]:
        """Yield the content of a file, which begins here or a little before."""
        left = info.size
        self.seek(info.offset_data)
        if self._again:
            raise Unfit(info.name, "has its content in the header of another member")
        while left > 0:
            try:
                data = self._take(min(_CHUNK, left))
            except tarfile.ReadError as error:
                raise Unfit(info.name, f"cannot be read: {error}") from error
            left -= len(data)
            yield data

    def finish(self) -> None:
        """Read the rest, which has to be zeros."""
        if not self._position or any(self._before):
            raise Unfit("the end", "of the archive is missing")
        padding = 0
        while data := self._read(_CHUNK):
            padding += len(data)
            if padding > _MOST_PADDING or data.strip(b"\0"):
                raise Unfit("the end", "of the archive is followed by something")

    def _take(self, size: int) -> bytes:
        data = self._read(size)
        if not data:
            raise tarfile.ReadError("it ends too early")
        self._position += len(data)
        self._before = (self._before + data[-_BLOCK:])[-_BLOCK:]
        return data
