"""Reads the contents of a dpkg status file (deb822), with libapt's parser."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import apt_pkg

from apt_ostree.model.closure import Key, Member, Relation
from apt_ostree.model.package import Package
from apt_ostree.model.spdx import Record
from apt_ostree.system.apt.config import explained

#: States of a package without installed files (dpkg(1)).
_ABSENT = ("not-installed", "config-files")
#: States of a package whose scripts have configured it.
_CONFIGURED = ("installed", "triggers-awaited", "triggers-pending")
#: What dpkg keeps of a package that was removed and not purged, and is of use in a build.
_KEPT = ("Package", "Priority", "Section", "Maintainer", "Architecture", "Multi-Arch", "Version")


def installed(status: bytes) -> frozenset[Package]:
    """Return the packages of a status file that are installed, completely or partially."""
    with _paragraphs(status) as paragraphs:
        return frozenset(map(_package, paragraphs))


def members(status: bytes) -> Mapping[Key, Member]:
    """Return the installed packages of a status file with their relations, by their keys."""
    with _paragraphs(status) as paragraphs:
        all_members = (
            Member(
                _package(section),
                depends=tuple(tuple(group) for group in _relations(section, "Pre-Depends", "Depends")),
                conflicts=tuple(one for group in _relations(section, "Conflicts", "Breaks") for one in group),
                provides=tuple(
                    (r.name, r.version) for group in _relations(section, "Provides") for r in group
                ),
            )
            for section in paragraphs
        )
        return {member.key: member for member in all_members}


def records(status: bytes) -> tuple[Record, ...]:
    """Return the installed packages of a status file with their sources, sorted."""
    with _paragraphs(status) as paragraphs:
        return tuple(sorted(map(_record, paragraphs)))


def as_removed(status: bytes) -> dict[str, str]:
    """Return name -> paragraphs of the configured packages, as dpkg has them after a removal.

    They say which version was configured last. Conffiles are left out: dpkg would take those that are not
    there for deleted by the administrator.
    """
    removed: dict[str, str] = {}
    with _paragraphs(status) as paragraphs:
        for section in paragraphs:
            if section["Status"].split()[-1] in _CONFIGURED:
                rows = {name: section[name] for name in _KEPT if name in section}
                rows |= {"Status": "deinstall ok config-files", "Config-Version": section["Version"]}
                rows["Description"] = section.get("Description", "").partition("\n")[0]
                text = "".join(f"{name}: {value}\n" for name, value in rows.items())
                removed[rows["Package"]] = "\n".join(filter(None, (removed.get(rows["Package"]), text)))
    return removed


@contextmanager
def _paragraphs(status: bytes) -> Iterator[Iterator[Mapping[str, str]]]:
    with os.fdopen(os.memfd_create("status"), "w+b") as stream:
        stream.write(status)
        stream.seek(0)
        with explained("read the dpkg database"), apt_pkg.TagFile(stream) as paragraphs:
            yield (section for section in paragraphs if section["Status"].split()[-1] not in _ABSENT)


def _package(section: Mapping[str, str]) -> Package:
    return Package(section["Package"], section["Version"], section["Architecture"])


def _record(section: Mapping[str, str]) -> Record:
    package = _package(section)
    # Without a version in it, the source has that of the package; without the field, its name as well.
    source, _, version = section.get("Source", package.name).partition(" ")
    return Record(
        package,
        source,
        version.strip("()") or package.version,
        section.get("Maintainer", ""),
        section.get("Homepage", ""),
    )


def _relations(section: Mapping[str, str], *fields: str) -> Iterator[list[Relation]]:
    for name in fields:
        for group in apt_pkg.parse_depends(section.get(name, "")):
            yield [Relation(other, operator, version) for other, version, operator in group]
