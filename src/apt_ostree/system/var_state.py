"""Reads and places whole trees of files below /var. A machine's own files are never replaced."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path

from apt_ostree.system import files, mounts, process
from apt_ostree.system.failpoints import failpoint

_PREFIX = ".apt-ostree-seed-"


def digest(path: Path) -> str | None:
    """Return the digest of the content of a file or of the target of a symlink; None for anything else."""
    try:
        info = os.lstat(path)
        if stat.S_ISLNK(info.st_mode):
            return hashlib.sha256(b"link:" + os.fsencode(path.readlink())).hexdigest()
        if not stat.S_ISREG(info.st_mode):
            return None
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return None


def files_below(top: Path) -> dict[str, str]:
    """Return the digest of each file and symlink at or below a path ("" is the path itself)."""
    if (own := digest(top)) is not None:
        return {"": own}
    digests = {}
    for directory, names, entries in os.walk(top):
        links = [name for name in names if Path(directory, name).is_symlink()]
        for name in (*entries, *links):
            path = Path(directory, name)
            if (content := digest(path)) is not None:
                digests[str(path.relative_to(top))] = content
    return digests


def is_vacant(path: Path) -> bool:
    """Return whether there is nothing at a path but directories."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        return False
    return not any(
        entries or any(Path(directory, name).is_symlink() for name in names)
        for directory, names, entries in os.walk(path)
    )


def place(source: Path, target: Path) -> None:
    """Copy a tree of files to a vacant place, whole or not at all, even after a power cut.

    Raises ExternalFailure or OSError if that fails.
    """
    discard_leftovers(target)
    _make_parents(source, target)
    failpoint("seeds.before-copy")
    try:
        _copy(source, target)
        failpoint("seeds.copied")
        remove_empty(target)
        _temporary(target).rename(target)
    except BaseException:
        discard_leftovers(target)
        raise
    failpoint("seeds.placed")


def _copy(source: Path, target: Path) -> None:
    """Copy a tree beside the target, and have it on the disk."""
    words = ("cp", "--archive", "--reflink=auto", "--no-target-directory", "--")
    what = f"copy {target} to the machine"
    process.run([*words, str(source), str(_temporary(target))], what=what)
    mounts.sync_file_system(target.parent)


def discard_leftovers(target: Path) -> None:
    """Remove what a `place` that was cut short left; OSError if that fails."""
    files.remove_all(_temporary(target))


def remove_empty(top: Path) -> None:
    """Remove the directories at and below a path that hold nothing; a path that is no directory stays."""
    for directory, _names, _files in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):  # not empty
            Path(directory).rmdir()


def _make_parents(source: Path, target: Path) -> None:
    """Create missing parents of the target like those of the source."""
    if target.parent.is_dir():
        return
    _make_parents(source.parent, target.parent)
    target.parent.mkdir()
    info = source.parent.stat()
    os.chown(target.parent, info.st_uid, info.st_gid)
    target.parent.chmod(stat.S_IMODE(info.st_mode))


def _temporary(target: Path) -> Path:
    name = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    return target.with_name(_PREFIX + name)
