"""The lock of a directory, in which one program at a time works. It ends with the program."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apt_ostree.errors import Refused


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of a directory in the block; it is made before, and removed again if it stays empty.

    what: what the other program does, for the message.

    Raises Refused if another program has the lock.
    """
    created = not path.exists()
    path.mkdir(mode=0o755, exist_ok=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(f"another program is {what} {path}", hint="wait for it to end") from error
        try:
            yield
        finally:
            if created and not any(path.iterdir()):
                path.rmdir()
    finally:
        os.close(fd)
