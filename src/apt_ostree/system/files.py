"""Reads and writes the states of paths, each write atomic and durable."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.system import mounts, whiteouts
from apt_ostree.system.failpoints import failpoint

_PREFIX = ".apt-ostree-"
#: Extended attributes that are the kernel's business.
_KERNEL_XATTRS = (whiteouts.XATTRS, "security.selinux")


def read_state(path: Path) -> FileState:
    """Return what a path holds."""
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    if stat.S_ISLNK(info.st_mode):
        return FileState("symlink", 0o777, info.st_uid, info.st_gid, os.fsencode(path.readlink()))
    return _state_of(info, path)


def read_open_state(fd: int) -> FileState:
    """Return what an open file holds; a link is opened with O_PATH."""
    info = os.fstat(fd)
    if stat.S_ISLNK(info.st_mode):
        target = os.readlink(b"", dir_fd=fd)  # readlink(2): an empty path means the link itself
        return FileState("symlink", 0o777, info.st_uid, info.st_gid, target)
    return _state_of(info, Path(f"/proc/self/fd/{fd}"))


def _state_of(info: os.stat_result, path: Path) -> FileState:
    """Return the state of what is not a link; path: leads to it."""
    mode, owner = stat.S_IMODE(info.st_mode), (info.st_uid, info.st_gid)
    if not (stat.S_ISDIR(info.st_mode) or stat.S_ISREG(info.st_mode)):
        return FileState("other", mode, *owner)
    names = sorted(name for name in os.listxattr(path) if not name.startswith(whiteouts.XATTRS))
    xattrs = tuple((name, os.getxattr(path, name)) for name in names)
    if stat.S_ISDIR(info.st_mode):
        return FileState("directory", mode, *owner, b"", xattrs)
    return FileState("file", mode, *owner, path.read_bytes(), xattrs)


#: A path below a top ("" or "/NAME..."), and what reads its state.
Entry = tuple[str, Callable[[], FileState]]


def walk(top: Path) -> Iterator[Entry]:
    """Yield a path and all that is below it; links are not followed."""
    yield "", partial(read_state, top)
    if top.is_dir() and not top.is_symlink():
        yield from walk_below(top)


def walk_below(top: Path) -> Iterator[Entry]:
    """Yield what is below a directory, as `walk` does; a directory comes before what is in it."""
    for directory, names, entries in os.walk(top):
        below = directory.removeprefix(str(top))
        for entry in (*names, *entries):
            yield f"{below}/{entry}", partial(read_state, Path(directory, entry))


def write_states(
    wanted: Sequence[tuple[Path, FileState]], *, seen: Mapping[Path, FileState] | None = None
) -> tuple[Path, ...]:
    """Make paths hold states, in this order; after a power cut each has its old or its new state.

    seen: what the paths held when this was decided. One that holds something else by now is left alone;
    these paths are returned.

    New contents are written beside their places and made durable together before the first one is renamed:
    one flush for all of them, where a flush for each would cost a hundred times more. A directory that
    should go but is not empty stays: what is in it is not ours.
    """
    prepared: dict[Path, Path] = {}
    edited: list[Path] = []
    try:
        for path, state in wanted:
            failpoint("etc.before-prepare")
            if state.type == "directory":
                _make_directory(path, state)
            elif state.type != "absent":
                prepared[path] = _prepare(path, state)
        _flush(path for path, _state in wanted)
        for path, state in wanted:
            failpoint("etc.before-write")
            if seen is not None and state.type != "directory" and read_state(path) != seen[path]:
                edited.append(path)
            elif state.type == "absent":
                _remove(path)
            elif path in prepared:
                _put(prepared.pop(path), path)
            failpoint("etc.after-write")
        _flush(path for path, _state in wanted)
    finally:
        discard_leftovers(prepared)
    return tuple(edited)


def write_state(path: Path, state: FileState) -> None:
    """Make one path hold `state`."""
    write_states([(path, state)])


def discard_leftovers(paths: Iterable[Path]) -> None:
    """Remove what a killed `write_states` left beside these paths."""
    for path in paths:
        temporary = _temporary(path)
        if temporary.is_dir() and not temporary.is_symlink():
            temporary.rmdir()
        else:
            _remove(temporary)


def holds_others(directory: Path, going: Collection[Path]) -> bool:
    """Tell whether anything lies below a directory that is not in `going`."""
    return any(path not in going for path in directory.rglob("*"))


def _temporary(path: Path) -> Path:
    """Return where a path's new state is written: a name that fits and that a later call knows, too."""
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
    """Write a file or link beside its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    discard_leftovers([path])
    if state.type == "symlink":
        temporary.symlink_to(os.fsdecode(state.content))
        os.lchown(temporary, state.uid, state.gid)
        return temporary
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(temporary, flags, 0o600), "wb") as stream:  # nobody else's, from the first instant
        stream.write(state.content)
    _set_metadata(temporary, state)
    return temporary


def _put(temporary: Path, path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    temporary.rename(path)


def _set_metadata(path: Path, state: FileState) -> None:
    os.lchown(path, state.uid, state.gid)
    wanted = dict(state.xattrs)
    for name in os.listxattr(path):  # a default ACL of the directory above, or what is no longer there
        if name not in wanted and not name.startswith(_KERNEL_XATTRS):
            os.removexattr(path, name)
    for name, value in wanted.items():
        os.setxattr(path, name, value)
    path.chmod(state.mode)


def _flush(paths: Iterable[Path]) -> None:
    """Make everything written so far durable on the file systems of these paths (syncfs(2))."""
    seen = set()
    for path in paths:
        parent = next(p for p in path.parents if p.is_dir())
        device = parent.stat().st_dev
        if device not in seen:
            seen.add(device)
            mounts.sync_file_system(parent)
