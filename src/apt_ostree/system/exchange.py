"""Puts a directory in the place of another one in one step (renameat2(2))."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_AT_FDCWD = -100
_EXCHANGE = 2  # linux/fs.h


def exchange(one: Path, other: Path) -> None:
    """Exchange two paths of one file system; raise OSError if that is not possible."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.renameat2(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_EXCHANGE)
    )
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))
