"""The loaders of a disk image: GRUB's files on /boot, what UEFI starts, and the boot sectors of a BIOS.

If the tree has Debian's shim and signed GRUB, UEFI starts these, so that Secure Boot may be on. Else it
starts a GRUB that is made here, as a BIOS does in any case.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, Refused
from apt_ostree.model import bootloader, grubenv
from apt_ostree.model import grub as texts
from apt_ostree.model.bootloader import INSTALLED, PACKAGES, RECORD, SCRIPT, SOURCES
from apt_ostree.model.diskimage import SECTOR, Layout, Partition
from apt_ostree.system import ext4, fatfs, grub
from apt_ostree.system.ext4 import FileSystem
from apt_ostree.system.fatfs import FatSystem
from apt_ostree.system.ostree.new_sysroot import NewSysroot

PROGRAMS: Mapping[str, str] = {**grub.PROGRAMS, **fatfs.PROGRAMS}
FILES: Mapping[Path, str] = grub.FILES
#: Where UEFI looks on a disk that it knows nothing about.
_EFI_PROGRAM = PurePosixPath("/EFI/BOOT/BOOTX64.EFI")


@dataclass(frozen=True, slots=True)
class Loaders:
    """What firmware starts.

    esp: the files of the EFI system partition, by absolute path.
    core: GRUB's core image for a BIOS.
    signed: UEFI starts it with Secure Boot on.
    """

    esp: Mapping[PurePosixPath, Path]
    core: Path
    signed: bool


def take_boot(sysroot: NewSysroot, work: Path, consoles: tuple[str, ...], attempts: int) -> Path:
    """Move /boot out of a sysroot, as it is a partition of its own, and put GRUB's files there.

    attempts: how often a deployment is tried, see model.grubenv.
    """
    directory = work / "boot"
    (sysroot.root / "boot").rename(directory)
    (sysroot.root / "boot").mkdir()
    check_titles(directory)
    (directory / "efi").mkdir()
    for platform in (grub.EFI, grub.BIOS):
        place = directory / "grub" / platform
        place.mkdir(parents=True)
        shutil.copyfile(grub.module(platform, texts.LOADER), place / f"{texts.LOADER}.mod")
    (directory / "grub/grub.cfg").write_text(texts.menu(sysroot.stateroot, consoles))
    environment = {grubenv.ATTEMPTS: str(attempts)}
    (directory / "grub/grubenv").write_text(grubenv.format_block(environment))
    return directory


def check_titles(directory: Path) -> None:
    """Raise Refused if an entry of a /boot has a title that would break the menu."""
    entries = (path.read_text() for path in sorted((directory / "loader/entries").glob("*.conf")))
    titles = [line for entry in entries for line in entry.splitlines() if line.startswith("title ")]
    if wrong := texts.unusable(titles):
        raise Refused(
            "the boot menu, a script of GRUB, cannot have this title",
            details=wrong,
            hint=f"it is made of the tree's os-release and version; none can have {texts.SPECIAL_CHARACTERS}",
        )


def make_loaders(tx: Transaction, tree: Path, disk: Layout, work: Path) -> Loaders:
    """Make or choose what firmware starts. tree: the root of the deployment."""
    script = work / "grub-first.cfg"
    script.write_text(texts.first_script(disk.boot_uuid))
    core = work / "grub.core"
    grub.make_core(grub.BIOS, core, texts.bios_modules(grub.dependencies(grub.BIOS)), script)
    missing = [package for part, package in PACKAGES.items() if not (tree / SOURCES[part]).is_file()]
    if not missing:
        return Loaders(_signed(tree, script, work), core, signed=True)
    if len(missing) < len(PACKAGES):
        tx.warning(f"the tree does not have {missing[0]}: the disk does not start with Secure Boot on")
    program = work / "grub.efi"
    grub.make_core(grub.EFI, program, texts.efi_modules(grub.dependencies(grub.EFI)), script)
    return Loaders({_EFI_PROGRAM: program}, core, signed=False)


def _signed(tree: Path, script: Path, work: Path) -> dict[PurePosixPath, Path]:
    """Return Debian's signed loaders, the script that GRUB reads, and the record of the loaders."""
    sources = {path: tree / SOURCES[part] for path, part in INSTALLED.items()}
    chosen = {path: source for path, source in sources.items() if source.is_file()}
    loaders = {
        p: bootloader.read_loader(p, INSTALLED[p], source.read_bytes()) for p, source in chosen.items()
    }
    record = work / "loaders.json"
    entries = {path: bootloader.Entry(loader.digest) for path, loader in loaders.items()}
    record.write_text(bootloader.format_record(entries))
    return {
        PurePosixPath("/", path): file for path, file in {**chosen, SCRIPT: script, RECORD: record}.items()
    }


def write(image: Path, disk: Layout, directory: Path, loaders: Loaders, timestamp: int) -> None:
    """Write the boot sectors, the EFI system partition and /boot.

    directory: the content of /boot.
    """
    _write_bios(image, disk.bios, loaders.core)
    esp = FatSystem(image, disk.esp.start, disk.esp.size, disk.esp_serial, disk.esp.name)
    fatfs.make(esp, loaders.esp, timestamp)
    ext4.make(
        FileSystem(image, disk.boot.start, disk.boot.size, disk.boot_uuid, disk.boot_seed, disk.boot.name),
        directory,
        timestamp,
    )


def _write_bios(image: Path, partition: Partition, core: Path) -> None:
    start = partition.start // SECTOR
    data = texts.core_image(core.read_bytes(), start)
    if len(data) > partition.size:
        raise ExternalFailure(f"GRUB has {len(data)} bytes, and its partition {partition.size}")
    with image.open("r+b") as disk:
        disk.write(texts.boot_sector(grub.boot_image(), start))
        disk.seek(partition.start)
        disk.write(data)
