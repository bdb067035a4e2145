"""Entries of Debian changelogs: which are newer than a version, and which vulnerabilities they name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from apt_ostree.model.versions import version_key

#: https://www.cve.org/about/process: a year and at least four digits.
_CVE = re.compile(r"\bCVE-\d{4}-\d{4,}\b")


@dataclass(frozen=True, slots=True)
class ChangelogEntry:
    """An entry: the version that it made, and its text (deb-changelog(5))."""

    version: str
    text: str


@dataclass(frozen=True, slots=True)
class Advisory:
    """A package with vulnerabilities that its newer version mends, as its changelog says."""

    package: str
    version: str
    cves: tuple[str, ...]


def since(entries: Iterable[ChangelogEntry], version: str) -> tuple[ChangelogEntry, ...]:
    """Return the entries above a version. entries: the newest first, as in the file."""
    newer = []
    for entry in entries:
        if version_key(entry.version) <= version_key(version):
            break
        newer.append(entry)
    return tuple(newer)


def cves(entries: Iterable[ChangelogEntry]) -> tuple[str, ...]:
    """Return the vulnerabilities that entries name, each once, in order."""
    found = {name for entry in entries for name in _CVE.findall(entry.text)}
    return tuple(sorted(found, key=lambda name: tuple(map(int, name.split("-")[1:]))))
