"""Reads and writes the state of single paths, each write atomic and durable."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.system.failpoints import failpoint

_PREFIX = ".apt-ostree-"


def read_state(path: Path) -> FileState:
    """Return what a path holds."""
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    mode, owner = stat.S_IMODE(info.st_mode), (info.st_uid, info.st_gid)
    if stat.S_ISLNK(info.st_mode):
        return FileState("symlink", 0o777, *owner, os.fsencode(path.readlink()))
    xattrs = tuple(
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in sorted(os.listxattr(path, follow_symlinks=False))
        if not name.startswith("trusted.overlay.")
    )
    if stat.S_ISDIR(info.st_mode):
        return FileState("directory", mode, *owner, b"", xattrs)
    if stat.S_ISREG(info.st_mode):
        return FileState("file", mode, *owner, path.read_bytes(), xattrs)
    return FileState("other", mode, *owner)


def is_whiteout(path: Path) -> bool:
    """Tell whether a path is an overlayfs whiteout (overlayfs.rst)."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def write_state(path: Path, state: FileState) -> None:
    """Make a path hold `state`; readers see the old or the new content, also after a power cut.

    A directory that should go but is not empty stays: what is in it belongs to the administrator.
    """
    failpoint("etc.before-write")
    if state.type == "absent":
        _remove(path)
    elif state.type == "directory":
        _make_directory(path, state)
    else:
        _replace(path, state)
    _sync_directory(path.parent)
    failpoint("etc.after-write")


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        if not path.is_dir():
            raise
        del error  # not empty


def _make_directory(path: Path, state: FileState) -> None:
    if not path.is_dir() or path.is_symlink():
        _remove(path)
        path.mkdir(parents=True)
    _set_metadata(path, state)


def _replace(path: Path, state: FileState) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_PREFIX}{path.name}"[:255])
    temporary.unlink(missing_ok=True)
    try:
        if state.type == "symlink":
            temporary.symlink_to(os.fsdecode(state.content))
            os.lchown(temporary, state.uid, state.gid)
        else:
            with temporary.open("xb") as stream:
                os.fchmod(stream.fileno(), 0o600)
                stream.write(state.content)
                stream.flush()
                os.fsync(stream.fileno())
            _set_metadata(temporary, state)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _set_metadata(path: Path, state: FileState) -> None:
    os.lchown(path, state.uid, state.gid)
    path.chmod(state.mode)
    for name, value in state.xattrs:
        os.setxattr(path, name, value)


def _sync_directory(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
