"""Packages, and the difference between two sets of packages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """An installed package: its name, version and architecture, as in dpkg's database."""

    name: str
    version: str
    architecture: str

    @property
    def label(self) -> str:
        """Return "NAME VERSION"."""
        return f"{self.name} {self.version}"

    @property
    def qualified(self) -> str:
        """Return the name for dpkg and libapt, with the architecture."""
        return qualified(self.name, self.architecture)


@dataclass(frozen=True, slots=True)
class PackageChange:
    """A package with the old and the new version."""

    name: str
    architecture: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class PackageDiff:
    """The difference between two sets of packages; each list is sorted by name."""

    added: tuple[Package, ...] = ()
    removed: tuple[Package, ...] = ()
    changed: tuple[PackageChange, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    @property
    def names(self) -> frozenset[str]:
        """Return the names of all packages that differ."""
        return frozenset([p.name for p in self.added + self.removed] + [c.name for c in self.changed])

    @property
    def only_removed(self) -> bool:
        """Return whether packages are removed and no others differ."""
        return bool(self.removed) and not (self.added or self.changed)


def qualified(name: str, architecture: str) -> str:
    """Return the name of a package for dpkg and libapt, with its architecture."""
    return name if architecture == "all" else f"{name}:{architecture}"


def diff_packages(old: Iterable[Package], new: Iterable[Package]) -> PackageDiff:
    """Return the difference between two sets of packages, which are compared by name and architecture."""
    before = {(p.name, p.architecture): p for p in old}
    after = {(p.name, p.architecture): p for p in new}
    both = before.keys() & after.keys()
    return PackageDiff(
        added=tuple(sorted(after[key] for key in after.keys() - both)),
        removed=tuple(sorted(before[key] for key in before.keys() - both)),
        changed=tuple(
            PackageChange(key[0], key[1], before[key].version, after[key].version)
            for key in sorted(both)
            if before[key].version != after[key].version
        ),
    )
