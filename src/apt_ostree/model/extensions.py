"""Extensions of a base: packages that machines can layer on it, in rpm-ostree's format (docs/composing.md).

Plain values in, frozen dataclasses out; errors name the file, the line and the key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from apt_ostree.errors import Refused
from apt_ostree.model import treefile
from apt_ostree.model.document import KeyPath, Section, Source
from apt_ostree.model.package import Package
from apt_ostree.model.treefile import Archive

GUIDE = "docs/composing.md lists the keys"
#: The file beside the packages.
FILE = "extensions.json"
_INSTALL = re.compile(
    r"Inst (?P<name>\S+) (?:\[(?P<old>\S+)\] )?\((?P<version>\S+) .*?\[(?P<architecture>[^]]+)\]\)"
)
_REMOVE = re.compile(r"(?:Remv|Purg) (?P<name>\S+)")


class Kind(StrEnum):
    """What the packages of an extension are for."""

    OS = "os-extension"
    DEVELOPMENT = "development"


@dataclass(frozen=True, slots=True)
class Extension:
    """An extension.

    packages: NAME, NAME=VERSION, NAME/SUITE or NAME:ARCHITECTURE.
    architectures: dpkg's names of those that it is for; empty for all.
    match_base: a package of the base whose version all packages have to have.
    """

    name: str
    packages: tuple[str, ...]
    kind: Kind = Kind.OS
    architectures: tuple[str, ...] = ()
    match_base: str | None = None


@dataclass(frozen=True, slots=True)
class Extensions:
    """A file of extensions. archives: in addition to those of the treefile."""

    extensions: tuple[Extension, ...]
    archives: tuple[Archive, ...] = ()

    def packages(self, kind: Kind) -> tuple[str, ...]:
        """Return the packages of all extensions of a kind, without duplicates."""
        return tuple(
            dict.fromkeys(name for one in self.extensions if one.kind is kind for name in one.packages)
        )


@dataclass(frozen=True, slots=True)
class Resolution:
    """What apt makes of a request.

    added: new packages.
    changed: a text for each package of the base that would be removed or replaced.
    """

    added: tuple[Package, ...]
    changed: tuple[str, ...]


def parse(data: Any, *, name: str, lines: Mapping[KeyPath, int]) -> Extensions:
    """Return the extensions of a document; UsageError names a mistake. name: of the file."""
    top = Section(data, (), Source(name, lines, GUIDE))
    archives = treefile.archives(top, name)
    section = top.mapping("extensions")
    found = tuple(_extension(key, section.mapping(key)) for key in section.names())
    top.refuse_the_rest()
    if not found:
        top.fail(("extensions",), "at least one extension", "none")
    return Extensions(found, archives)


def _extension(name: str, entry: Section) -> Extension:
    kind = entry.string("kind", treefile.one_of([*Kind]))
    packages = entry.strings("packages", treefile.a_package)
    extension = Extension(
        name=name,
        packages=packages,
        kind=Kind(kind) if kind else Kind.OS,
        architectures=entry.strings("architectures", treefile.one_of(treefile.ARCHITECTURES)),
        match_base=entry.string("match-base-evr"),
    )
    entry.refuse_the_rest()
    if not packages:
        entry.fail(("packages",), "at least one package", "none")
    if extension.match_base and any("=" in package or "/" in package for package in packages):
        entry.fail(("packages",), "plain names beside match-base-evr", "a name with a version or suite")
    return extension


def for_base(given: Extensions, architecture: str, base: Iterable[Package]) -> Extensions:
    """Return the extensions for a base: those of its architecture, with the versions that have to match.

    Raises Refused for a package that the base has already, or does not have to match.
    """
    versions = {package.name: package.version for package in base}
    fitting = [one for one in given.extensions if not one.architectures or architecture in one.architectures]
    problems = [
        f"{one.name}: {package} is in the base already"
        for one in fitting
        if one.kind is Kind.OS
        for package in one.packages
        if re.split(r"[=/:]", package)[0] in versions
    ]
    problems += [
        f"{one.name}: {one.match_base}, whose version is to match, is not in the base"
        for one in fitting
        if one.match_base and one.match_base not in versions
    ]
    if problems:
        raise Refused(
            "the extensions do not fit the base", details=problems, hint="correct the file of extensions"
        )
    return replace(given, extensions=tuple(_matched(one, versions) for one in fitting))


def _matched(extension: Extension, versions: Mapping[str, str]) -> Extension:
    if not extension.match_base:
        return extension
    version = versions[extension.match_base]
    return replace(extension, packages=tuple(f"{name}={version}" for name in extension.packages))


def read_simulation(output: str) -> Resolution:
    """Return what `apt-get --simulate install` has printed."""
    added, changed = set(), set()
    for line in output.splitlines():
        if match := _INSTALL.match(line):
            if match["old"]:
                changed.add(f"{match['name']} {match['old']} would become {match['version']}")
            else:
                added.add(Package(*match.group("name", "version", "architecture")))
        elif match := _REMOVE.match(line):
            changed.add(f"{match['name']} would be removed")
    return Resolution(tuple(sorted(added)), tuple(sorted(changed)))


def format_extensions(given: Extensions, base: str | None, files: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of extensions.json. base: the commit. files: a row for each package."""
    rows = {one.name: _row(one) for one in given.extensions}
    value = {"base": base, "extensions": rows, "packages": list(files)}
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def _row(extension: Extension) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": str(extension.kind), "packages": list(extension.packages)}
    if extension.architectures:
        row["architectures"] = list(extension.architectures)
    if extension.match_base:
        row["match-base-evr"] = extension.match_base
    return row
