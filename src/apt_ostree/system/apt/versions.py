"""What libapt knows of single versions: whether they are installed, offered, or security updates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apt_pkg

from apt_ostree.model.newer import Newer, ordered


def is_security(version: apt_pkg.Version) -> bool:
    """Return whether an archive of security updates (labelled *-Security) offers a version."""
    return any((row[0].label or "").endswith("-Security") for row in version.file_list)


def is_installed(version: apt_pkg.Version) -> bool:
    """Return whether a version is the one that the build root has."""
    # By id: in python-apt, versions with the same number are equal.
    current = version.parent_pkg.current_ver
    return bool(current and current.id == version.id)


def is_in_archive(version: apt_pkg.Version) -> bool:
    """Return whether an archive offers a version."""
    return any(not row[0].not_source for row in version.file_list)


def may_be_chosen(depcache: Any, version: apt_pkg.Version) -> bool:
    """Return whether an archive offers a version, and preferences do not exclude it (apt_preferences(5))."""
    return is_in_archive(version) and depcache.policy.get_priority(version) >= 0


def is_available(depcache: Any, version: apt_pkg.Version) -> bool:
    """Return whether a version is installed or may be."""
    return is_installed(version) or may_be_chosen(depcache, version)


def origin_text(version: apt_pkg.Version) -> str:
    """Return ORIGIN:ARCHIVE/COMPONENT, "file" for a local package, or nothing for what no archive offers."""
    for source in (row[0] for row in version.file_list if not row[0].not_source):
        name = source.origin or source.site
        return f"{name}:{source.archive}/{source.component}" if name else "file"
    return ""


def newer(cache: apt_pkg.Cache, depcache: Any, requests: Iterable[str]) -> tuple[Newer, ...]:
    """Return the newer versions that archives offer of packages that stay at a version; security first.

    For each package, these are the newest security update and apt's candidate. Versions above the candidate
    are not told: apt's preferences exclude them.

    depcache: without decisions.
    requests: NAME=VERSION.
    """
    return ordered(row for request in requests for row in _newer(cache, depcache, request))


def _newer(cache: apt_pkg.Cache, depcache: Any, request: str) -> Iterator[Newer]:
    name, _, version = request.partition("=")
    plain, _, architecture = name.partition(":")
    key: Any = (plain, architecture) if architecture else plain
    candidate = depcache.get_candidate_ver(cache[key]) if key in cache else None
    if not candidate or not is_in_archive(candidate):
        return
    between = [
        other
        for other in cache[key].version_list  # the newest first
        if _is_newer(depcache, other, version)
        and apt_pkg.version_compare(other.ver_str, candidate.ver_str) <= 0
    ]
    told = [*filter(is_security, between)][:1]
    if between and not (told and told[0].ver_str == candidate.ver_str):
        told.append(candidate)
    for other in told:
        yield Newer(request, other.ver_str, origin_text(other), is_security(other))


def _is_newer(depcache: Any, version: apt_pkg.Version, than: str) -> bool:
    return may_be_chosen(depcache, version) and apt_pkg.version_compare(version.ver_str, than) > 0
