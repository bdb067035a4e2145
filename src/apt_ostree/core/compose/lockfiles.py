"""Reads and writes lockfiles (model.lockfile) at paths of the caller."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from apt_ostree.errors import UsageError
from apt_ostree.model import lockfile
from apt_ostree.model.package import Package
from apt_ostree.system import files


def read(paths: Sequence[str]) -> dict[str, str]:
    """Return NAME -> version of all lockfiles; a later one wins. UsageError names a file with an error."""
    locked: dict[str, str] = {}
    for path in paths:
        try:
            text = Path(path).read_text()
        except (OSError, ValueError) as error:
            raise UsageError(f"the lockfile {path} cannot be read: {error}") from error
        locked |= lockfile.parse(text, name=path)
    return locked


def write(path: str | None, packages: Sequence[Package]) -> None:
    """Write the lockfile of packages, if it is wanted."""
    if path is not None:
        files.write_text(Path(path), lockfile.format_lockfile(packages))
