"""cp(1): copies whole directories."""

from __future__ import annotations

from pathlib import Path

from apt_ostree.system import process


def copy_tree(source: Path, target: Path) -> None:
    """Copy a directory with all metadata and hard links; raise ExternalFailure if that fails."""
    command: list[str | Path] = [
        "cp",
        "--archive",
        "--reflink=auto",
        "--no-target-directory",
        "--",
        source,
        target,
    ]
    process.run(command, what=f"copy {source}")
