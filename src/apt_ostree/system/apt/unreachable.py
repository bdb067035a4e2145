"""Leaves out of an upgrade what archives offer that cannot be reached, so that it holds nothing else back."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import apt_pkg

from apt_ostree.model.package import Package
from apt_ostree.system.apt import config
from apt_ostree.system.apt.acquire import archive_name
from apt_ostree.system.apt.resolver import Resolver
from apt_ostree.system.apt.versions import is_available

#: A version with such a priority is never chosen (apt_preferences(5)).
_NEVER = -1


def leave_out(resolver: Resolver, archives: Collection[str]) -> tuple[str, ...]:
    """Have libapt choose no version that only these archives offer, unless it is in the cache.

    archives: "URI SUITE" of each, see `acquire.failed_archives`.

    Returns "NAME VERSION" of the upgrades that this holds back, sorted.
    """
    lists = _lists(resolver, archives)
    if not lists:
        return ()
    policy, upgrades = resolver.depcache.policy, []
    for pkg in resolver.cache.packages:
        if _is_upgraded(resolver, pkg):
            upgrades.append((pkg, resolver.depcache.get_candidate_ver(pkg)))
        for version in pkg.version_list:
            if not _is_only_in(version, lists):
                continue
            if _is_cached(version):
                priority = policy.get_priority(version)
                policy.create_pin("version", pkg.get_fullname(), version.ver_str, priority)
            else:
                policy.set_priority(version, _NEVER)  # drops what a preference says about this package
    for entry in lists.values():
        policy.set_priority(entry, _NEVER)  # libapt 2.6 goes by it where a version has no preference
    resolver.reset()
    return tuple(
        sorted(
            f"{pkg.name} {version.ver_str}"
            for pkg, version in upgrades
            if resolver.depcache.get_candidate_ver(pkg).id != version.id
        )
    )


def out_of_reach(
    resolver: Resolver, archives: Collection[str], packages: Iterable[Package]
) -> tuple[Package, ...]:
    """Return those of the packages that only these archives offer, and of which nothing newer can be had."""
    lists = _lists(resolver, archives)

    def can_be_had(version: apt_pkg.Version) -> bool:
        reached = not _is_only_in(version, lists) and is_available(resolver.depcache, version)
        return reached or _is_cached(version)

    def is_lost(package: Package) -> bool:
        key = (package.name, package.architecture)
        versions = resolver.cache[key].version_list if key in resolver.cache else []
        later = [v for v in versions if apt_pkg.version_compare(v.ver_str, package.version) >= 0]
        is_theirs = any(v.ver_str == package.version and _is_only_in(v, lists) for v in later)
        return is_theirs and not any(map(can_be_had, later))

    return tuple(filter(is_lost, packages)) if lists else ()


def _lists(resolver: Resolver, archives: Collection[str]) -> dict[int, apt_pkg.PackageFile]:
    """Return id -> opened package list of the archives."""
    cache: Any = resolver.cache  # python-apt's stubs do not have file_list
    entries = (e for e in resolver.sources.list if archives and archive_name(e) in archives)
    described = {index.describe for entry in entries for index in entry.index_files}
    indexes = [(file, resolver.sources.find_index(file)) for file in cache.file_list if described]
    return {file.id: file for file, index in indexes if index and index.describe in described}


def _is_only_in(version: apt_pkg.Version, lists: Collection[int]) -> bool:
    return all(row[0].id in lists for row in version.file_list)


def _is_upgraded(resolver: Resolver, pkg: apt_pkg.Package) -> bool:
    candidate = resolver.depcache.get_candidate_ver(pkg) if pkg.current_ver else None
    on_hold = pkg.selected_state == apt_pkg.SELSTATE_HOLD
    return bool(candidate and candidate.id != pkg.current_ver.id and not on_hold)


def _is_cached(version: apt_pkg.Version) -> bool:
    path = config.cached_archive(version.parent_pkg.name, version.ver_str, version.arch)
    return path.exists() and path.stat().st_size == version.size
