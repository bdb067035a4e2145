"""Reads and writes the states of paths; each write is atomic and durable."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.system import mounts, whiteouts
from apt_ostree.system.failpoints import failpoint

_PREFIX = ".apt-ostree-"
#: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_IMMUTABLE_FL of linux/fs.h, see ioctl_iflags(2).
_GET_FLAGS, _SET_FLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Extended attributes that only the kernel manages.
_KERNEL_XATTRS = (whiteouts.XATTRS, "security.selinux")


def read_state(path: Path) -> FileState:
    """Return the state of a path; a symlink is not followed."""
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    if stat.S_ISLNK(info.st_mode):
        return FileState("symlink", 0o777, info.st_uid, info.st_gid, os.fsencode(path.readlink()))
    return _state_of(info, path)


def read_open_state(fd: int) -> FileState:
    """Return the state of an open file; a symlink has to be opened with O_PATH."""
    info = os.fstat(fd)
    if stat.S_ISLNK(info.st_mode):
        target = os.readlink(b"", dir_fd=fd)  # readlink(2): an empty path means the descriptor itself
        return FileState("symlink", 0o777, info.st_uid, info.st_gid, target)
    return _state_of(info, Path(f"/proc/self/fd/{fd}"))


def _state_of(info: os.stat_result, path: Path) -> FileState:
    """Return the state of a path that is no symlink. path: may be a link in /proc to it."""
    mode, owner = stat.S_IMODE(info.st_mode), (info.st_uid, info.st_gid)
    if not (stat.S_ISDIR(info.st_mode) or stat.S_ISREG(info.st_mode)):
        return FileState("other", mode, *owner)
    names = sorted(name for name in os.listxattr(path) if not name.startswith(whiteouts.XATTRS))
    xattrs = tuple((name, os.getxattr(path, name)) for name in names)
    if stat.S_ISDIR(info.st_mode):
        return FileState("directory", mode, *owner, b"", xattrs)
    return FileState("file", mode, *owner, path.read_bytes(), xattrs)


#: A path relative to the top of a walk ("" or "/NAME..."), and a function that reads its state.
Entry = tuple[str, Callable[[], FileState]]


def walk(top: Path) -> Iterator[Entry]:
    """Yield a path and all paths below it; symlinks are not followed."""
    yield "", partial(read_state, top)
    if top.is_dir() and not top.is_symlink():
        yield from walk_below(top)


def directories(top: Path) -> Iterator[str]:
    """Yield the paths of the directories below a directory, relative to it; symlinks are not followed."""
    for directory, names, _files in os.walk(top):
        paths = (Path(directory, name) for name in names)
        yield from (str(path.relative_to(top)) for path in paths if not path.is_symlink())


def walk_below(top: Path) -> Iterator[Entry]:
    """Yield the paths below a directory, as `walk` does; a directory precedes its contents."""
    for directory, names, entries in os.walk(top):
        below = directory.removeprefix(str(top))
        for entry in (*names, *entries):
            yield f"{below}/{entry}", partial(read_state, Path(directory, entry))


def write_states(
    states: Sequence[tuple[Path, FileState]], *, seen: Mapping[Path, FileState] | None = None
) -> tuple[Path, ...]:
    """Write states of paths, in this order; return the paths that were skipped as they have been edited.

    After a power cut each path has its old or its new state. New contents are written to temporary files and
    made durable together before the first one is renamed: one flush for all of them, since a flush for each
    would cost a hundred times more. A directory that is to be removed but is not empty is left alone.

    seen: the states of the paths when the change was planned; a path with another state is skipped.
    """
    prepared: dict[Path, Path] = {}
    edited: list[Path] = []
    try:
        for path, state in states:
            failpoint("etc.before-prepare")
            if state.type == "directory":
                _make_directory(path, state)
            elif state.type != "absent":
                prepared[path] = _prepare(path, state)
        _flush(path for path, _state in states)
        for path, state in states:
            failpoint("etc.before-write")
            if seen is not None and state.type != "directory" and read_state(path) != seen[path]:
                edited.append(path)
            elif state.type == "absent":
                _remove(path)
            elif path in prepared:
                _put(prepared.pop(path), path)
            failpoint("etc.after-write")
        _flush(path for path, _state in states)
    finally:
        discard_leftovers(prepared)
    return tuple(edited)


def discard_leftovers(paths: Iterable[Path]) -> None:
    """Remove the temporary files that a killed `write_states` left for these paths."""
    for path in paths:
        temporary = _temporary(path)
        if temporary.is_dir() and not temporary.is_symlink():
            temporary.rmdir()
        else:
            _remove(temporary)


def holds_others(directory: Path, removed: Collection[Path]) -> bool:
    """Return whether any path below a directory is not in `removed`."""
    return any(path not in removed for path in directory.rglob("*"))


def text_of(path: Path) -> str:
    """Return the text of a file, byte by byte whatever its encoding; a missing file has none."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""


def can_link(file: Path, directory: Path) -> bool:
    """Return whether a file can have another name in a directory; between two mounts it cannot."""
    probe = _temporary(directory / file.name)
    try:
        os.link(file, probe)
    except OSError:
        return False
    probe.unlink()
    return True


def write_text(path: Path, text: str) -> None:
    """Write a file if its text differs: an unchanged file must not appear in an upper directory."""
    if text_of(path) != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="surrogateescape")


def replace_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a file so that nobody ever reads a part of it, or none after a power cut."""
    temporary = _temporary(path)
    discard_leftovers([path])
    try:
        with os.fdopen(os.open(temporary, _NEW, 0o600), "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(text.encode("utf-8", "surrogateescape"))
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_all(path: Path) -> None:
    """Remove a path with all below it, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_immutable(path: Path) -> None:
    """Set the flag that ostree sets on a deployment's root, if the file system knows it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            flags = struct.unpack("l", fcntl.ioctl(fd, _GET_FLAGS, bytes(struct.calcsize("l"))))[0]
            fcntl.ioctl(fd, _SET_FLAGS, struct.pack("l", flags | _IMMUTABLE))
    finally:
        os.close(fd)


def _temporary(path: Path) -> Path:
    """Return the path of a path's temporary file: short enough, and the same for every call."""
    return path.with_name(_PREFIX + hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16])


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
    if path.is_dir() and not path.is_symlink():
        _set_metadata(path, state)
        return
    temporary = _temporary(path)
    discard_leftovers([path])
    temporary.mkdir(parents=True)
    _set_metadata(temporary, state)
    _remove(path)
    temporary.rename(path)


def _prepare(path: Path, state: FileState) -> Path:
    """Write a file or symlink to its temporary path, and return that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    discard_leftovers([path])
    if state.type == "symlink":
        temporary.symlink_to(os.fsdecode(state.content))
        os.lchown(temporary, state.uid, state.gid)
        return temporary
    with os.fdopen(os.open(temporary, _NEW, 0o600), "wb") as stream:  # private from the start
        stream.write(state.content)
    _set_metadata(temporary, state)
    return temporary


def _put(temporary: Path, path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    temporary.rename(path)


def _set_metadata(path: Path, state: FileState) -> None:
    os.lchown(path, state.uid, state.gid)
    xattrs = dict(state.xattrs)
    for name in os.listxattr(path):  # such as a default ACL of the parent, or an attribute of the old state
        if name not in xattrs and not name.startswith(_KERNEL_XATTRS):
            os.removexattr(path, name)
    for name, value in xattrs.items():
        os.setxattr(path, name, value)
    path.chmod(state.mode)


def _flush(paths: Iterable[Path]) -> None:
    """Flush the file systems of these paths to the disk (syncfs(2))."""
    seen = set()
    for path in paths:
        parent = next(p for p in path.parents if p.is_dir())
        device = parent.stat().st_dev
        if device not in seen:
            seen.add(device)
            mounts.sync_file_system(parent)
