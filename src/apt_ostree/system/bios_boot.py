"""GRUB for a BIOS, in a partition of its own: where it is, and what it is. Reads only."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SECTOR = 512
_UUID = "21686148-6449-6e6f-744e-656564454649"
#: In the first sector of a core image: how many sectors follow it (include/grub/i386/pc/boot.h of GRUB).
_COUNT = 0x1FC
_MOUNTS = (Path("/boot"), Path("/sysroot"))
_BLOCK_DEVICES = Path("/sys/dev/block")
_UDEV = Path("/run/udev/data")


@dataclass(frozen=True, slots=True)
class Core:
    """A core image. digest: sha256, hexadecimal; "" if the caller may not read the device."""

    device: str
    digest: str


def find() -> Core | None:
    """Return the core image on the disk of /boot; None without a partition for it."""
    device = next(_partitions(), None)
    if device is None:
        return None
    try:
        with Path(device).open("rb") as stream:
            first = stream.read(_SECTOR)
            rest = stream.read(_SECTOR * int.from_bytes(first[_COUNT : _COUNT + 2], "little"))
    except OSError:
        return Core(device, "")
    return Core(device, hashlib.sha256(first + rest).hexdigest())


def _partitions() -> Iterator[str]:
    """Yield the partitions of that type, as udev knows them, on the disks of /boot and of the system."""
    for disk in dict.fromkeys(filter(None, map(_disk_of, _MOUNTS))):
        for partition in sorted(disk.glob("*/partition")):
            number = (partition.parent / "dev").read_text().strip()
            if f"E:ID_PART_ENTRY_TYPE={_UUID}" in _known_to_udev(number):
                yield f"/dev/{partition.parent.name}"


def _disk_of(path: Path) -> Path | None:
    """Return the directory in sysfs of the disk that a file system is on; None if it is on no partition."""
    try:
        device = path.stat().st_dev
    except OSError:
        return None
    place = _BLOCK_DEVICES / f"{os.major(device)}:{os.minor(device)}"
    return place.resolve().parent if (place / "partition").exists() else None


def _known_to_udev(number: str) -> list[str]:
    try:
        return (_UDEV / f"b{number}").read_text(errors="replace").splitlines()
    except OSError:
        return []
