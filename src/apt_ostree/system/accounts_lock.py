"""The lock of the account files, which useradd, passwd and systemd-sysusers take, too (lckpwdf(3))."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apt_ostree.system import systemd


@contextmanager
def locked(etc: Path) -> Iterator[None]:
    """Lock the account files of an /etc inside the block; scratch files of killed writers are removed."""
    fd = os.open(etc / ".pwd.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        systemd.discard_leftovers(etc)  # nobody is writing now
        yield
    finally:
        os.close(fd)
