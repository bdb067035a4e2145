"""The view: the overlay mount at /usr in PID 1's namespace, and the operation that replaces it.

A view has layers as lower directories on top of the booted /usr. A mounted layer is never edited: a change
mounts a new view beneath the old one and then unmounts the old one, so that no path lookup fails and none
sees a mixture. The source of our mounts is `apt-ostree:GENERATION`, as /proc/1/mountinfo shows.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.errors import Refused
from apt_ostree.system import mountinfo, mounts, nosuid
from apt_ostree.system.failpoints import failpoint

USR = "/usr"
_SOURCE = "apt-ostree:"
PID1 = 1
#: No option that would bind a layer to one mount: generations share layers.
_OPTIONS = {"index": "off", "metacopy": "off", "redirect_dir": "nofollow", "xino": "off"}


def generation() -> int | None:
    """Return the generation of the visible mount at /usr, or None if that is not ours."""
    stack = mountinfo.stack_at(mountinfo.read(PID1), USR)
    return _generation_of(stack[-1]) if stack else None


def stacked() -> tuple[int, ...]:
    """Return the generations of all our mounts at /usr, the topmost last."""
    stack = mountinfo.stack_at(mountinfo.read(PID1), USR)
    return tuple(g for mount in stack if (g := _generation_of(mount)) is not None)


@dataclass(frozen=True, slots=True)
class ViewInUse:
    """One of our mounts in a mount namespace.

    pid: the first process of the namespace.
    directories: those that the mount consists of.
    """

    generation: int
    pid: int
    directories: frozenset[Path]


def in_use() -> tuple[ViewInUse, ...]:
    """Return our mounts in the mount namespaces of all processes.

    A service with a namespace of its own may keep the view that it was started with.
    """
    seen: set[str] = set()
    views: dict[tuple[int, int], frozenset[Path]] = {}
    for pid in sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
        with contextlib.suppress(OSError):  # it has ended; others may be in its namespace
            namespace = str(Path(f"/proc/{pid}/ns/mnt").readlink())
            if namespace in seen:
                continue
            for mount in mountinfo.read(pid):
                if (number := _generation_of(mount)) is not None:
                    views[number, pid] = frozenset(_directories(mount))
            seen.add(namespace)
    return tuple(ViewInUse(number, pid, directories) for (number, pid), directories in views.items())


def _directories(mount: mountinfo.MountPoint) -> Iterator[Path]:
    """Yield the directories of an overlay mount, from its options (overlayfs.rst)."""
    for option in mount.super_options.split(","):
        name, _, value = option.partition("=")
        if name in ("lowerdir", "lowerdir+", "upperdir"):
            yield from map(Path, value.split(":"))


def unlocked_upper() -> str | None:
    """Return the upper directory of the visible mount at /usr, or None if it has none or is ours."""
    stack = mountinfo.stack_at(mountinfo.read(PID1), USR)
    if not stack or stack[-1].fstype != "overlay" or _generation_of(stack[-1]) is not None:
        return None
    options = dict(option.partition("=")[::2] for option in stack[-1].super_options.split(","))
    return options.get("upperdir")


def unlocked() -> str:
    """Return how the visible mount is unlocked: "development", "transient" (after a remount) or "none"."""
    stack = mountinfo.stack_at(mountinfo.read(PID1), USR)
    if not stack or not _has_upper(stack[-1]):
        return "none"
    return "development" if "rw" in stack[-1].options.split(",") else "transient"


def _has_upper(mount: mountinfo.MountPoint) -> bool:
    return mount.fstype == "overlay" and ",upperdir=" in f",{mount.super_options}"


def foreign() -> str | None:
    """Return the source of an overlay of another program over /usr, such as "sysext", or None."""
    stack = mountinfo.stack_at(mountinfo.read("self"), USR)
    if not stack or stack[-1].fstype != "overlay" or _has_upper(stack[-1]):
        return None
    return stack[-1].source if _generation_of(stack[-1]) is None else None


def refuse_foreign_mount() -> None:
    """Raise Refused if another mount covers our view."""
    stack = mountinfo.stack_at(mountinfo.read(PID1), USR)
    if any(_generation_of(mount) is not None for mount in stack) and _generation_of(stack[-1]) is None:
        raise Refused(
            f"something else is mounted over the live view at {USR} ({stack[-1].fstype}, {stack[-1].source})",
            hint=f"unmount it first (see 'findmnt {USR}'), for example with 'systemd-sysext unmerge'",
        )


def show(
    generation: int,
    lowers: Sequence[Path],
    *,
    scratch: Path,
    upper: tuple[Path, Path] | None = None,
    read_only: bool = True,
) -> None:
    """Mount a view of these directories, the topmost first, as one atomic switch.

    The caller must be in a private mount namespace. The view of an unlocked system does not replace others,
    nor is it replaced: both are mounted on top, so that a rollback can show the lower one again.

    scratch: an empty directory outside /usr, whose parent is writable.
    upper: the upper and the work directory of an unlocked system.
    """
    view = mounts.new_overlay_mount(
        [str(lower) for lower in _at_least_two(lowers, scratch.parent)],
        source=f"{_SOURCE}{generation}",
        scratch=scratch,
        upper=(str(upper[0]), str(upper[1])) if upper else None,
        options=_OPTIONS,
        read_only=read_only,
    )
    try:
        mount_fd = _carry_submounts(view, scratch)
        try:
            failpoint("switch.before")
            with mounts.in_namespace_of(PID1):
                _swap(mount_fd, replace=upper is None and unlocked() == "none")
            failpoint("switch.after")
        finally:
            if mount_fd != view:
                os.close(mount_fd)
    finally:
        os.close(view)


def mount_at(target: Path, lowers: Sequence[Path], *, scratch: Path) -> None:
    """Mount a view of these directories, the topmost first, at another place, where no generation shows it.

    scratch: an empty directory, whose parent is writable.
    """
    directories = [str(lower) for lower in _at_least_two(lowers, scratch.parent)]
    mounts.mount_overlay(directories, target, source="apt-ostree", scratch=scratch, options=_OPTIONS)


def show_hotfix() -> None:
    """Copy the overlay mount that libostree has made at /usr in our namespace to that of PID 1."""
    mount_fd = mounts.open_tree(USR)
    try:
        with mounts.in_namespace_of(PID1):
            _attach_on_top(mount_fd)
    finally:
        os.close(mount_fd)


def finish_switch() -> None:
    """Unmount the old view that a killed switch left on top of the new one."""
    with mounts.in_namespace_of(PID1):
        mounts.umount(USR, detach=True)


def withdraw(down_to: int | None = None) -> None:
    """Unmount our mounts, the newest first, until generation `down_to` (None: none of ours) is visible."""
    while True:
        visible = generation()
        if visible is None or visible == down_to:
            return
        failpoint("withdraw.before")
        with mounts.in_namespace_of(PID1):
            mounts.umount(USR, detach=True)
            nosuid.uncovered(USR)
        failpoint("withdraw.after")


def finish_withdrawal() -> None:
    """Let programs of the visible mount gain privileges: a killed `withdraw` may not have come to it."""
    with mounts.in_namespace_of(PID1):
        nosuid.uncovered(USR)


def _swap(mount_fd: int, *, replace: bool) -> None:
    """Attach a mount at /usr: on top, or (replace) in place of our visible mount."""
    if generation() is None or not replace:
        _attach_on_top(mount_fd)
        return
    try:
        mounts.attach(mount_fd, USR, beneath=True)
    except OSError as error:
        # Before Linux 6.5, or where /usr is in its parent's peer group (move_mount(2)). On top is atomic.
        if error.errno != errno.EINVAL:
            raise
        _attach_on_top(mount_fd)
        return
    failpoint("switch.between")
    mounts.umount(USR, detach=True)


def _attach_on_top(mount_fd: int) -> None:
    """Attach a mount at /usr; programs of what it covers gain no privileges any more."""
    with nosuid.covering(USR):
        mounts.attach(mount_fd, USR)


def submounts() -> tuple[str, ...]:
    """Return the mount points below /usr, which are copied to a new view."""
    return tuple(mount.target for mount in mountinfo.below(mountinfo.read(PID1), USR))


def _at_least_two(lowers: Sequence[Path], parent: Path) -> Sequence[Path]:
    """Add an empty directory to a single one: a read-only overlay mount needs two (overlayfs.rst)."""
    if len(lowers) > 1:
        return lowers
    empty = parent / "empty"
    empty.mkdir(mode=0o700, exist_ok=True)
    return (*lowers, empty)


def _carry_submounts(view: int, scratch: Path) -> int:
    """Return a mount of the view and of copies of the mounts below the present /usr."""
    submounts = mountinfo.below(mountinfo.read(PID1), USR)
    if not submounts:
        return view
    mounts.attach(view, scratch)
    try:
        for mount in submounts:
            target = scratch / Path(mount.target).relative_to(USR)
            if not os.path.lexists(target):
                raise Refused(
                    f"{mount.target} is a mount point, and the new tree has no such path",
                    hint=f"unmount {mount.target} first",
                )
            with mounts.in_namespace_of(PID1):
                copy = mounts.open_tree(mount.target, recursive=True)
            try:
                mounts.attach(copy, target)
            finally:
                os.close(copy)
        # Attaching to a detached mount needs Linux 6.15, so the mounts are attached here and copied together.
        return mounts.open_tree(scratch, recursive=True)
    finally:
        mounts.umount(scratch, detach=True)


def _generation_of(mount: mountinfo.MountPoint) -> int | None:
    if mount.fstype != "overlay" or not mount.source.startswith(_SOURCE):
        return None
    number = mount.source.removeprefix(_SOURCE)
    return int(number) if number.isdecimal() else None
