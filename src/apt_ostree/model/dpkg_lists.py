"""dpkg's file lists of packages (/var/lib/dpkg/info/*.list): which package owns a path."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from apt_ostree.model.unitfile import merged


def info_name(files: Collection[str], package: str, architecture: str) -> str:
    """Return the base name of dpkg's files about a package: PACKAGE, or PACKAGE:ARCHITECTURE."""
    return package if f"{package}.list" in files else f"{package}:{architecture}"


def owners(lists: Mapping[str, str], paths: Collection[str]) -> dict[str, str]:
    """Return path -> package that owns it, for each of the paths with exactly one owner.

    lists: `info_name` of a package -> text of its list.
    """
    packages_of: dict[str, set[str]] = {}
    for name, text in sorted(lists.items()):
        for path in {merged(line) for line in text.splitlines()}.intersection(paths):
            packages_of.setdefault(path, set()).add(name.partition(":")[0])
    return {path: next(iter(packages)) for path, packages in packages_of.items() if len(packages) == 1}
