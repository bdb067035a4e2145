"""The view: the mount at /usr in PID 1's namespace, and the one primitive that changes it.

A view is an overlay of layers over the booted /usr. Nothing edits a mounted layer: a change builds a new
overlay beside the old one and slips it under, so that no path lookup fails and none sees a mixture.
Our mounts carry `apt-ostree:GENERATION` as their source, visible in /proc/1/mountinfo.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from apt_ostree.errors import Refused
from apt_ostree.system import mountinfo, mounts
from apt_ostree.system.failpoints import failpoint

USR = "/usr"
_SOURCE = "apt-ostree:"
_PID1 = 1
#: Nothing that would tie a layer to one mount: layers are shared between generations.
_OPTIONS = {"index": "off", "metacopy": "off", "redirect_dir": "nofollow", "xino": "off"}


def generation() -> int | None:
    """Return the generation that /usr shows, or None when the topmost mount is not ours."""
    stack = mountinfo.stack_at(mountinfo.read(_PID1), USR)
    return _generation_of(stack[-1]) if stack else None


def stacked() -> tuple[int, ...]:
    """Return the generations of all our mounts at /usr, the visible one last."""
    stack = mountinfo.stack_at(mountinfo.read(_PID1), USR)
    return tuple(g for mount in stack if (g := _generation_of(mount)) is not None)


def unlocked_upper() -> str | None:
    """Return the upper directory of the overlay that /usr shows, if it is writable and not ours."""
    stack = mountinfo.stack_at(mountinfo.read(_PID1), USR)
    if not stack or stack[-1].fstype != "overlay" or _generation_of(stack[-1]) is not None:
        return None
    options = dict(word.partition("=")[::2] for word in stack[-1].super_options.split(","))
    return options.get("upperdir")


def unlocked() -> str:
    """Return how the visible mount is unlocked: "development", "transient" (after a remount) or "none"."""
    stack = mountinfo.stack_at(mountinfo.read(_PID1), USR)
    if not stack or not _has_upper(stack[-1]):
        return "none"
    return "development" if "rw" in stack[-1].options.split(",") else "transient"


def _has_upper(mount: mountinfo.MountPoint) -> bool:
    return mount.fstype == "overlay" and ",upperdir=" in f",{mount.super_options}"


def refuse_foreign_mount() -> None:
    """Refuse when something else was mounted over our view."""
    stack = mountinfo.stack_at(mountinfo.read(_PID1), USR)
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
    """Make /usr show these directories, the topmost first, as one atomic switch.

    scratch: an empty directory outside /usr, with room beside it. upper: upper and work directory of an
    unlocked system; its view is put on top of others, and others on top of it, so that it can come back.
    The caller is in a private namespace.
    """
    overlay = mounts.new_overlay(
        [str(lower) for lower in _at_least_two(lowers, scratch.parent)],
        source=f"{_SOURCE}{generation}",
        scratch=scratch,
        upper=(str(upper[0]), str(upper[1])) if upper else None,
        options=_OPTIONS,
        read_only=read_only,
    )
    try:
        tree = _carry_submounts(overlay, scratch)
        try:
            failpoint("switch.before")
            with mounts.in_namespace_of(_PID1):
                _swap(tree, replace=upper is None and unlocked() == "none")
            failpoint("switch.after")
        finally:
            if tree != overlay:
                os.close(tree)
    finally:
        os.close(overlay)


def show_hotfix() -> None:
    """Show the overlay that libostree has mounted at /usr in our namespace to all."""
    tree = mounts.open_tree(USR)
    try:
        with mounts.in_namespace_of(_PID1):
            mounts.attach(tree, USR)
    finally:
        os.close(tree)


def finish_switch() -> None:
    """Detach the old view that a killed switch left on top of its new one."""
    with mounts.in_namespace_of(_PID1):
        mounts.umount(USR, detach=True)


def withdraw(down_to: int | None = None) -> None:
    """Take our mounts away, the newest first, until generation `down_to` (or none of ours) is visible."""
    while True:
        visible = generation()
        if visible is None or visible == down_to:
            return
        failpoint("withdraw.before")
        with mounts.in_namespace_of(_PID1):
            mounts.umount(USR, detach=True)
        failpoint("withdraw.after")


def _swap(tree: int, *, replace: bool) -> None:
    """Replace our visible mount by `tree`, or put `tree` on top where /usr is not ours yet."""
    if generation() is None or not replace:
        mounts.attach(tree, USR)
        return
    try:
        mounts.attach(tree, USR, beneath=True)
    except OSError as error:
        # Before Linux 6.5, or where /usr is in its parent's peer group (move_mount(2)). On top is atomic.
        if error.errno != errno.EINVAL:
            raise
        mounts.attach(tree, USR)
        return
    failpoint("switch.between")
    mounts.umount(USR, detach=True)


def submounts() -> tuple[str, ...]:
    """Return the mount points below /usr, which a new view takes over."""
    return tuple(mount.target for mount in mountinfo.below(mountinfo.read(_PID1), USR))


def _at_least_two(lowers: Sequence[Path], parent: Path) -> Sequence[Path]:
    """Add an empty directory to a single one: a read-only overlay needs two (overlayfs.rst)."""
    if len(lowers) > 1:
        return lowers
    empty = parent / "empty"
    empty.mkdir(mode=0o700, exist_ok=True)
    return (*lowers, empty)


def _carry_submounts(overlay: int, scratch: Path) -> int:
    """Return a tree of the overlay and copies of the mounts below the present /usr."""
    submounts = mountinfo.below(mountinfo.read(_PID1), USR)
    if not submounts:
        return overlay
    mounts.attach(overlay, scratch)
    try:
        for mount in submounts:
            target = scratch / Path(mount.target).relative_to(USR)
            if not os.path.lexists(target):
                raise Refused(
                    f"{mount.target} is a mount point, and the new tree has no such path",
                    hint=f"unmount {mount.target} first",
                )
            with mounts.in_namespace_of(_PID1):
                copy = mounts.open_tree(mount.target, recursive=True)
            try:
                mounts.attach(copy, target)
            finally:
                os.close(copy)
        # Attaching to a detached tree needs Linux 6.15, so the tree is built here and copied whole.
        return mounts.open_tree(scratch, recursive=True)
    finally:
        mounts.umount(scratch, detach=True)


def _generation_of(mount: mountinfo.MountPoint) -> int | None:
    if mount.fstype != "overlay" or not mount.source.startswith(_SOURCE):
        return None
    number = mount.source.removeprefix(_SOURCE)
    return int(number) if number.isdecimal() else None
