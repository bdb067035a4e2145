"""Diverts the files of other packages that requested packages replace, and brings them back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from apt_ostree.model import layout
from apt_ostree.model.replaced_files import Diversions, place_of, to_divert, to_restore
from apt_ostree.system import dpkg_query, sandbox


def divert(root: Path, archives: Iterable[Path], packages: frozenset[str]) -> list[str]:
    """Divert the files that packages are to replace; return "PACKAGE replaces PATH of OTHERS" for each.

    archives: of all packages that are to be unpacked.
    packages: names, with the architecture if it was requested.
    """
    from apt_ostree.system.apt import shipped

    if not packages:
        return []
    contents = list(map(shipped.contents, archives))
    owners = dpkg_query.owners_of_all(root / layout.DPKG_ADMINDIR)
    for archive in contents:
        for path in archive.paths:
            owners.setdefault(path, set()).add(archive.name)
    lines = []
    for archive in contents:
        if packages.isdisjoint((archive.name, f"{archive.name}:{archive.architecture}")):
            continue
        for path in to_divert(archive.name, archive.paths, owners, _diversions(root)):
            _dpkg_divert(root, archive.name, path, "--add")
            lines.append(f"{archive.name} replaces {path} of {_others(owners, path, archive.name)}")
    return lines


def restore(root: Path) -> None:
    """Bring back the files that packages replaced which do not have them any more."""
    diversions = _diversions(root)
    if any(place == place_of(path, package) for path, (place, package) in diversions.items()):
        for path, package in to_restore(diversions, dpkg_query.owners_of_all(root / layout.DPKG_ADMINDIR)):
            _dpkg_divert(root, package, path, "--remove")


def _others(owners: Mapping[str, Collection[str]], path: str, package: str) -> str:
    return ", ".join(sorted({*owners[path]} - {package}))


def _diversions(root: Path) -> Diversions:
    return dpkg_query.diversions(root / layout.DPKG_ADMINDIR)


def _dpkg_divert(root: Path, package: str, path: str, action: str) -> None:
    command = [
        "dpkg-divert",
        "--quiet",
        "--package",
        package,
        "--divert",
        place_of(path, package),
        "--rename",
    ]
    sandbox.run(root, [*command, action, path], what=f"divert {path}")
