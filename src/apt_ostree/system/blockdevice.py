"""Block devices: lsblk(8) and wipefs(8) tell of them, and a disk that nothing uses can be written.

A disk that is claimed (O_EXCL, see open(2)) is nobody else's: the kernel refuses to mount it or a partition
of it, to swap on it, and to make another device of it. It cannot be claimed while one of these is so.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.blockdevice import COLUMNS, BlockDevice, of_lsblk
from apt_ostree.model.diskimage import MIB
from apt_ostree.system import process

_ZEROOUT, _REREAD_TABLE = 0x127F, 0x125F  # BLKZEROOUT, BLKRRPART of linux/fs.h
#: In bytes; a cancel is handled, and progress told, between two.
_DATA_PIECE, _ZERO_PIECE = 4 * MIB, 64 * MIB

#: Is called with the number of bytes that are done since the last call.
Progress = Callable[[int], None]


def read(path: Path) -> BlockDevice:
    """Return a block device; UsageError if there is none, Refused for another file."""
    node = path.resolve()
    if not node.exists():
        raise UsageError(f"there is no device {path}", hint="'lsblk' lists the disks")
    if not node.is_block_device():
        raise Refused(f"{path} is no block device", hint="'lsblk' lists the disks")
    command = ["lsblk", "--json", "--bytes", "--output", COLUMNS, str(node)]
    shown = process.run(command, what=f"look at {node}").stdout
    (row,) = json.loads(shown)["blockdevices"]
    return of_lsblk(row)


def signatures(path: str) -> tuple[str, ...]:
    """Return what is known of a disk's content, such as gpt or ext4, each once."""
    shown = process.run(["wipefs", "--json", "--no-act", path], what=f"look for content of {path}").stdout
    rows = json.loads(shown or "{}").get("signatures", ())
    return tuple(dict.fromkeys(row["type"] for row in rows))


def file_system_uuid(path: str) -> str:
    """Return the UUID of the file system on a device; ExternalFailure if it has none."""
    # The device itself is asked: neither a cache nor udev has to know it.
    command = ["blkid", "--probe", "--match-tag", "UUID", "--output", "value", path]
    return process.run(command, what=f"find the UUID of the file system on {path}").stdout.strip()


def check_free(path: str) -> None:
    """Raise Refused for a disk that is in use, also by what lsblk does not know of."""
    os.close(_claim(path, os.O_RDONLY))  # for writing, udev would look at it again


@contextmanager
def claimed(path: str) -> Iterator[Disk]:
    """Yield a disk that nobody else can use inside the block; Refused if it is in use."""
    fd = _claim(path, os.O_RDWR)
    try:
        yield Disk(path, fd)
    finally:
        os.close(fd)


def _claim(path: str, mode: int) -> int:
    try:
        return os.open(path, mode | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise Refused(
            f"{path} is in use by the kernel", hint="'lsblk' may show what is made of it"
        ) from error


class Disk:
    """A claimed disk."""

    def __init__(self, path: str, fd: int) -> None:
        self._path, self._fd = path, fd

    def empty(self) -> None:
        """Remove what tells of its content, and all that a firmware would start; both for good."""
        # Without --force, wipefs would claim the disk itself.
        command = ["wipefs", "--all", "--force", "--quiet", self._path]
        process.run(command, what=f"remove what is on {self._path}")
        self._zero(0, MIB, lambda _bytes: None)
        self.sync()

    def copy(self, image: int, start: int, end: int, progress: Progress) -> None:
        """Copy a part of a file to the same place, its holes as zeros; offsets are multiples of 512.

        image: an open file.
        """
        for begin, limit, is_data in spans(image, start, end):
            if is_data:
                self._copy_data(image, begin, limit, progress)
            else:
                self._zero(begin, limit, progress)

    def _copy_data(self, image: int, start: int, end: int, progress: Progress) -> None:
        for offset in range(start, end, _DATA_PIECE):
            data = os.pread(image, min(_DATA_PIECE, end - offset), offset)
            _write_all(self._fd, data, offset)
            progress(len(data))

    def _zero(self, start: int, end: int, progress: Progress) -> None:
        for offset in range(start, end, _ZERO_PIECE):
            size = min(_ZERO_PIECE, end - offset)
            fcntl.ioctl(self._fd, _ZEROOUT, struct.pack("=QQ", offset, size))
            progress(size)

    def sync(self) -> None:
        """Return when all that was written is on the disk."""
        os.fsync(self._fd)

    def read_table(self) -> None:
        """Have the kernel read the partition table again; if it cannot, it does so at the next boot."""
        with suppress(OSError):
            fcntl.ioctl(self._fd, _REREAD_TABLE)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def spans(fd: int, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Yield the parts of a file between two offsets, in order: begin, end, and whether it is no hole."""
    while start < end:
        try:
            data = min(os.lseek(fd, start, os.SEEK_DATA), end)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = end  # nothing but a hole follows
        if start < data:
            yield start, data, False
        if data < end:
            start = min(os.lseek(fd, data, os.SEEK_HOLE), end)
            yield data, start, True
        else:
            start = end
