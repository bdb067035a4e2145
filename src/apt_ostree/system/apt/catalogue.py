"""The packages that libapt knows: names, versions and summaries, read-only. Needs no privileges."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
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

    @property
    def id(self) -> str:
        """Return "URI SUITE"."""
        return f"{self.uri} {self.suite}"


@dataclass(frozen=True, slots=True)
class Described:
    """A package that an archive offers. archive: the id of its source, or empty."""

    name: str
    version: str
    architecture: str
    summary: str
    archive: str


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


def described(names: Iterable[str]) -> Iterator[Described]:
    """Yield the packages of the native architecture with these names, as far as an archive offers them."""
    cache, depcache = _read()
    records, places = apt_pkg.PackageRecords(cache), _places()
    for name in dict.fromkeys(names):
        version = depcache.get_candidate_ver(cache[name]) if name in cache else None
        if version is None or not versions.is_in_archive(version):
            continue
        records.lookup(version.translated_description.file_list[0])
        ids = (places(file) for file, _index in version.file_list)
        archive = next(filter(None, ids), "")
        yield Described(name, version.ver_str, version.arch, records.short_desc, archive)


def _places() -> Callable[[Any], str]:
    """Return a function that tells from which source a list of packages is, by its id."""
    configured = _configured()
    ids = {index.describe: _source(entry).id for entry in configured.list for index in entry.index_files}

    def place(file: Any) -> str:
        index = configured.find_index(file)
        return ids.get(index.describe, "") if index else ""

    return place


def newer(requests: Collection[str]) -> tuple[Newer, ...]:
    """Return the newer versions of packages that stay at theirs (NAME=VERSION)."""
    return versions.newer(*_read(), requests) if requests else ()


def _read() -> tuple[apt_pkg.Cache, Any]:
    with explained("read the package lists", hint="run 'apt-ostree refresh-md'"):
        cache = apt_pkg.Cache(None)
        return cache, apt_pkg.DepCache(cache)


def sources() -> tuple[Source, ...]:
    """Return the configured archives in the order of the configuration."""
    return tuple(map(_source, _configured().list))


def _configured() -> Any:
    configured = apt_pkg.SourceList()
    with explained("read the package sources", hint="check the files in /etc/apt/sources.list.d"):
        configured.read_main_list()
    return configured


def _source(entry: Any) -> Source:
    return Source(
        public_uri(entry.uri),
        entry.dist,
        signed=entry.is_trusted,
        downloaded=any(index.exists for index in entry.index_files),
    )
