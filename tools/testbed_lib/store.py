"""The cache of disk images: an XFS in one sparse file, so that a copy of an image costs nothing.

Every process mounts it in a mount namespace of its own. When the last of them ends, in whatever way, the
kernel unmounts it and frees the loop device: nothing can be left over.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from testbed_lib.common import CACHE, TestbedError, locked, run, wait_until
from testbed_lib.kernel import unshare_mounts

_FILE = CACHE / "store.img"
_MOUNT_POINT = CACHE / "store"
#: A tmpfs of this process and its children: mount points and what programs drop beside them.
SCRATCH = CACHE / "scratch"
_SIZE = "64G"  # sparse: takes what is used


@functools.cache
def open_store() -> Path:
    """Mount the store for this process and its children; return where."""
    # Always a namespace of its own, though the store may be mounted in the one it comes from: what this
    # process mounts must end with it.
    unshare_mounts()
    with locked(CACHE / "store.lock"):
        _MOUNT_POINT.mkdir(exist_ok=True)
        if not _FILE.exists():
            _make()
        # One loop device for all: `mount` finds and reuses the one that has the file already.
        if not _MOUNT_POINT.is_mount():
            wait_until(_try_mount, seconds=30, what="mounting the image store")
    for scratch in (SCRATCH, Path("/run/systemd/nspawn")):  # the latter: nspawn's own leftovers
        scratch.mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", "mode=0700", "testbed", scratch)
    return _MOUNT_POINT


def make_scratch() -> Path:
    """Return a new, empty mount point."""
    return Path(tempfile.mkdtemp(dir=SCRATCH))


def _make() -> None:
    partial = _FILE.with_suffix(".partial")
    run("truncate", f"--size={_SIZE}", partial)
    run("mkfs.xfs", "-q", "-f", "-m", "reflink=1", partial)
    partial.rename(_FILE)


def _try_mount() -> bool:
    try:
        run("mount", "-o", "loop,noatime,discard", _FILE, _MOUNT_POINT)
    except TestbedError:
        # The loop device of a process that just ended may be half gone: then a second try succeeds.
        return False
    return True


def loop_devices_of(path: Path) -> list[str]:
    """Return the loop devices that have a file open, in whatever mount namespace."""
    return run("losetup", "--noheadings", "--output=NAME", "--associated", path).split()
