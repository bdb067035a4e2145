"""Reads the contents of a dpkg status file (deb822), with libapt's parser."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import apt_pkg

from apt_ostree.model.closure import Key, Member, Relation
from apt_ostree.model.package import Package
from apt_ostree.system.apt.config import explained

#: States of a package without installed files (dpkg(1)).
_ABSENT = ("not-installed", "config-files")


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


@contextmanager
def _paragraphs(status: bytes) -> Iterator[Iterator[Mapping[str, str]]]:
    with os.fdopen(os.memfd_create("status"), "w+b") as stream:
        stream.write(status)
        stream.seek(0)
        with explained("read the dpkg database"), apt_pkg.TagFile(stream) as paragraphs:
            yield (section for section in paragraphs if section["Status"].split()[-1] not in _ABSENT)


def _package(section: Mapping[str, str]) -> Package:
    return Package(section["Package"], section["Version"], section["Architecture"])


def _relations(section: Mapping[str, str], *fields: str) -> Iterator[list[Relation]]:
    for name in fields:
        for group in apt_pkg.parse_depends(section.get(name, "")):
            yield [Relation(other, operator, version) for other, version, operator in group]
