"""Files and directories that a client has opened with its own privileges, used by their descriptors.

A worker of the service cannot inherit them, and opens them again as the service has them open.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from apt_ostree.errors import UsageError
from apt_ostree.model.openfile import OpenFile
from apt_ostree.system import files
from apt_ostree.system.files import Entry

#: How a file was opened, as far as it is opened again in that way; the kernel adds others.
_MODES = os.O_ACCMODE | os.O_PATH | os.O_APPEND


@contextmanager
def opened(path: str | Path) -> Iterator[OpenFile]:
    """Open a file or directory for reading, and any other type with O_PATH; UsageError if that fails."""
    name = os.fspath(path)
    try:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        if _can_be_opened(os.fstat(fd).st_mode):
            path_fd = fd
            try:
                fd = os.open(f"/proc/self/fd/{path_fd}", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                os.close(path_fd)
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from error
    try:
        yield OpenFile(fd, name)
    finally:
        os.close(fd)


@contextmanager
def created(path: Path) -> Iterator[OpenFile]:
    """Open a new file beside `path`, which `put` gives that name; otherwise it is removed at the end."""
    beside = _beside(path)
    beside.unlink(missing_ok=True)  # of a killed call
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(beside, flags, 0o600)
    try:
        yield OpenFile(fd, os.fspath(path))
    finally:
        os.close(fd)
        beside.unlink(missing_ok=True)


def put(file: OpenFile) -> None:
    """Give a file that `created` opened its name; an existing file is replaced."""
    place = Path(file.name)
    _beside(place).rename(place)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def walk(file: OpenFile) -> Iterator[Entry]:
    """Yield the file, and the paths below it if it is a directory, as `files.walk` does."""
    mode_of(file)
    yield "", partial(files.read_open_state, file.fd)
    if is_directory(file):
        yield from files.walk_below(path_of(file))


def path_of(file: OpenFile) -> Path:
    """Return a path of the open file; it is a symlink in /proc, which has to be followed."""
    return Path(f"/proc/self/fd/{file.fd}")


def mode_of(file: OpenFile) -> int:
    """Return the type and mode of the file; UsageError if the descriptor is not open."""
    try:
        return os.fstat(file.fd).st_mode
    except OSError as error:
        raise UsageError(f"{file.name} was not passed as an open file (descriptor {file.fd})") from error


def is_file(file: OpenFile) -> bool:
    """Return whether it is a regular file."""
    return stat.S_ISREG(mode_of(file))


def is_directory(file: OpenFile) -> bool:
    """Return whether it is a directory."""
    return stat.S_ISDIR(mode_of(file))


def is_same(file: OpenFile, path: Path) -> bool:
    """Return whether a path refers to the same file."""
    try:
        return os.path.samestat(os.fstat(file.fd), path.stat())
    except FileNotFoundError:
        return False


# --- files that another process has open


def passed(descriptors: Iterable[int]) -> list[tuple[int, int, int]]:
    """Return how another process finds what is open here: descriptor, device and inode of each."""
    return [(fd, info.st_dev, info.st_ino) for fd in descriptors if (info := os.fstat(fd))]


def open_passed(pid: int, rows: Iterable[tuple[int, int, int]]) -> list[int]:
    """Open what another process has open, in the same way; raise UsageError if it is not there any more."""
    return [_open_again(Path(f"/proc/{pid}"), *row) for row in rows]


def _open_again(process: Path, fd: int, device: int, inode: int) -> int:
    try:
        info = dict(line.split(":", 1) for line in (process / f"fdinfo/{fd}").read_text().splitlines())
        link = process / f"fd/{fd}"
        flags = int(info["flags"], 8) & _MODES if _can_be_opened(link.stat().st_mode) else os.O_PATH
        again = os.open(link, flags | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"a file that was passed cannot be opened: {error.strerror}") from error
    if (os.fstat(again).st_dev, os.fstat(again).st_ino) != (device, inode):
        os.close(again)
        raise UsageError("a file that was passed is not there any more")
    return again


def _can_be_opened(mode: int) -> bool:
    """Return whether opening a file has no side effects, unlike that of a pipe or a device."""
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)
