"""The EFI system partition of the machine, where it is mounted, and the firmware's variables (efivarfs).

Files are read as a whole: a loader has a few megabytes. Only the paths that it is called with are written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.model.sbat import read_level
from apt_ostree.system import mountinfo, mounts
from apt_ostree.system.failpoints import failpoint

_FIRMWARE = Path("/sys/firmware/efi")
_SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
#: What shim mirrors for the running system.
_LEVEL = "SbatLevelRT-605dab50-e046-4300-abb6-3dd810dd8b23"
_ATTRIBUTES = 4  # bytes before the value of a variable
_MOUNT_POINTS = ("/boot/efi", "/efi", "/boot")
_NEW = ".new"


@dataclass(frozen=True, slots=True)
class Esp:
    """The mounted EFI system partition. is_writable: it is not mounted read-only."""

    root: Path
    is_writable: bool = True


def find() -> Esp | None:
    """Return the EFI system partition; None if none is mounted where Debian has it."""
    there = mountinfo.read()
    for target in _MOUNT_POINTS:
        stack = mountinfo.stack_at(there, target)
        if stack and stack[-1].fstype == "vfat":
            options = {*stack[-1].options.split(","), *stack[-1].super_options.split(",")}
            return Esp(Path(target), is_writable="ro" not in options)
    return None


def read(esp: Esp, path: str) -> bytes | None:
    """Return the content of a file; None if there is none. Raises PermissionError where only root may."""
    try:
        return (esp.root / path).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def require_readable(esp: Esp) -> None:
    """Raise PermissionError unless the caller may look at the partition."""
    os.scandir(esp.root).close()


def put(esp: Esp, path: str, data: bytes) -> None:
    """Give a path a content: the old one or the new one is there as a whole, at any moment.

    The new file is on the disk before it gets the name. FAT has no journal, but the kernel then only changes
    the one entry of the directory that has the name, which is in one sector.
    """
    place = esp.root / path
    new = place.with_name(place.name + _NEW)
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with new.open("wb") as stream:
            failpoint("bootloader.before-write")
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        failpoint("bootloader.before-rename")
        new.replace(place)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    mounts.sync_file_system(place.parent)
    failpoint("bootloader.after-rename")


# --- the firmware


def is_uefi() -> bool:
    """Return whether the machine was started by UEFI."""
    return _FIRMWARE.is_dir()


def secure_boot() -> bool | None:
    """Return whether the firmware has Secure Boot on; None if it does not tell."""
    value = _variable(_SECURE_BOOT)
    return value[0] == 1 if value else None


def least_generations() -> Mapping[str, int]:
    """Return the least generation of each component that shim starts; empty if shim did not run."""
    return read_level((_variable(_LEVEL) or b"").rstrip(b"\0").decode(errors="replace"))


def _variable(name: str) -> bytes | None:
    try:
        return (_FIRMWARE / "efivars" / name).read_bytes()[_ATTRIBUTES:]
    except OSError:
        return None
