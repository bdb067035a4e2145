"""dpkg's lists of the files of packages (/var/lib/dpkg/info/*.list): who owns a path. Text in, values out."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from apt_ostree.model.unitfile import merged


def info_name(files: Collection[str], package: str, architecture: str) -> str:
    """Return how dpkg calls a package's files: those of some have the architecture in their names."""
    return package if f"{package}.list" in files else f"{package}:{architecture}"


def owners(lists: Mapping[str, str], sought: Collection[str]) -> dict[str, str]:
    """Return which package owns each of the paths; what several own, or none, has no owner.

    lists: name of the package's files (`info_name`) -> text of its list.
    """
    found: dict[str, set[str]] = {}
    for name, text in sorted(lists.items()):
        for path in {merged(line) for line in text.splitlines()}.intersection(sought):
            found.setdefault(path, set()).add(name.partition(":")[0])
    return {path: next(iter(packages)) for path, packages in found.items() if len(packages) == 1}
