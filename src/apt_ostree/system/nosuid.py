"""Takes the effect of setuid, setgid and file capabilities from a covered mount, and gives it back.

Who has a directory of a mount open, or works in it, can go on to run its programs when another mount
covers it. `nosuid` (mount(8)) is a flag of the mount and not of the file system: programs still run, with
the rights of whom runs them. A mount that was unmounted needs nothing: for the kernel it is nosuid.

Each mount namespace has mounts of its own, with flags of their own. Those of other user namespaces are left
alone: root has no number in them, so that no program there can become root.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.system import mountinfo, mounts


@dataclass(frozen=True, slots=True)
class _Held:
    """A visible mount of a namespace, and descriptors of both."""

    mount: mountinfo.MountPoint
    namespace: int
    directory: int


@contextlib.contextmanager
def covering(target: str) -> Iterator[None]:
    """Have another mount attached at `target` inside the block; the one that it covers becomes nosuid.

    So do the copies of that mount in namespaces that the new mount reaches. The caller is in the namespace in
    which the mount is attached.
    """
    visible = _visible(target)
    if visible is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        here = _open_directory(target, stack)
        held = tuple(_copies(visible, target, stack))
        yield
        mounts.set_nosuid(here, nosuid=True)
        for other in held:
            with mounts.in_namespace(other.namespace), contextlib.suppress(OSError):
                if _visible(target) != other.mount:
                    mounts.set_nosuid(other.directory, nosuid=True)


def uncovered(target: str) -> None:
    """Undo `covering` for the mount that is visible at `target` now, in all namespaces; it may be undone."""
    visible = _visible(target)
    if visible is None:
        return
    if _is_nosuid(visible):
        mounts.set_nosuid(target, nosuid=False)
    with contextlib.ExitStack() as stack:
        for other in _copies(visible, target, stack):
            if _is_nosuid(other.mount):
                with mounts.in_namespace(other.namespace), contextlib.suppress(OSError):
                    mounts.set_nosuid(other.directory, nosuid=False)


def _is_nosuid(mount: mountinfo.MountPoint) -> bool:
    return "nosuid" in mount.options.split(",")


def _visible(target: str) -> mountinfo.MountPoint | None:
    stack = mountinfo.stack_at(mountinfo.read("thread-self"), target)
    return stack[-1] if stack else None


def _open_directory(path: str, stack: contextlib.ExitStack) -> int:
    directory = os.open(path, os.O_PATH | os.O_CLOEXEC)
    stack.callback(os.close, directory)
    return directory


def _copies(visible: mountinfo.MountPoint, target: str, stack: contextlib.ExitStack) -> Iterator[_Held]:
    """Yield the mounts at `target` in other namespaces that show the same as `visible`."""
    shown = (visible.root, visible.fstype, visible.source)
    for namespace in _other_namespaces(stack):
        held = None
        with mounts.in_namespace(namespace), contextlib.suppress(OSError):
            mount = _visible(target)
            if mount and (mount.root, mount.fstype, mount.source) == shown:
                held = _Held(mount, namespace, _open_directory(target, stack))
        if held:
            yield held


def _other_namespaces(stack: contextlib.ExitStack) -> Iterator[int]:
    """Yield descriptors of all mount namespaces of this user namespace but this thread's."""
    user = Path("/proc/self/ns/user").readlink()
    seen = {Path("/proc/thread-self/ns/mnt").readlink()}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it has ended
            name = (entry / "ns/mnt").readlink()
            if name in seen or (entry / "ns/user").readlink() != user:
                continue
            namespace = os.open(entry / "ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, namespace)
            seen.add(name)
            yield namespace
