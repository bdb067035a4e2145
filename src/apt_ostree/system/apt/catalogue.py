"""The packages that libapt knows: names, versions and summaries, read-only. Needs no privileges."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import apt_pkg

from apt_ostree.model.newer import Newer
from apt_ostree.model.search import Offer
from apt_ostree.system.apt import versions
from apt_ostree.system.apt.acquire import public_uri
from apt_ostree.system.apt.config import explained


@dataclass(frozen=True, slots=True)
class Source:
    """A suite of an archive.

    signed: its package lists are signed, or it is configured as trusted.
    downloaded: its package lists are downloaded.
    """

    uri: str
    suite: str
    signed: bool
    downloaded: bool


def offered() -> Iterator[Offer]:
    """Yield the packages of the native architecture, each with its newest candidate version."""
    cache, depcache = _read()
    records = apt_pkg.PackageRecords(cache)
    native = apt_pkg.config.find("APT::Architecture")
    rows = []
    for package in cache.packages:
        version = depcache.get_candidate_ver(package) if package.has_versions else None
        if version and package.architecture == native:
            rows.append((version.translated_description.file_list[0], package, version))
    # In the order of the files: random access to the summaries would take most of the time.
    rows.sort(key=lambda row: (row[0][0].id, row[0][1]))
    for place, package, version in rows:
        records.lookup(place)
        installed = package.current_ver.ver_str if package.current_ver else ""
        yield Offer(package.name, version.ver_str, records.short_desc, installed)


def names(prefix: str) -> list[str]:
    """Return the names of the packages of the native architecture that an archive has, with this prefix."""
    cache, _depcache = _read()
    native = apt_pkg.config.find("APT::Architecture")
    return sorted(
        package.name
        for package in cache.packages
        if package.name.startswith(prefix) and package.has_versions and package.architecture == native
    )


def newer(requests: Collection[str]) -> tuple[Newer, ...]:
    """Return the newer versions of packages that stay at theirs (NAME=VERSION)."""
    return versions.newer(*_read(), requests) if requests else ()


def _read() -> tuple[apt_pkg.Cache, Any]:
    with explained("read the package lists", hint="run 'apt-ostree refresh-md'"):
        cache = apt_pkg.Cache(None)
        return cache, apt_pkg.DepCache(cache)


def sources() -> tuple[Source, ...]:
    """Return the configured archives in the order of the configuration."""
    configured = apt_pkg.SourceList()
    with explained("read the package sources", hint="check the files in /etc/apt/sources.list.d"):
        configured.read_main_list()
    return tuple(
        Source(
            public_uri(entry.uri),
            entry.dist,
            signed=entry.is_trusted,
            downloaded=any(index.exists for index in entry.index_files),
        )
        for entry in configured.list
    )
