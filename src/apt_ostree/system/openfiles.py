"""Files and directories that a client has opened with its own privileges, used by their descriptors."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from apt_ostree.errors import UsageError
from apt_ostree.model.openfile import OpenFile
from apt_ostree.system import files
from apt_ostree.system.files import Entry


@contextmanager
def opened(path: str | Path) -> Iterator[OpenFile]:
    """Open a file or directory for reading, and any other type with O_PATH; UsageError if that fails."""
    name = os.fspath(path)
    try:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # opening a pipe or a device has side effects
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
    """Link a file that `created` opened to its path; an existing file is replaced."""
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
