"""GRUB: the host's files and grub-mkimage(1), for a disk of the architecture amd64; the menu of a system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from apt_ostree.model.grub import BESIDE, HOOK, MARK
from apt_ostree.system import files, process

EFI, BIOS = "x86_64-efi", "i386-pc"
PROGRAMS: Mapping[str, str] = {"grub-mkimage": "grub-common"}
_DIRECTORY = Path("/usr/lib/grub")
#: Where a system has its menu.
MENUS = Path("boot/grub")
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
    """Return whether a system has a menu of ours: that of `compose disk`, or the one beside Debian's."""
    return any(_is_ours(root / MENUS / name) for name in ("grub.cfg", BESIDE))


def own_menu_runs_hook(root: Path) -> bool | None:
    """Return whether Debian's own menu runs what `model.grub.hook` returns; None if there is no menu."""
    menu = root / MENUS / "grub.cfg"
    return HOOK in files.text_of(menu) if menu.is_file() else None


def hook_is_free(root: Path) -> bool:
    """Return whether the name of the hook is free, or has ours."""
    place = root / MENUS / HOOK
    return not place.exists() or _is_ours(place)


def is_hooked(root: Path) -> bool:
    """Return whether the menu beside Debian's is what the next boot shows."""
    return _is_ours(root / MENUS / HOOK)


def _is_ours(path: Path) -> bool:
    try:
        with path.open(errors="replace") as file:
            return file.readline().startswith(MARK)
    except OSError:
        return False


def make_core(platform: str, output: Path, modules: Sequence[str], script: Path) -> None:
    """Write an image of GRUB with modules, which runs a script at its start."""
    options: list[str | Path] = ["-O", platform, "-o", output, "-p", "/grub", "-c", script]
    process.run(["grub-mkimage", *options, *modules], what=f"make GRUB for {platform}")
