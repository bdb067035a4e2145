"""Packages, and the difference between two sets of packages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
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
    """Return the difference between two sets of packages, which are compared by name and architecture.

    A package that gets another version and with it becomes independent of the architecture, or ceases to be,
    is a changed one, with the new architecture.
    """
    before = {(p.name, p.architecture): p for p in old}
    after = {(p.name, p.architecture): p for p in new}
    both = before.keys() & after.keys()
    gone, come = [before[key] for key in before.keys() - both], [after[key] for key in after.keys() - both]
    moved = _moved(gone, come)
    same = [(before[key], after[key]) for key in both if before[key].version != after[key].version]
    return PackageDiff(
        added=tuple(sorted({*come} - {two for _one, two in moved})),
        removed=tuple(sorted({*gone} - {one for one, _two in moved})),
        changed=tuple(
            PackageChange(two.name, two.architecture, one.version, two.version)
            for one, two in sorted([*same, *moved], key=lambda pair: pair[1])
        ),
    )


def _moved(old: Collection[Package], new: Collection[Package]) -> list[tuple[Package, Package]]:
    """Return the pairs of a package before and after it moved to or from the architecture "all"."""
    times = [Counter(package.name for package in packages) for packages in (old, new)]
    after = {package.name: package for package in new}
    pairs = [(one, after[one.name]) for one in old if all(counts[one.name] == 1 for counts in times)]
    return [
        (one, two)
        for one, two in pairs
        if "all" in (one.architecture, two.architecture) and one.version != two.version
    ]
