"""Reads the upper directory of an unlocked /usr."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from apt_ostree.model.upper import Entry
from apt_ostree.system import whiteouts


def walk(directory: Path, prefix: str = "") -> Iterator[Entry]:
    """Yield the entries of an upper directory without Python's caches; a directory precedes its contents."""
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.name == "__pycache__":
                continue
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield Entry(path, "directory", whiteouts.is_opaque(entry.path))
                yield from walk(Path(entry.path), f"{path}/")
            else:
                is_whiteout = whiteouts.is_whiteout(entry.stat(follow_symlinks=False))
                yield Entry(path, "whiteout" if is_whiteout else "other")
