"""The store of packages that were given as files, by their checksum. libapt is not needed for it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from apt_ostree.model.origin import LocalPackage

STORE = Path("/var/lib/apt-ostree/debs")


def path_of(package: LocalPackage) -> Path:
    """Return where a package's file is, if it is stored."""
    return STORE / f"{package.sha256}.deb"


def is_stored(package: LocalPackage) -> bool:
    """Return whether the package's file is in the store."""
    return path_of(package).exists()


def add(path: Path, digest: str) -> None:
    """Copy a .deb into the store, if it is not there. digest: its SHA-256."""
    stored = STORE / f"{digest}.deb"
    if stored.exists():
        return
    STORE.mkdir(parents=True, exist_ok=True)
    partial = stored.with_suffix(".partial")
    shutil.copyfile(path, partial)
    partial.rename(stored)


def remove_unused(used: frozenset[str]) -> None:
    """Remove the stored packages whose checksums are not in `used`."""
    for entry in STORE.glob("*"):
        if entry.stem not in used:
            entry.unlink()
    with contextlib.suppress(OSError):  # it does not exist, or is not empty
        STORE.rmdir()
