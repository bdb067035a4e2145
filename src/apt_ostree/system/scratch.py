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
    place = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield place
        finally:
            os.close(fd)
    finally:
        shutil.rmtree(place, ignore_errors=True)


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
