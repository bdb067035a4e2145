"""Block devices as lsblk(8) lists them, and whether a system can be installed on one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apt_ostree.errors import Refused
from apt_ostree.model.diskimage import SECTOR
from apt_ostree.model.sizes import show_size

#: What lsblk is asked for.
COLUMNS = "PATH,TYPE,SIZE,RO,LOG-SEC,MODEL,SERIAL,PKNAME,FSTYPE,PTTYPE,LABEL,MOUNTPOINTS"
_DISKS = ("disk", "loop")
_PARTITION = "part"


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """A block device, with the devices that are made of it.

    path: of its node in /dev.
    type: disk, loop, part, or what else lsblk calls it, such as crypt, lvm or raid1.
    size: in bytes. sector: the size of a logical sector.
    parent: the path of the device that it is a part of, or empty.
    content: its file system or its kind of partition table, such as ext4 or gpt; "" if there is none.
    mount_points: where it is mounted; [SWAP] if it is swap space that is in use.
    """

    path: str
    type: str
    size: int
    read_only: bool = False
    sector: int = SECTOR
    model: str = ""
    serial: str = ""
    parent: str = ""
    content: str = ""
    label: str = ""
    mount_points: tuple[str, ...] = ()
    parts: tuple[BlockDevice, ...] = ()

    @property
    def all(self) -> Iterator[BlockDevice]:
        """Yield the device, and all that is made of it, directly or not."""
        yield self
        for part in self.parts:
            yield from part.all

    def __str__(self) -> str:
        """Return what there is, as a plan shows it."""
        named = f' "{self.label}"' if self.label else ""
        mounted = f", mounted on {', '.join(self.mount_points)}" if self.mount_points else ""
        return f"{self.path}: {self.content or self.type}{named}, {show_size(self.size)}{mounted}"


def of_lsblk(row: Mapping[str, Any]) -> BlockDevice:
    """Return the device of an object in the output of `lsblk --json --bytes --output COLUMNS`."""
    return BlockDevice(
        path=row["path"],
        type=row["type"],
        size=int(row["size"] or 0),
        read_only=bool(row["ro"]),
        sector=int(row["log-sec"]),
        model=(row["model"] or "").strip(),
        serial=(row["serial"] or "").strip(),
        parent=f"/dev/{row['pkname']}" if row["pkname"] else "",
        content=row["fstype"] or row["pttype"] or "",
        label=row["label"] or "",
        mount_points=tuple(filter(None, row["mountpoints"])),
        parts=tuple(map(of_lsblk, row.get("children", ()))),
    )


def check_disk(device: BlockDevice) -> None:
    """Raise Refused for what is no disk that can be written and that a firmware can start."""
    if device.type == _PARTITION:
        raise Refused(
            f"{device.path} is a partition of {device.parent}, and a system takes a whole disk",
            hint=f"name the disk, if nothing on it is needed any more: {device.parent}",
        )
    if device.type not in _DISKS:
        raise Refused(f"{device.path} is no disk ({device.type})", hint="'lsblk' lists the disks")
    if device.read_only:
        raise Refused(f"{device.path} is read-only")
    if device.sector != SECTOR:
        raise Refused(
            f"{device.path} has sectors of {device.sector} bytes, and only those of {SECTOR} are supported",
            hint="some disks can be formatted with others, see 'nvme format' or 'sg_format'",
        )


def check_unused(device: BlockDevice) -> None:
    """Raise Refused for a disk that is mounted, or of which swap space or another device is in use."""
    if uses := list(_uses(device)):
        raise Refused(
            f"{device.path} is in use",
            details=uses,
            hint="unmount it, and stop what is made of it (swapoff, vgchange --activate n, mdadm --stop)",
        )


def _uses(device: BlockDevice) -> Iterator[str]:
    for one in device.all:
        yield from (f"{one.path} is mounted on {place}" for place in one.mount_points if place != "[SWAP]")
        if "[SWAP]" in one.mount_points:
            yield f"{one.path} is swap space"
        made = (part for part in one.parts if part.type != _PARTITION)
        yield from (f"{part.path} ({part.type}) is made of {one.path}" for part in made)


def check_empty(device: BlockDevice, signatures: Sequence[str], *, wipe: bool) -> None:
    """Raise Refused for a disk with something on it, unless that is to go.

    signatures: what is known of its content, such as gpt or ext4, by wipefs(8).
    """
    if signatures and not wipe:
        raise Refused(
            f"there is something on {device.path}: {', '.join(signatures)}",
            details=[str(part) for part in device.parts],
            hint="if nothing of it is needed any more, add --wipe",
        )


def check_size(device: BlockDevice, least: int) -> None:
    """Raise Refused for a disk that is too small. least: the size that is needed."""
    if device.size < least:
        raise Refused(
            f"{device.path} has {show_size(device.size)}, and this tree needs a disk of {show_size(least)}",
            hint="take a larger one",
        )
