"""Which deployment a boot loader would start: the boot entries of a disk, parsed and sorted."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from testbed_lib.common import TestbedError


@dataclass(frozen=True, slots=True)
class BootEntry:
    """One file of /boot/loader/entries."""

    name: str
    version: str
    options: str
    kernel: str
    initrd: str

    @property
    def boot_link(self) -> str:
        """The value of the `ostree=` argument: an absolute path that leads to the deployment."""
        for word in self.options.split():
            if word.startswith("ostree="):
                return word.removeprefix("ostree=")
        raise TestbedError(f"boot entry {self.name} has no ostree= argument")


def parse_entry(name: str, text: str) -> BootEntry:
    """Parse a Boot Loader Specification entry; unknown keys are ignored."""
    fields = dict(line.split(None, 1) for line in text.splitlines() if len(line.split(None, 1)) == 2)
    return BootEntry(
        name,
        fields.get("version", ""),
        fields.get("options", ""),
        fields.get("linux", ""),
        fields.get("initrd", ""),
    )


def version_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that compares runs of digits as numbers."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"\d+|\D+", text)]


def choose_entry(disk: Path) -> BootEntry:
    """Return the entry that a boot loader would start from a mounted disk: the highest one."""
    entries = disk / "boot/loader/entries"
    found = [parse_entry(path.name, path.read_text()) for path in entries.glob("*.conf")]
    if not found:
        raise TestbedError("the disk has no boot entry")
    return max(found, key=lambda entry: (version_key(entry.version), version_key(entry.name)))


def deployment_of(disk: Path, entry: BootEntry) -> str:
    """Return the deployment that an entry boots, as an absolute path within the disk."""
    found = os.path.realpath(f"{disk}{entry.boot_link}")
    deployment = "/" + os.path.relpath(found, disk)
    if not re.match(r"/ostree/deploy/[^/]+/deploy/[0-9a-f]{64}\.\d+$", deployment):
        raise TestbedError(f"boot entry {entry.name} does not lead to a deployment: {entry.boot_link}")
    return deployment
