"""Keeps some space aside, so that on a full disk packages can be removed and live changes be undone.

It is a file on the repository's file system, and one beside the records if that is another file system.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from apt_ostree.system import space, statedb
from apt_ostree.system.ostree.sysroot import Sysroot

_BYTES = 32_000_000
#: Space is only set aside where much more is free: others would miss it.
_PLENTY = 8 * _BYTES
_NAME = "reserve"


def keep(sysroot: Sysroot) -> None:
    """Set the space aside, unless the disk is nearly full."""
    for path in _paths(sysroot):
        if not path.exists() and space.of(path.parent).unused >= _PLENTY:
            with contextlib.suppress(OSError):  # others may have filled the disk
                space.reserve(path, _BYTES)


def release(sysroot: Sysroot) -> None:
    """Give the space back on a disk that is nearly full."""
    for path in _paths(sysroot):
        if path.exists() and space.of(path).unused < _BYTES:
            path.unlink()


def _paths(sysroot: Sysroot) -> tuple[Path, ...]:
    """Return the files, one on each file system."""
    directories = [path for path in (sysroot.state_dir, statedb.DIRECTORY) if path.is_dir()]
    return tuple({path.stat().st_dev: path / _NAME for path in reversed(directories)}.values())
