"""Reads what is in the root directory of somebody else's system, and nothing outside of it.

Links are followed as they would be if the directory was the root: openat2(2) with RESOLVE_IN_ROOT, for which
there is no binding. Only regular files are read, so that a pipe cannot hold up the reader, and no device is
opened. All paths are relative to the root.
"""

from __future__ import annotations

import ctypes
import errno
import fnmatch
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_OPENAT2 = 437  # asm-generic/unistd.h
_RESOLVE_IN_ROOT = 0x10  # linux/openat2.h
_TRIES = 16  # what is renamed meanwhile may make it fail with EAGAIN
_CHUNK = 1 << 20
#: No file that is read as a whole is as large.
_LARGEST = 64 << 20
_NULL = os.makedev(1, 3)  # to which a file that counts as empty may be a link
_ABSENT = (FileNotFoundError, NotADirectoryError)


def info(root: Path, path: str) -> os.stat_result | None:
    """Return what a path leads to; None if that is nothing."""
    try:
        with _opened(root, path, os.O_PATH) as fd:
            return os.fstat(fd)
    except _ABSENT:
        return None


def is_file(root: Path, path: str) -> bool:
    """Return whether a path leads to a regular file."""
    found = info(root, path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_directory(root: Path, path: str) -> bool:
    """Return whether a path leads to a directory."""
    found = info(root, path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def exists(root: Path, path: str) -> bool:
    """Return whether there is something at a path, be it a link that leads nowhere."""
    return info(root, path) is not None or target_of(root, path) is not None


def target_of(root: Path, path: str) -> str | None:
    """Return the target of a link; None for what is no link."""
    try:
        with _opened(root, path, os.O_PATH | os.O_NOFOLLOW) as fd:
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                return None
            return os.fsdecode(os.readlink(b"", dir_fd=fd))
    except _ABSENT:
        return None


@contextmanager
def opened(root: Path, path: str) -> Iterator[int]:
    """Open a regular file for reading; raise OSError for anything else."""
    with _opened(root, path, os.O_PATH) as fd:
        _require_file(root, path, os.fstat(fd))
    with _opened(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) as fd:
        _require_file(root, path, os.fstat(fd))
        yield fd


def read(root: Path, path: str, most: int = _LARGEST) -> bytes:
    """Return the content of a regular file; raise OSError if it is larger than `most` bytes."""
    found = info(root, path)
    if found is not None and stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL:
        return b""
    with opened(root, path) as fd:
        data = head(fd, most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(root / path))
    return data


def head(fd: int, size: int) -> bytes:
    """Return the first bytes of an open file, at most so many."""
    parts: list[bytes] = []
    while size and (data := os.read(fd, min(size, _CHUNK))):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def text_of(root: Path, path: str) -> str:
    """Return the text of a file, byte by byte whatever its encoding; a missing file has none."""
    try:
        return read(root, path).decode("utf-8", "surrogateescape")
    except _ABSENT:
        return ""


def glob(root: Path, pattern: str) -> list[str]:
    """Return the paths that have a pattern, as pathlib understands it, sorted."""
    found = [""]
    for part in pattern.split("/"):
        if part == "**":
            found = [below for above in found for below in _directories(root, above)]
            continue
        found = [
            f"{above}/{name}" if above else name
            for above in found
            for name in _names(root, above)
            if fnmatch.fnmatchcase(name, part)
        ]
    return sorted(found)


def directory_of(root: Path, path: str) -> Path | None:
    """Return where the directory that a path leads to really is; None if it leads to none."""
    try:
        with _opened(root, path, os.O_PATH | os.O_DIRECTORY) as fd:
            return Path(f"/proc/self/fd/{fd}").readlink()
    except _ABSENT:
        return None


def _directories(root: Path, directory: str) -> Iterator[str]:
    """Yield a directory and those below it, without following links."""
    yield directory
    for name in _names(root, directory):
        path = f"{directory}/{name}" if directory else name
        if target_of(root, path) is None and is_directory(root, path):
            yield from _directories(root, path)


def _names(root: Path, directory: str) -> list[str]:
    try:
        with _opened(root, directory or ".", os.O_RDONLY | os.O_DIRECTORY) as fd, os.scandir(fd) as entries:
            return [entry.name for entry in entries]
    except _ABSENT:
        return []


def _require_file(root: Path, path: str, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(root / path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(root / path))


@contextmanager
def _opened(root: Path, path: str, flags: int) -> Iterator[int]:
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = _openat2(top, path, flags | os.O_CLOEXEC, root)
    finally:
        os.close(top)
    try:
        yield fd
    finally:
        os.close(fd)


def _openat2(top: int, path: str, flags: int, root: Path) -> int:
    how = (ctypes.c_uint64 * 3)(flags, 0, _RESOLVE_IN_ROOT)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    for _ in range(_TRIES):
        fd = int(_libc.syscall(_OPENAT2, top, os.fsencode(path), ctypes.byref(how), size))
        number = ctypes.get_errno()
        if fd >= 0:
            return fd
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    if number in (errno.ENOSYS, errno.EPERM) and root == Path("/"):  # a container may forbid it
        return os.open(f"/{path}", flags)
    if number == errno.ELOOP:  # such as /usr that is a link to /usr: it leads nowhere
        number = errno.ENOENT
    raise OSError(number, os.strerror(number), str(root / path))
