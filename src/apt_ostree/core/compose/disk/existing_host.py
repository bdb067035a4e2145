"""The Debian that runs, as `install-to-existing-root` finds it. Only reads, and refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.errors import Refused
from apt_ostree.model import bootspace, grub, kargs
from apt_ostree.model.diskimage import Contents
from apt_ostree.model.existing_root import (
    BOOT_FILE_SYSTEMS,
    DEVICES,
    FILE_SYSTEMS,
    RESERVE,
    UNFINISHED,
    WRITABLE_FOR_GRUB,
)
from apt_ostree.model.sizes import show_size
from apt_ostree.system import blockdevice, files, mountinfo, running, space
from apt_ostree.system import grub as grub_files
from apt_ostree.system.mountinfo import MountPoint

_COMMAND_LINE = Path("/proc/cmdline")
#: What container managers leave in a container, relative to its root.
_OF_CONTAINERS = ("run/systemd/container", "run/.containerenv", ".dockerenv")
_AGAIN = "nothing was changed"


@dataclass(frozen=True, slots=True)
class Host:
    """What runs.

    name: of the system. device, filesystem, uuid: of its root.
    boot_uuid: of the file system with /boot, which is the root's if `boot_is_inside`.
    boot: the path of /boot on that, as GRUB knows it; "" if it is its root.
    counts: GRUB can write there.
    arguments: of the kernel.
    mount_points: of the other file systems.
    """

    name: str
    device: str
    filesystem: str
    uuid: str
    boot_uuid: str
    boot: str
    boot_is_inside: bool
    counts: bool
    arguments: kargs.Arguments
    mount_points: frozenset[str]


def look(root: Path) -> Host:
    """Return what runs. root: "/".

    Raises Refused for what cannot be taken over.
    """
    _check_kind(root)
    _check_loader(root)
    _check_names(root)
    mounts = mountinfo.read()
    main = _topmost(mounts, "/")
    boot = _topmost(mounts, "/boot") or main
    if main is None or boot is None or main.fstype not in FILE_SYSTEMS:
        found = main.fstype if main else "nothing that is mounted"
        raise Refused(
            f"root is {found}; only {', '.join(FILE_SYSTEMS)} can be taken over",
            hint="'apt-ostree install-to-disk' installs on another disk",
        )
    _check_writable(main)
    _check_boot(boot)
    return Host(
        name=_name(root),
        device=_device(main),
        filesystem=main.fstype,
        uuid=blockdevice.file_system_uuid(main.source),
        boot_uuid=blockdevice.file_system_uuid(boot.source),
        boot=_path_for_grub(boot, inside=boot is main),
        boot_is_inside=boot is main,
        counts=boot.fstype in WRITABLE_FOR_GRUB,
        arguments=kargs.split(_COMMAND_LINE.read_text()),
        mount_points=frozenset(one.target for one in mounts) - {"/"},
    )


def _check_kind(root: Path) -> None:
    if running.booted_on_ostree():
        raise Refused(
            "this system was booted from an OSTree deployment already", hint="'apt-ostree rebase' changes it"
        )
    if any((root / name).exists() for name in _OF_CONTAINERS):
        raise Refused("this is a container, which does not start from its own root", hint=_AGAIN)


def _check_loader(root: Path) -> None:
    runs = grub_files.own_menu_runs_hook(root)
    menu = f"/{grub_files.MENUS}"
    if runs is None:
        raise Refused(
            f"this system does not start with GRUB: there is no {menu}/grub.cfg",
            hint="install grub-pc or grub-efi-amd64, and run update-grub",
        )
    if not runs:
        raise Refused(
            f"GRUB's menu does not read {menu}/{grub.HOOK}, by which the new system is started",
            hint="make /etc/grub.d/41_custom executable again, and run update-grub",
        )
    if not grub_files.hook_is_free(root):
        raise Refused(
            f"there is a {menu}/{grub.HOOK} already, by which the new system is to be started",
            hint="move what it has to /etc/grub.d/40_custom, remove it, and run update-grub",
        )


def _check_names(root: Path) -> None:
    """Refuse what is in the place of what is to be made, unless an earlier takeover has left it."""
    if is_unfinished(root):
        return
    there = [f"/{name}" for name in ("ostree", "boot/ostree", "boot/loader") if (root / name).exists()]
    if there:
        raise Refused(
            f"{there[0]} exists already: the system was taken over before, or a repository is there",
            details=there,
            hint=f"remove it if nothing needs it, or move a repository elsewhere; {_AGAIN}",
        )


def is_unfinished(root: Path) -> bool:
    """Return whether an earlier takeover was killed before its end, and is not what the next boot starts."""
    return (root / "ostree" / UNFINISHED).exists() and not grub_files.is_hooked(root)


def _topmost(mounts: tuple[MountPoint, ...], target: str) -> MountPoint | None:
    stack = mountinfo.stack_at(mounts, target)
    # systemd mounts some only when they are used.
    return stack[-1] if stack and stack[-1].fstype != "autofs" else None


def _check_writable(mount: MountPoint) -> None:
    if "ro" in {*mount.options.split(","), *mount.super_options.split(",")}:
        raise Refused(f"{mount.target} is mounted read-only", hint=f"mount -o remount,rw {mount.target}")


def _check_boot(mount: MountPoint) -> None:
    _check_writable(mount)
    if mount.fstype not in BOOT_FILE_SYSTEMS:
        raise Refused(
            f"/boot is {mount.fstype}, and ostree needs {', '.join(BOOT_FILE_SYSTEMS)} there", hint=_AGAIN
        )


def _device(mount: MountPoint) -> str:
    device = blockdevice.read(Path(mount.source))
    if device.type not in DEVICES:
        raise Refused(
            f"root is on {device.path}, of the kind {device.type}; only a plain partition can be taken over",
            hint="'apt-ostree install-to-disk' installs on another disk",
        )
    return device.path


def _path_for_grub(mount: MountPoint, *, inside: bool) -> str:
    path = f"{mount.root.rstrip('/')}{'/boot' if inside else ''}"
    if grub.unusable([path]) or " " in path:
        raise Refused(f"GRUB's menu cannot have the path {path!r} of /boot", hint=_AGAIN)
    return path


def _name(root: Path) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)"?$', files.text_of(root / "etc/os-release"), re.MULTILINE)
    return found[1] if found and not grub.unusable([found[1]]) else "Debian"


def check_space(root: Path, host: Host, contents: Contents) -> None:
    """Raise Refused unless the tree, its kernel and initramfs fit beside the old system."""
    needed = contents.root + RESERVE
    _require("the root file system", needed, space.of(root).for_root)
    if not host.boot_is_inside:
        _require("/boot", contents.boot + bootspace.MARGIN, space.of(root / "boot").unused)


def _require(where: str, needed: int, free: int) -> None:
    if needed > free:
        raise Refused(
            f"there is too little space on {where}: {show_size(needed)} needed, {show_size(free)} free",
            hint=f"free some, such as with 'apt-get clean' or by removing old kernels; {_AGAIN}",
        )
