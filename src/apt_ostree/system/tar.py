"""tar(1): packs directories into files, and unpacks them, with owners, capabilities and hard links."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO

from apt_ostree.system import process

_WHOLE = ("--numeric-owner", "--xattrs", "--xattrs-include=*")


def pack(directory: Path, target: Path, names: Sequence[str] = (".",)) -> None:
    """Write what is in a directory to a new file; raise ExternalFailure if that fails.

    names: paths below the directory.
    """
    command: list[str | Path] = [
        "tar",
        "--create",
        "--file",
        target,
        "--directory",
        directory,
        "--format=posix",
        *_WHOLE,
    ]
    process.run([*command, "--sort=name", "--", *names], what=f"pack {directory} into {target}")


def unpack(archive: IO[bytes], directory: Path) -> None:
    """Unpack an open file below a directory; raise ExternalFailure if that fails."""
    number = archive.fileno()
    command: list[str | Path] = [
        "tar",
        "--extract",
        "--file",
        f"/proc/self/fd/{number}",
        "--directory",
        directory,
    ]
    process.run(
        [*command, "--preserve-permissions", "--same-owner", *_WHOLE],
        what=f"unpack into {directory}",
        pass_fds=(number,),
    )
