"""The kernel's mount interface: namespaces, detached overlay mounts, moving mounts, flushing.

Uses ctypes: no binding of the fsopen(2) family or of syncfs(2) exists. It knows system calls, not
deployments or layers. Every function raises OSError with the path or the kernel's own explanation.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

# System call numbers are the same on every architecture from 424 on (linux/unistd.h).
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442

AT_FDCWD = -100
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_BENEATH = 0x200
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CMD_CREATE = 0, 1, 6
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = 1, 2
_AT_EMPTY_PATH = 0x1000

CLONE_NEWNS = 0x00020000
CLONE_FS = 0x00000200
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = (
    1,
    32,
    4096,
    16384,
    1 << 18,
    1 << 19,
    1 << 20,
)
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8


def mount(
    source: str, target: str | Path, fstype: str | None = None, flags: int = 0, data: str | None = None
) -> None:
    """Mount a file system or change a mount, as mount(2) does."""
    texts = [os.fsencode(text) if text is not None else None for text in (source, target, fstype, data)]
    result = _libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])
    _check(result, os.fspath(target))


def umount(target: str | Path, *, detach: bool = False) -> None:
    """Unmount the topmost mount at `target`; detach: lazily, so that processes may continue to use it."""
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if detach else 0)
    _check(_libc.umount2(os.fsencode(target), flags), os.fspath(target))


def enter_private_namespace() -> None:
    """Move this process into a new mount namespace, which still receives the mounts of the host."""
    _check(_libc.unshare(CLONE_NEWNS), "mount namespace")
    mount("none", "/", flags=MS_REC | MS_SLAVE)


@contextlib.contextmanager
def in_namespace_of(pid: int) -> Iterator[None]:
    """Switch this thread to the mount namespace and root directory of a process inside the block."""
    theirs = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with in_namespace(theirs):
            yield
    finally:
        os.close(theirs)


@contextlib.contextmanager
def in_namespace(theirs: int) -> Iterator[None]:
    """Switch this thread to a mount namespace, given by its descriptor, inside the block."""
    ours = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    cwd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # setns(2) refuses a thread that shares its root and cwd with others (libostree starts threads).
        _check(_libc.unshare(CLONE_FS), "file system context")
        _check(_libc.setns(theirs, CLONE_NEWNS), "mount namespace of another process")
        try:
            yield
        finally:
            # Tried twice: no later step, nor an undo, may run in the other namespace.
            if _libc.setns(ours, CLONE_NEWNS) < 0:
                _check(_libc.setns(ours, CLONE_NEWNS), "own mount namespace")
            os.fchdir(cwd)
    finally:
        for fd in (ours, cwd):
            os.close(fd)


def set_nosuid(mount: int | str, *, nosuid: bool) -> None:
    """Set or clear nosuid of a mount, given by a path or a descriptor of its root (mount_setattr(2))."""
    changes = (MOUNT_ATTR_NOSUID, 0) if nosuid else (0, MOUNT_ATTR_NOSUID)
    attributes = (ctypes.c_uint64 * 4)(
        *changes, 0, 0
    )  # struct mount_attr: set, clear, propagation, userns_fd
    fd, path = (AT_FDCWD, os.fsencode(mount)) if isinstance(mount, str) else (mount, b"")
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    result = _libc.syscall(_MOUNT_SETATTR, fd, path, _AT_EMPTY_PATH, ctypes.byref(attributes), size)
    _check(result, f"flags of the mount {mount}")


def sync_file_system(directory: Path) -> None:
    """Write the file system of a directory to its disk, as syncfs(2) does."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check(_libc.syncfs(fd), os.fspath(directory))
    finally:
        os.close(fd)


def new_overlay_mount(
    lowers: Sequence[str],
    *,
    source: str,
    scratch: Path,
    upper: tuple[str, str] | None = None,
    options: Mapping[str, str | None] | None = None,
    read_only: bool = True,
) -> int:
    """Create a detached overlay mount; return its descriptor.

    lowers: lower directories, the topmost first, by paths that the mount will not cover.
    source: of the mount, as mountinfo shows it.
    upper: (upperdir, workdir) of a writable mount.
    options: of overlayfs; None for an option without a value.
    scratch: an empty directory in a private namespace, used if the kernel lacks `lowerdir+` (before 6.8).
    """
    all_options = dict(options or {})
    if upper:
        all_options |= {"upperdir": upper[0], "workdir": upper[1]}
    try:
        return _overlay_mount_by_fsconfig(lowers, source, all_options, read_only=read_only)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        return _overlay_mount_by_mount(lowers, source, all_options, scratch, read_only=read_only)


def mount_overlay(
    lowers: Sequence[str],
    target: str | Path,
    *,
    source: str,
    scratch: Path,
    upper: tuple[str, str] | None = None,
    options: Mapping[str, str | None] | None = None,
) -> None:
    """Mount an overlay at `target`, writable if it has an upper directory; see `new_overlay_mount`."""
    mount_fd = new_overlay_mount(
        lowers, source=source, scratch=scratch, upper=upper, options=options, read_only=upper is None
    )
    try:
        attach(mount_fd, target)
    finally:
        os.close(mount_fd)


def _overlay_mount_by_fsconfig(
    lowers: Sequence[str], source: str, options: Mapping[str, str | None], *, read_only: bool
) -> int:
    context = _check(_libc.syscall(_FSOPEN, b"overlay", _FSOPEN_CLOEXEC), "overlayfs")
    try:
        settings = [("source", source), *(("lowerdir+", lower) for lower in lowers), *options.items()]
        for key, value in settings:
            kind = _SET_FLAG if value is None else _SET_STRING
            text = None if value is None else value.encode()
            result = _libc.syscall(_FSCONFIG, context, kind, key.encode(), text, 0)
            _check(result, f"overlayfs option {key}={value}{_explain(context) if result < 0 else ''}")
        result = _libc.syscall(_FSCONFIG, context, _CMD_CREATE, None, None, 0)
        reason = _explain(context) if result < 0 else ""
        _check(result, f"overlay mount of {len(lowers)} lower directories{reason}")
        attributes = MOUNT_ATTR_RDONLY if read_only else 0
        return _check(_libc.syscall(_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes), "overlay mount")
    finally:
        os.close(context)


def _explain(context: int) -> str:
    """Return the messages that the kernel left for a failed fsconfig(2)."""
    saved = ctypes.get_errno()
    try:
        return ": " + os.read(context, 4096).decode(errors="replace").strip()
    except OSError:
        return ""
    finally:
        ctypes.set_errno(saved)


def _overlay_mount_by_mount(
    lowers: Sequence[str], source: str, options: Mapping[str, str | None], scratch: Path, *, read_only: bool
) -> int:
    all_options = ["lowerdir=" + ":".join(lowers)]
    all_options += [key if value is None else f"{key}={value}" for key, value in options.items()]
    data = ",".join(all_options)
    if len(data) >= os.sysconf("SC_PAGE_SIZE"):  # mount(2) would cut it silently (live-switch notes in docs)
        raise OSError(errno.E2BIG, f"too many lower directories for this kernel's mount(2): {len(lowers)}")
    mount(source, scratch, "overlay", MS_RDONLY if read_only else 0, data)
    try:
        return open_tree(scratch)
    finally:
        umount(scratch, detach=True)


def open_tree(path: str | Path, *, recursive: bool = False) -> int:
    """Return the descriptor of a detached copy of the mount at `path`.

    recursive: with the mounts below it.
    """
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return _check(_libc.syscall(_OPEN_TREE, AT_FDCWD, os.fsencode(path), flags), os.fspath(path))


def attach(mount_fd: int, target: str | Path, *, beneath: bool = False) -> None:
    """Attach a detached mount at `target`, on top of the mounts there or beneath the topmost one.

    See move_mount(2). beneath: needs Linux 6.5; EINVAL is raised where it is not possible.
    """
    flags = MOVE_MOUNT_F_EMPTY_PATH | (MOVE_MOUNT_BENEATH if beneath else 0)
    result = _libc.syscall(_MOVE_MOUNT, mount_fd, b"", AT_FDCWD, os.fsencode(target), flags)
    _check(result, os.fspath(target))


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result
