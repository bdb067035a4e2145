"""Scratch directories; those in use are distinguished from those that killed programs left behind.

A program holds a lock on its scratch directory, which the kernel releases when the program ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def directory(parent: Path, prefix: str) -> Iterator[Path]:
    """Create a directory below `parent`, and remove it after the block; leftovers are removed first."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_leftovers(parent, prefix)
    place, fd = _create_locked(parent, prefix)
    try:
        yield place
    finally:
        os.close(fd)
        shutil.rmtree(place, ignore_errors=True)


def _create_locked(parent: Path, prefix: str) -> tuple[Path, int]:
    """Create a directory and lock it; return its path and the descriptor that holds the lock."""
    while True:
        place = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with suppress(FileNotFoundError):
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if place.exists():
                return place, fd
            os.close(fd)
        # Before the lock was taken, another program removed the directory as a leftover.


def remove_leftovers(parent: Path, prefix: str) -> None:
    """Remove the directories below `parent` that no program uses any more."""
    for entry in parent.glob(f"{prefix}*"):
        with suppress(FileNotFoundError):
            fd = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry, ignore_errors=True)
            except BlockingIOError:
                pass  # another program uses it
            finally:
                os.close(fd)
