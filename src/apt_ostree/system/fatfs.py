"""FAT in a part of an image, without a mount: mtools(1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from apt_ostree.system import process

PROGRAMS: Mapping[str, str] = dict.fromkeys(("mformat", "mmd", "mcopy"), "mtools")
_SECTOR = 512


@dataclass(frozen=True, slots=True)
class FatSystem:
    """A FAT32 file system in an image.

    start, size: of its part of the image, in bytes.
    serial: 8 hexadecimal digits.
    """

    image: Path
    start: int
    size: int
    serial: str
    label: str


def make(system: FatSystem, files: Mapping[PurePosixPath, Path], timestamp: int) -> None:
    """Make a file system with files, each at an absolute path; the same bytes for the same content.

    timestamp: seconds since 1970, of all files.
    """
    what = f"make the file system of {system.label}"
    place = f"{system.image}@@{system.start}"
    env = {"SOURCE_DATE_EPOCH": str(timestamp), "TZ": "UTC", "MTOOLSRC": "/dev/null"}
    options = ["-F", "-h", "255", "-s", "63", "-H", str(system.start // _SECTOR)]
    options += ["-T", str(system.size // _SECTOR), "-N", system.serial, "-v", system.label.upper()]
    process.run(["mformat", "-i", place, *options, "::"], what=what, env=env)
    for directory in sorted({parent for path in files for parent in path.parents[:-1]}):
        process.run(["mmd", "-i", place, f"::{directory}"], what=what, env=env)
    for path, source in files.items():
        process.run(["mcopy", "-i", place, source, f"::{path}"], what=what, env=env)
