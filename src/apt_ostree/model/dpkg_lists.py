"""dpkg's file lists of packages (/var/lib/dpkg/info/*.list): which package owns a path. Its diversions."""

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


def diversions(text: str) -> dict[str, tuple[str, str]]:
    """Return path -> (where it is diverted to, the package whose own file is not), see dpkg-divert(1).

    text: of dpkg's file `diversions`.
    """
    lines = text.splitlines()
    return {lines[n]: (lines[n + 1], lines[n + 2]) for n in range(0, len(lines) - 2, 3)}
