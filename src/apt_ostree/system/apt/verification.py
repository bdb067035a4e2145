"""Packages of archives that were not verified, because a source does not require it (sources.list(5))."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import product, starmap
from pathlib import Path
from typing import Any

import apt_pkg

from apt_ostree.model.package_plan import PackagePlan
from apt_ostree.system.apt.acquire import public_uri
from apt_ostree.system.apt.config import explained
from apt_ostree.system.apt.resolver import Resolver

#: What a file contains that makes an archive trusted, as option (sources.list) or as field (.sources).
_TRUSTED = "trusted"


def unverified(resolver: Resolver, plan: PackagePlan) -> Mapping[str, Sequence[str]]:
    """Return reason -> NAME=VERSION of a plan's packages that come from no archive that was verified.

    An archive was not if its source says `Trusted: yes`, or if its Release file has expired. Packages of
    files and of the present tree are not among them. Raises ExternalFailure if sources cannot be read.
    """
    places = {index.describe: _place(e.uri, e.dist) for e in resolver.sources.list for index in e.index_files}
    exemption = cache(partial(_exemption, frozenset(_trusted())))
    packages: dict[str, list[str]] = {}
    for step in (*plan.install, *plan.upgrade, *plan.downgrade):
        version = resolver.depcache.get_candidate_ver(resolver.cache[step.name, step.architecture])
        if resolver.is_ours(version):
            continue
        indexes = [resolver.sources.find_index(row[0]) for row in version.file_list]
        reasons = [exemption(places[index.describe]) for index in indexes if index and index.is_trusted]
        if reasons and all(reasons):
            packages.setdefault(reasons[0], []).append(f"{step.name}={step.new}")
    return packages


def _place(uri: str, suite: str) -> str:
    """Return the URI of a suite's directory, in which its Release file is."""
    return f"{uri.rstrip('/')}/" + (suite.lstrip("/") if suite.endswith("/") else f"dists/{suite}/")


def _exemption(trusted: frozenset[str], place: str) -> str:
    """Return why an archive is accepted that is not verified; "" if it is."""
    if place in trusted:
        return f"'Trusted: yes' is set for {public_uri(place)}"
    if expired := _expired(place):
        return f"the Release file of {public_uri(place)} expired on {expired}"
    return ""


def _trusted() -> Iterator[str]:
    """Yield the places of the suites that are configured as trusted."""
    parts = Path(apt_pkg.config.find_dir("Dir::Etc::sourceparts"))
    paths = [Path(apt_pkg.config.find_file("Dir::Etc::sourcelist")), *parts.glob("*")]
    texts = (path.read_text(errors="replace").lower() for path in paths if path.is_file())
    if not any(_TRUSTED in text for text in texts):
        return
    from aptsources.sourceslist import SourcesList  # takes 0.1 s

    with explained("read the package sources", hint="check the files in /etc/apt/sources.list.d"):
        entries = SourcesList(withMatcher=False, deb822=True).list
    for entry in entries:
        if entry.invalid or entry.disabled or not entry.trusted:
            continue
        uris, suites = getattr(entry, "uris", [entry.uri]), getattr(entry, "suites", [entry.dist])
        yield from starmap(_place, product(uris, suites))


def _expired(place: str) -> str:
    """Return when the Release file of a suite expired; "" if it has not."""
    lists = Path(apt_pkg.config.find_dir("Dir::State::lists"))
    files = (lists / apt_pkg.uri_to_filename(place + name) for name in ("InRelease", "Release"))
    path = next((path for path in files if path.exists()), None)
    if path is None:
        return ""
    with explained(f"read {path}", hint="run 'apt-ostree refresh-md'"):
        with os.fdopen(apt_pkg.open_maybe_clear_signed_file(str(path)), "rb") as stream:
            release: Any = next(apt_pkg.TagFile(stream), {})
        until: str = release.get("Valid-Until", "")
        return until if until and apt_pkg.str_to_time(until) < time.time() else ""
