"""Reads package lists that are in a directory of their own, without libapt's cache."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import apt_inst
import apt_pkg

from apt_ostree.model.package import Package


def digests(lists: Path, packages: Collection[Package]) -> Mapping[Package, tuple[str, ...]]:
    """Return the SHA-256 of the archives that the lists offer for packages, sorted.

    There are several if archives have different files of one version, and none for what is not offered.
    """
    wanted = {(one.name.partition(":")[0], one.version, one.architecture): one for one in packages}
    found: dict[Package, set[str]] = {one: set() for one in packages}
    for path in lists.glob("*_Packages*"):
        with apt_pkg.TagFile(str(path)) as sections:
            for section in sections:
                key = (section["Package"], section["Version"], section["Architecture"])
                if key in wanted and (digest := section.get("SHA256")):
                    found[wanted[key]].add(digest)
    return {one: tuple(sorted(values)) for one, values in found.items()}


def package_of(archive: Path) -> Package:
    """Return the package in an archive."""
    control = apt_pkg.TagSection(apt_inst.DebFile(str(archive)).control.extractdata("control"))
    return Package(control["Package"], control["Version"], control["Architecture"])
