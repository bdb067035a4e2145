"""A root directory in which packages are installed on top of a commit without copying it.

/usr is an overlay mount of checked-out directories with a scratch upper directory, /etc is the tree's own
pristine /usr/etc, /var and /boot are empty; nothing of the host's configuration or state is visible. The
root is mounted in the worker's private mount namespace and ends with it, so that only the scratch directory
has to be removed after a crash.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from apt_ostree.errors import ExternalFailure
from apt_ostree.model import layout
from apt_ostree.system import mounts, scratch, space, whiteouts
from apt_ostree.system.failpoints import failpoint

#: No feature that would make the upper directory unreadable on its own; no fsync: it is discarded.
_OVERLAY_OPTIONS = {"index": "off", "metacopy": "off", "redirect_dir": "off", "xino": "off", "volatile": None}
_WORK_PREFIX = "build-"


@contextlib.contextmanager
def scratch_directory(work_dir: Path) -> Iterator[Path]:
    """Create a scratch directory below `work_dir`; those of killed workers are removed first."""
    with scratch.directory(work_dir, _WORK_PREFIX) as place:
        failpoint("buildroot.created")
        yield place


@contextlib.contextmanager
def assembled(scratch: Path, lowers: Sequence[Path]) -> Iterator[Path]:
    """Mount a build root of checked-out /usr directories, the topmost first; return its path.

    Changes of /usr are written to scratch/upper.
    """
    for name in ("upper", "work", "root", "mnt", "boot", "var"):
        (scratch / name).mkdir()
    copy_directory_metadata(lowers[0], scratch / "upper")
    root = scratch / "root"
    mounts.mount("apt-ostree-build", root, "tmpfs", data="mode=755,size=1m")
    try:
        make_top_level(root)
        mount_fd = mounts.new_overlay_mount(
            [str(lower) for lower in lowers],
            source="apt-ostree-build",
            scratch=scratch / "mnt",
            upper=(str(scratch / "upper"), str(scratch / "work")),
            options=_OVERLAY_OPTIONS,
            read_only=False,
        )
        try:
            mounts.attach(mount_fd, root / "usr")
        finally:
            os.close(mount_fd)
        mounts.mount(str(root / "usr/etc"), root / "etc", flags=mounts.MS_BIND)
        for name in ("boot", "var"):  # on disk: a kernel or a database would fill memory
            mounts.mount(str(scratch / name), root / name, flags=mounts.MS_BIND)
        yield root
    finally:
        mounts.umount(root, detach=True)


def make_top_level(root: Path) -> None:
    """Create the directories and symlinks around /usr."""
    for name, mode in {**layout.TOP_DIRECTORIES, "usr": 0o755, "etc": 0o755}.items():
        (root / name).mkdir()
        (root / name).chmod(mode)
    links = {**layout.TOP_LINKS, **{n: f"usr/{n}" for n in ("bin", "sbin", "lib", "lib64")}}
    for name, target in links.items():
        (root / name).symlink_to(target)


def unexpected_top_level(root: Path) -> list[str]:
    """Return the names that packages created in the root directory, which a commit cannot hold."""
    expected = {*layout.TOP_DIRECTORIES, *layout.TOP_LINKS, "usr", "etc", "bin", "sbin", "lib", "lib64"}
    return sorted(entry.name for entry in root.iterdir() if entry.name not in expected)


def require_space(path: Path, needed: int, what: str) -> None:
    """Raise ExternalFailure if the file system of `path` has fewer than `needed` bytes free."""
    free = space.of(path).available
    if free < needed:
        raise ExternalFailure(
            f"not enough space to {what} on the file system of {path}: "
            f"{needed // 1_000_000} MB needed, {free // 1_000_000} MB free",
            hint="free some space, for example with 'apt-ostree cleanup -b -m'",
        )


def copy_directory_metadata(source: Path, target: Path) -> None:
    """Set the owner, mode and xattrs of `target` to those of `source`.

    overlayfs shows those of the topmost directory (overlayfs.rst).
    """
    stat = source.stat()
    os.chown(target, stat.st_uid, stat.st_gid)
    target.chmod(stat.st_mode & 0o7777)
    for name in os.listxattr(source):
        if not name.startswith(whiteouts.XATTRS):
            os.setxattr(target, name, os.getxattr(source, name))
