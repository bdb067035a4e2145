"""Files of other packages that a requested one replaces, see `install --force-replacefiles`.

They are diverted (dpkg-divert(1)): upgrades of the other package do not write over the replacement, and they
come back when the requested package goes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

#: Path -> where it is diverted to, and the package whose own file is not diverted.
Diversions = Mapping[str, tuple[str, str]]


def place_of(path: str, package: str) -> str:
    """Return where the file of another package is that a package replaces."""
    return f"{path}.replaced-by-{package}"


def to_divert(
    package: str, shipped: Iterable[str], owners: Mapping[str, Collection[str]], diversions: Diversions
) -> list[str]:
    """Return the paths of other packages' files that a package replaces, and that are not diverted yet.

    Files below /etc are the machine's, and not replaced.

    shipped: the paths that the package has, without directories.
    owners: path -> names of the packages that have it.
    """
    return [
        path
        for path in shipped
        if {*owners.get(path, ())} - {package} and path not in diversions and not path.startswith("/etc/")
    ]


def to_restore(diversions: Diversions, owners: Mapping[str, Collection[str]]) -> list[tuple[str, str]]:
    """Return path and package of each file that is diverted for a package which does not have it any more."""
    return [
        (path, package)
        for path, (place, package) in diversions.items()
        if place == place_of(path, package) and package not in owners.get(path, ())
    ]
