"""ext4 in a part of an image, without a mount: mke2fs(8), debugfs(8), dumpe2fs(8)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.errors import ExternalFailure
from apt_ostree.system import process

PROGRAMS: Mapping[str, str] = dict.fromkeys(("mke2fs", "debugfs", "dumpe2fs"), "e2fsprogs")

_IMMUTABLE = 0x10  # EXT4_IMMUTABLE_FL
_ROOT = 2
_FIRST = 11  # those below are the file system's own, but for the root directory
#: GRUB of Debian 12 cannot read the first, and Linux 5.10 not the second.
_WITHOUT = "^metadata_csum_seed,^orphan_file"
_ZEROED = "assume_storage_prezeroed=1,nodiscard"


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A file system in an image.

    start, size: of its part of the image, in bytes.
    uuid, seed: of the file system, and of the hashes of its directories.
    """

    image: Path
    start: int
    size: int
    uuid: str
    seed: str
    label: str

    @property
    def name(self) -> str:
        """Return how the library of e2fsprogs names it."""
        return f"{self.image}?offset={self.start}"


def make(system: FileSystem, directory: Path, timestamp: int) -> None:
    """Make a file system with the content of a directory: the same bytes for the same content.

    All files have the time stamp 0, as ostree gives it, since the times of their copies say nothing.

    timestamp: seconds since 1970, when the file system was made.
    """
    what = f"make the file system of {system.label}"
    # The image is sparse, so that it is zero where nothing was written.
    settings = f"offset={system.start},hash_seed={system.seed},root_owner=0:0,{_ZEROED}"
    options: list[str | Path] = ["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "1"]
    options += ["-O", _WITHOUT, "-E", settings, "-L", system.label, "-U", system.uuid, "-d", directory]
    size = f"{system.size // 1024}k"
    process.run(["mke2fs", *options, system.image, size], what=what, env=_at(timestamp))
    used = _used_inodes(system, what)
    resets = (f"sif <{number}> {field} @0" for number in used for field in ("atime", "ctime", "mtime"))
    _edit(system, resets, what, timestamp)


def make_immutable(system: FileSystem, path: str, timestamp: int) -> None:
    """Set the flag of a directory that ostree sets on a deployment's root, and mke2fs does not copy."""
    what = f"make {path} immutable"
    shown = process.run(["debugfs", "-R", f'stat "{path}"', system.name], what=what).stdout
    match = re.search(r"\bFlags: (0x[0-9a-f]+)", shown)
    if match is None:
        raise ExternalFailure(f"cannot {what}: it is not in the file system")
    _edit(system, [f'sif "{path}" flags {int(match[1], 16) | _IMMUTABLE:#x}'], what, timestamp)


def _edit(system: FileSystem, commands: Iterator[str] | list[str], what: str, timestamp: int) -> None:
    """Run commands of debugfs. It ends with 0 after an error, too, but then says something."""
    text = "".join(f"{command}\n" for command in commands)
    command = ["debugfs", "-w", "-f", "-", system.name]
    done = process.run(command, what=what, env=_at(timestamp), stdin=text)
    said = [line for line in done.stderr.splitlines() if not line.startswith("debugfs 1.")]
    if said:
        raise ExternalFailure(f"cannot {what}", details=process.tail(said))


def _used_inodes(system: FileSystem, what: str) -> Iterator[int]:
    shown = process.run(["dumpe2fs", system.name], what=what).stdout
    yield _ROOT
    yield from (number for number in used_inodes(shown) if number >= _FIRST)


def used_inodes(shown: str) -> Iterator[int]:
    """Yield the inodes that are not free, by the output of dumpe2fs."""
    count = re.search(r"^Inode count: +(\d+)$", shown, re.MULTILINE)
    rows = re.findall(r"^ +Free inodes: (.*)$", shown, re.MULTILINE)
    spans = (span.partition("-") for row in rows for span in row.split(",") if span.strip())
    number = 1
    for first, last in sorted((int(first), int(last or first)) for first, _, last in spans):
        yield from range(number, first)
        number = last + 1
    yield from range(number, int(count[1]) + 1 if count else 0)


def _at(timestamp: int) -> Mapping[str, str]:
    """Return the environment in which e2fsprogs takes this for the present time."""
    return {"E2FSPROGS_FAKE_TIME": str(timestamp), "SOURCE_DATE_EPOCH": str(timestamp)}
