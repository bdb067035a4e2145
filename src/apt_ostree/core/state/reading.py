"""Opens the system to read it, for queries, which need no transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from apt_ostree.system.ostree.sysroot import Sysroot, require_booted


@contextmanager
def opened(path: str = "/") -> Iterator[Sysroot]:
    """Open the running system, or the one below `path`, to read it."""
    if path == "/":
        require_booted()
    with Sysroot(path) as sysroot:
        yield sysroot
