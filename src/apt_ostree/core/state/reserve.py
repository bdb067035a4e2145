"""Keeps some space aside, so that on a full disk packages can be removed and live changes be undone.

It is a file on the repository's file system, and one beside the records if that is another file system.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from apt_ostree.system import space, statedb
from apt_ostree.system.ostree.sysroot import Sysroot

_BYTES = 32_000_000
_NAME = "reserve"


def keep(sysroot: Sysroot) -> None:
    """Set the space aside, if there is that much."""
    for path in _paths(sysroot):
        if not path.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(OSError):
                space.reserve(path, _BYTES)


def release(sysroot: Sysroot) -> bool:
    """Give the space back on a disk that is nearly full; return whether that was done."""
    needed = [path for path in _paths(sysroot) if path.exists() and space.of(path).unused < _BYTES]
    for path in needed:
        path.unlink()
    return bool(needed)


def _paths(sysroot: Sysroot) -> tuple[Path, ...]:
    """Return the files, one on each file system."""
    here, records = sysroot.state_dir, statedb.DIRECTORY
    separate = records.is_dir() and records.stat().st_dev != here.parent.stat().st_dev
    return (here / _NAME, records / _NAME) if separate else (here / _NAME,)
