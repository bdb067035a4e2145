"""A cpio archive in the form that the kernel unpacks into an initramfs ("newc", its buffer-format.rst)."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping

from apt_ostree.model.filestate import FileState

_MAGIC = b"070701"
_TRAILER = b"TRAILER!!!"
_ALIGNMENT = 4
_TYPES = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK}
#: The size of a file is a number of eight hexadecimal digits.
LARGEST = 0xFFFFFFFF


def archive(states: Mapping[str, FileState]) -> bytes:
    """Return the archive of files, directories and symlinks, with their modes; all of them are root's.

    The same states give the same bytes. The kernel makes no missing directories, so that the parents have to
    be among the states.

    states: path from the root, without a leading slash -> its state.
    """
    return b"".join(_records(states))


def padding(size: int) -> bytes:
    """Return what goes between an image of this size and an archive that follows it.

    The archive has to start at a multiple of four bytes, and the kernel's LZ4 takes zeros for its end.
    """
    return bytes(_ALIGNMENT + -size % _ALIGNMENT)


def _records(states: Mapping[str, FileState]) -> Iterator[bytes]:
    """Yield a record for each state, parents first, and the one that ends the archive."""
    for number, (path, state) in enumerate(sorted(states.items()), start=1):
        links = 2 if state.type == "directory" else 1
        name = path.encode(errors="surrogateescape")
        yield _record(name, state.content, inode=number, mode=_TYPES[state.type] | state.mode, links=links)
    yield _record(_TRAILER, b"", inode=0, mode=0, links=1)


def _record(name: bytes, content: bytes, *, inode: int, mode: int, links: int) -> bytes:
    """Return a header, which consists of numbers, the name and the content."""
    owner, time, device, check = (0, 0), 0, (0, 0, 0, 0), 0
    numbers = (inode, mode, *owner, links, time, len(content), *device, len(name) + 1, check)
    head = _MAGIC + b"".join(b"%08X" % number for number in numbers) + name + b"\0"
    return _aligned(head) + _aligned(content)


def _aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
