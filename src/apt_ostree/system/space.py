"""The free space of file systems (statvfs(3))."""

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
