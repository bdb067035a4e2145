"""A root directory in which packages are installed on top of a commit without copying it.

/usr is an overlay mount of checked-out directories with a scratch upper directory, /etc is the tree's own
pristine /usr/etc, or that of the machine while scripts run; /var and /boot are empty. The
root is mounted in the worker's private mount namespace and ends with it, so that only the scratch directory
has to be removed after a crash.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from apt_ostree.errors import ExternalFailure
from apt_ostree.model import layout
from apt_ostree.model.filestate import FileState
from apt_ostree.system import files, mounts, scratch, space, whiteouts
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
def assembled(scratch: Path, lowers: Sequence[Path], beside: Mapping[str, int]) -> Iterator[Path]:
    """Mount a build root of checked-out /usr directories, the topmost first; return its path.

    Changes of /usr are written to scratch/upper.

    beside: the tree's own empty directories in the root (`snap`) -> mode.
    """
    for name in ("upper", "work", "root", "mnt", "boot", "var"):
        (scratch / name).mkdir()
    copy_directory_metadata(lowers[0], scratch / "upper")
    root = scratch / "root"
    mounts.mount("apt-ostree-build", root, "tmpfs", data="mode=755,size=1m")
    try:
        make_top_level(root, beside)
        _mount_overlay(scratch, root / "usr", lowers, scratch / "upper", scratch / "work")
        mounts.mount(str(root / "usr/etc"), root / "etc", flags=mounts.MS_BIND)
        for name in ("boot", "var"):  # on disk: a kernel or a database would fill memory
            mounts.mount(str(scratch / name), root / name, flags=mounts.MS_BIND)
        yield root
    finally:
        mounts.umount(root, detach=True)


@contextlib.contextmanager
def machine_etc(scratch: Path, root: Path, name: str, lowers: Sequence[Path]) -> Iterator[Path]:
    """Show a writable /etc in a build root inside the block; yield its upper directory.

    name: of the upper directory in the scratch directory.
    lowers: the directories that it consists of, the topmost first.
    """
    upper, work = scratch / name, scratch / f"{name}-work"
    for directory in (upper, work):
        directory.mkdir()
    copy_directory_metadata(lowers[0], upper)
    _mount_overlay(scratch, root / "etc", lowers, upper, work)
    try:
        yield upper
    finally:
        mounts.umount(root / "etc", detach=True)


def _mount_overlay(scratch: Path, target: Path, lowers: Sequence[Path], upper: Path, work: Path) -> None:
    mount_fd = mounts.new_overlay_mount(
        [str(lower) for lower in lowers],
        source="apt-ostree-build",
        scratch=scratch / "mnt",
        upper=(str(upper), str(work)),
        options=_OVERLAY_OPTIONS,
        read_only=False,
    )
    try:
        mounts.attach(mount_fd, target)
    finally:
        os.close(mount_fd)


def removed_from(upper: Path) -> list[str]:
    """Return the paths that are removed in an upper directory, relative to it."""
    removed = []
    for directory, _names, entries in os.walk(upper):
        paths = (Path(directory, name) for name in entries)
        removed += [str(p.relative_to(upper)) for p in paths if whiteouts.is_whiteout(p.lstat())]
    return removed


def write_layer(directory: Path, states: Mapping[str, FileState], below: Path) -> Path:
    """Write states of paths as a lower directory on top of another one; return it."""
    directory.mkdir()
    copy_directory_metadata(below, directory)
    gone = {path for path in states if states[path].type == "absent"}
    for path in sorted(states):
        if not gone.isdisjoint(map(str, Path(path).parents)):
            continue
        for parent in reversed(Path(path).parents):
            if not (directory / parent).exists() and (below / parent).is_dir():
                (directory / parent).mkdir()
                copy_directory_metadata(below / parent, directory / parent)
        if path in gone and (directory / path).parent.is_dir():
            os.mknod(directory / path, stat.S_IFCHR, 0)  # a whiteout (overlayfs.rst)
    files.write_states([(directory / p, states[p]) for p in sorted(states) if p not in gone])
    return directory


def make_top_level(root: Path, beside: Mapping[str, int]) -> None:
    """Create the directories and symlinks around /usr, and the tree's own directories beside it."""
    for name, mode in {**layout.TOP_DIRECTORIES, **beside, "usr": 0o755, "etc": 0o755}.items():
        (root / name).mkdir()
        (root / name).chmod(mode)
    links = {**layout.TOP_LINKS, **{n: f"usr/{n}" for n in ("bin", "sbin", "lib", "lib64")}}
    for name, target in links.items():
        (root / name).symlink_to(target)


def directories_beside_usr(root: Path) -> dict[str, int]:
    """Return name -> mode of the empty directories that packages have in the root directory."""
    own = (entry for entry in root.iterdir() if entry.name not in layout.TOP_NAMES)
    return {entry.name: stat.S_IMODE(entry.lstat().st_mode) for entry in own if _is_empty_directory(entry)}


def unexpected_top_level(root: Path) -> list[str]:
    """Return the names of all else in the root directory, which a commit cannot hold."""
    own = (entry for entry in root.iterdir() if entry.name not in layout.TOP_NAMES)
    return sorted(entry.name for entry in own if not _is_empty_directory(entry))


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def require_space(path: Path, needed: int, what: str, *, removal: bool = False) -> None:
    """Raise ExternalFailure if the file system of `path` has fewer than `needed` bytes free.

    removal: whether packages are only removed, for which there is also what is reserved for root.
    """
    found = space.of(path)
    free = found.for_root if removal else found.available
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
    info = source.stat()
    os.chown(target, info.st_uid, info.st_gid)
    target.chmod(stat.S_IMODE(info.st_mode))
    for name in os.listxattr(source):
        if not name.startswith(whiteouts.XATTRS):
            os.setxattr(target, name, os.getxattr(source, name))
