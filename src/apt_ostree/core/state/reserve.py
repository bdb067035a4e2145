"""Keeps some space aside, so that on a full disk packages can be removed and live changes be undone.

It is a file on the repository's file system, and one beside the records if that is another file system.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from apt_ostree.system import space, statedb
from apt_ostree.system.ostree.sysroot import Sysroot

_REMOVAL = "reserve-removal"
#: There must be that many times as much space, so that services are not left without any.
_PLENTY = 4
#: Name of a file -> its size in bytes. Removing packages must not use up what an undo needs.
_SIZES = {"reserve": 16_000_000, _REMOVAL: 32_000_000}


def keep(sysroot: Sysroot) -> None:
    """Set the space aside, if there is plenty."""
    for path, size in _files(sysroot):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        allocated = path.stat().st_blocks * 512 if path.exists() else 0
        if allocated < size and space.of(path.parent).unused >= _PLENTY * size:
            with contextlib.suppress(OSError):
                space.reserve(path, size)


def release(sysroot: Sysroot, *, for_removal: bool = False) -> bool:
    """Give the space back on a disk that is nearly full; return whether that was done.

    for_removal: only what is meant for the removal of packages.
    """
    plenty, names = sum(_SIZES.values()), [_REMOVAL] if for_removal else [*_SIZES]
    paths = [path for path, _size in _files(sysroot) if path.name in names and path.exists()]
    needed = [path for path in paths if space.of(path).for_root < plenty]
    for path in needed:
        path.unlink()
    return bool(needed)


def _files(sysroot: Sysroot) -> Iterator[tuple[Path, int]]:
    """Yield the files with their sizes, on each file system that is concerned."""
    here, records = sysroot.state_dir, statedb.DIRECTORY
    separate = records.is_dir() and records.stat().st_dev != here.parent.stat().st_dev
    for directory in (here, records) if separate else (here,):
        yield from ((directory / name, size) for name, size in _SIZES.items())
