"""The free space of file systems (statvfs(3)), and space that is set aside."""

from __future__ import annotations

import os
from pathlib import Path

from apt_ostree.model.sizes import Space


def of(path: Path) -> Space:
    """Return the free space of the file system of a path."""
    stats = os.statvfs(path)
    return Space(
        available=stats.f_bavail * stats.f_frsize,
        unused=stats.f_bfree * stats.f_frsize,
        inodes=stats.f_favail if stats.f_files else None,
    )


def reserve(path: Path, size: int) -> None:
    """Have a file that takes this much space in bytes; raise OSError if there is too little."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(fd)
