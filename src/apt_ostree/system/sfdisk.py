"""sfdisk(8): writes the partition table of a disk image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from apt_ostree.system import process

PROGRAMS: Mapping[str, str] = {"sfdisk": "fdisk"}


def write_table(image: Path, script: str) -> None:
    """Write a partition table, in sfdisk's language, to an image that has its size already."""
    command = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--wipe=never"]
    process.run([*command, str(image)], what="write the partition table", stdin=script)
