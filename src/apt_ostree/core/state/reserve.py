"""Sets space aside while there are live changes, so that they can be taken back on a full disk.

An undo writes /etc and the records. The file is on the file systems of both.
"""

from __future__ import annotations

from pathlib import Path

from apt_ostree.system import space, statedb
from apt_ostree.system.ostree.sysroot import Sysroot

_BYTES = 16_000_000
_NAME = "reserve"


def keep(sysroot: Sysroot) -> None:
    """Set the space aside; raise OSError if there is too little."""
    for path in _paths(sysroot):
        space.reserve(path, _BYTES)


def release(sysroot: Sysroot) -> None:
    """Give the space back, for an undo or for good."""
    for path in _paths(sysroot):
        path.unlink(missing_ok=True)


def _paths(sysroot: Sysroot) -> tuple[Path, ...]:
    return (sysroot.state_dir / _NAME, statedb.DIRECTORY / _NAME)
