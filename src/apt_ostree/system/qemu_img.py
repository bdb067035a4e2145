"""qemu-img(1): converts disk images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from apt_ostree.system import process

PROGRAMS: Mapping[str, str] = {"qemu-img": "qemu-utils"}


def to_qcow2(raw: Path, output: Path) -> None:
    """Write a raw image as a qcow2 one, compressed with zstd."""
    command = ["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd"]
    process.run([*command, raw, output], what="write the qcow2 image")
