"""GRUB: the host's files and grub-mkimage(1), for a disk of the architecture amd64; the menu of a system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from apt_ostree.model.grub import MARK
from apt_ostree.system import process

EFI, BIOS = "x86_64-efi", "i386-pc"
PROGRAMS: Mapping[str, str] = {"grub-mkimage": "grub-common"}
_DIRECTORY = Path("/usr/lib/grub")
FILES: Mapping[Path, str] = {
    _DIRECTORY / EFI / "moddep.lst": "grub-efi-amd64-bin",
    _DIRECTORY / BIOS / "moddep.lst": "grub-pc-bin",
}


def dependencies(platform: str) -> str:
    """Return the text of moddep.lst."""
    return (_DIRECTORY / platform / "moddep.lst").read_text()


def module(platform: str, name: str) -> Path:
    """Return the file of a module."""
    return _DIRECTORY / platform / f"{name}.mod"


def boot_image() -> bytes:
    """Return the boot sector of a BIOS, boot.img."""
    return (_DIRECTORY / BIOS / "boot.img").read_bytes()


def has_own_menu(root: Path) -> bool:
    """Return whether a system has the menu that `compose disk` writes."""
    try:
        with (root / "boot/grub/grub.cfg").open(errors="replace") as file:
            return file.readline().startswith(MARK)
    except OSError:
        return False


def make_core(platform: str, output: Path, modules: Sequence[str], script: Path) -> None:
    """Write an image of GRUB with modules, which runs a script at its start."""
    options: list[str | Path] = ["-O", platform, "-o", output, "-p", "/grub", "-c", script]
    process.run(["grub-mkimage", *options, *modules], what=f"make GRUB for {platform}")
