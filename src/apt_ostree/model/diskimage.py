"""The layout of a disk image: partitions, identifiers, sizes, and what refers to them. Sizes are in bytes.

One disk starts from UEFI (the EFI system partition) and from a BIOS (the boot sector, and the partition after
it). The boot loader reads /boot, an ext4 partition of its own; root is the last one, so that it can grow.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from apt_ostree.errors import Refused
from apt_ostree.model.sizes import show_size

SECTOR = 512
MIB = 1 << 20
GIB = 1 << 30
#: What a file system allots.
BLOCK = 4096
_NAMESPACE = uuid.UUID("6d9a3c7e-61a7-5c7b-9d6d-1f2f7b0a8e11")
#: Types of partitions: the Discoverable Partitions Specification, and GRUB's for a BIOS.
_BIOS_TYPE = "21686148-6449-6e6f-744e-656564454649"
_ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
_XBOOTLDR_TYPE = "bc13c2ff-59e6-4262-a352-b275fd6f7172"
_ROOT_TYPE = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"  # x86-64

_BIOS_SIZE = MIB
_ESP_SIZE = 128 * MIB
_BOOT_LEAST = 512 * MIB
#: So many deployments with boot files of their own fit on /boot: the booted one, its predecessor, a pinned
#: one, and the next, which is written before another goes.
_BOOT_DEPLOYMENTS = 4
#: What ext4 takes for itself: the journal and group descriptors, and a share for inodes, reserve and slack.
_EXT4_FIXED = 96 * MIB
_EXT4_SHARE = 20  # a twentieth
#: What root has beside the tree if the size is not given, until it grows.
_FREE = GIB


@dataclass(frozen=True, slots=True)
class Contents:
    """What is to be on the disk.

    root: bytes of the files on the root file system, as it allots them.
    boot: bytes of one deployment's kernel and initramfs, likewise.
    """

    root: int
    boot: int


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition.

    uuid: of the partition. start, size: multiples of a mebibyte.
    """

    name: str
    type: str
    uuid: str
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of a disk.

    disk_uuid: of the partition table.
    esp_serial: the serial number of the FAT file system, 8 hexadecimal digits.
    boot_uuid, root_uuid: of the ext4 file systems.
    boot_seed, root_seed: of the hashes of their directories.
    """

    size: int
    disk_uuid: str
    bios: Partition
    esp: Partition
    boot: Partition
    root: Partition
    esp_serial: str
    boot_uuid: str
    root_uuid: str
    boot_seed: str
    root_seed: str

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """Return the partitions in their order."""
        return self.bios, self.esp, self.boot, self.root

    @property
    def esp_uuid(self) -> str:
        """Return the serial number of the FAT file system as Linux writes it."""
        return f"{self.esp_serial[:4]}-{self.esp_serial[4:]}".upper()


def plan(contents: Contents, size: int | None, identity: str) -> Layout:
    """Return the layout of a disk.

    size: of the disk, which is rounded up to a mebibyte; None takes what the contents need, and room for
    changes.
    identity: what the identifiers are derived from; equal ones give equal disks.

    Raises Refused for a size that is too small.
    """
    before, least = _before_root(contents), least_size(contents)
    size = usual_size(contents) if size is None else _rounded_up(size, MIB)
    if size < least:
        raise Refused(
            f"a disk of {show_size(size)} is too small for this tree, which needs {show_size(least)}",
            details=(
                f"boot partitions: {show_size(before)}",
                f"the tree: {show_size(contents.root)}",
                f"its file system: {show_size(least - before - contents.root)}",
            ),
            hint=f"give at least --size={-(-least // 1000000)}M, or leave it out",
        )
    return _layout(contents, size, identity)


def least_size(contents: Contents) -> int:
    """Return the size of the smallest disk for the contents."""
    return _before_root(contents) + _ext4_size(contents.root) + MIB


def usual_size(contents: Contents) -> int:
    """Return the size of a disk for the contents and for changes."""
    return _rounded_up(_before_root(contents) + _ext4_size(2 * contents.root + _FREE), GIB)


def _layout(contents: Contents, size: int, identity: str) -> Layout:
    def derived(what: str) -> str:
        return str(uuid.uuid5(_NAMESPACE, f"{what} {identity}"))

    boot_start = MIB + _BIOS_SIZE + _ESP_SIZE
    root_start = _before_root(contents)
    root_size = (size - root_start - MIB) // MIB * MIB  # the end has the second partition table
    return Layout(
        size=size,
        disk_uuid=derived("disk"),
        bios=Partition("bios", _BIOS_TYPE, derived("bios"), MIB, _BIOS_SIZE),
        esp=Partition("esp", _ESP_TYPE, derived("esp"), MIB + _BIOS_SIZE, _ESP_SIZE),
        boot=Partition("boot", _XBOOTLDR_TYPE, derived("boot"), boot_start, root_start - boot_start),
        root=Partition("root", _ROOT_TYPE, derived("root"), root_start, root_size),
        esp_serial=derived("FAT")[:8],
        boot_uuid=derived("ext4 of boot"),
        root_uuid=derived("ext4 of root"),
        boot_seed=derived("hashes of boot"),
        root_seed=derived("hashes of root"),
    )


def _before_root(contents: Contents) -> int:
    """Return where root begins."""
    boot = max(_BOOT_LEAST, _ext4_size(_BOOT_DEPLOYMENTS * contents.boot))
    return MIB + _BIOS_SIZE + _ESP_SIZE + boot


def _ext4_size(content: int) -> int:
    """Return the size of a file system, in whole mebibytes, that has room for so many bytes."""
    return _rounded_up(content + content // _EXT4_SHARE + _EXT4_FIXED, MIB)


def _rounded_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def used(contents: Contents) -> int:
    """Return the bytes of a raw image that are no holes, about."""
    return _ext4_size(contents.root) + _ext4_size(contents.boot)


def allotted(size: int) -> int:
    """Return the bytes that a file of this size takes."""
    return _rounded_up(size, BLOCK)


# --- what refers to the partitions


def sfdisk_script(layout: Layout) -> str:
    """Return the partition table in the language of sfdisk(8)."""
    rows = [
        "label: gpt",
        f"label-id: {layout.disk_uuid}",
        "unit: sectors",
        f"first-lba: {MIB // SECTOR}",
        "",
        *(
            f"start={part.start // SECTOR}, size={part.size // SECTOR}, type={part.type}, uuid={part.uuid}, "
            f'name="{part.name}"'
            for part in layout.partitions
        ),
    ]
    return "\n".join(rows) + "\n"


def fstab(layout: Layout, *, grows: bool) -> str:
    """Return the lines of fstab(5). grows: the root file system grows with its partition at boot."""
    rows = (
        (f"UUID={layout.root_uuid}", "/", "ext4", "defaults,x-systemd.growfs" if grows else "defaults", "1"),
        (f"UUID={layout.boot_uuid}", "/boot", "ext4", "nosuid,nodev", "2"),
        (f"UUID={layout.esp_uuid}", "/boot/efi", "vfat", "umask=0077,nosuid,nodev", "2"),
    )
    return "".join(
        f"{device} {where} {kind} {flags} 0 {order}\n" for device, where, kind, flags, order in rows
    )


def mount_points(text: str) -> frozenset[str]:
    """Return the mount points of an fstab(5)."""
    rows = (line.split() for line in text.splitlines() if not line.lstrip().startswith("#"))
    return frozenset(row[1] for row in rows if len(row) > 1)
