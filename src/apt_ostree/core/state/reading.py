"""Opens the system for reading, for queries, which need no transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from apt_ostree.system.ostree.sysroot import Sysroot, require_booted


@contextmanager
def opened(path: str = "/") -> Iterator[Sysroot]:
    """Yield the running system, or the one below `path`, opened for reading.

    Raises Refused if the running system was not booted with OSTree, and ExternalFailure if a system root
    cannot be opened.
    """
    if path == "/":
        require_booted()
    with Sysroot(path) as sysroot:
        yield sysroot
