"""What archives offer, as the policy judges it: what a resolver may not choose, and what a plan brings.

It holds back versions by priorities, as apt_preferences(5) do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import apt_pkg

from apt_ostree.model.package import Package
from apt_ostree.model.package_plan import PackagePlan, Step
from apt_ostree.model.policy import Archive, Incoming, Reason
from apt_ostree.system.apt.resolver import Resolver
from apt_ostree.system.apt.versions import is_in_archive, is_installed, is_security

#: A version with such a priority is never chosen (apt_preferences(5)).
_NEVER = -1


def hold_back(resolver: Resolver, judge: Callable[[Incoming], Reason | None]) -> tuple[Reason, ...]:
    """Have libapt choose no version that the policy does not let in.

    judge: returns why a version may not come in, or None.

    Returns the reasons why installed packages are not upgraded, sorted by package.
    """
    told = {}
    for pkg in resolver.cache.packages:
        if not pkg.current_ver:
            continue
        offers = [version for version in pkg.version_list if _is_newer_offer(resolver, pkg, version)]
        judged = {version.id: judge(_offer(resolver, version)) for version in offers}
        candidate = resolver.depcache.get_candidate_ver(pkg)
        if candidate and (reason := judged.get(candidate.id)):
            told[pkg.name] = reason
        _never(resolver, [version for version in offers if judged[version.id]])
    _hold_back_new(resolver, judge)
    resolver.reset()
    return tuple(told[name] for name in sorted(told))


def _hold_back_new(resolver: Resolver, judge: Callable[[Incoming], Reason | None]) -> None:
    """Hold back versions of packages that are not installed, where another version may come in.

    A package without such a version is left: a request for it is told why. The lists are judged, and not each
    of their versions: looking at all packages of Debian takes seconds.
    """
    cache: Any = resolver.cache  # python-apt's stubs do not have file_list
    lists = [row for row in cache.file_list if not row.not_source]
    foreign = {row.id for row in lists if judge(Incoming(archives=(_archive(row),)))}
    for pkg in resolver.cache.packages if foreign else ():
        if pkg.current_ver or not pkg.has_versions:
            continue
        offers = [version for version in pkg.version_list if _is_newer_offer(resolver, pkg, version)]
        refused = [version for version in offers if {row[0].id for row in version.file_list} <= foreign]
        if len(refused) < len(offers):
            _never(resolver, refused)


def _never(resolver: Resolver, versions: Iterable[apt_pkg.Version]) -> None:
    policy = resolver.depcache.policy
    for version in versions:
        policy.set_priority(version, _NEVER)  # drops what a preference says about it
        policy.create_pin("version", version.parent_pkg.get_fullname(), version.ver_str, _NEVER)


def incoming(resolver: Resolver, plan: PackagePlan, present: Collection[Package]) -> Iterator[Incoming]:
    """Yield what a plan brings that the system does not have yet.

    present: the packages that it has.
    """
    versions = {package.name: package.version for package in present}
    here = {(package.name, package.version) for package in present}
    for step in (*plan.install, *plan.upgrade, *plan.downgrade):
        if (step.name, step.new) not in here:
            yield _incoming(resolver, step, versions.get(step.name, ""))


def _incoming(resolver: Resolver, step: Step, old: str) -> Incoming:
    version = resolver.depcache.get_candidate_ver(resolver.cache[step.name, step.architecture])
    dependency = step.reason == "dependency"
    return Incoming(step.name, step.new, dependency, old, _archives(resolver, version), step.security)


def _is_newer_offer(resolver: Resolver, pkg: apt_pkg.Package, version: apt_pkg.Version) -> bool:
    if is_installed(version) or not is_in_archive(version) or resolver.is_ours(version):
        return False
    return not pkg.current_ver or apt_pkg.version_compare(version.ver_str, pkg.current_ver.ver_str) > 0


def _offer(resolver: Resolver, version: apt_pkg.Version) -> Incoming:
    pkg = version.parent_pkg
    old = pkg.current_ver.ver_str if pkg.current_ver else ""
    archives = _archives(resolver, version)
    return Incoming(pkg.name, version.ver_str, old=old, archives=archives, security=is_security(version))


def _archives(resolver: Resolver, version: apt_pkg.Version) -> tuple[Archive, ...] | None:
    """Return the archives of a version; none for a file, and None for what the present tree offers."""
    if resolver.is_ours(version):
        return () if resolver.is_file(version) else None
    return tuple(_archive(row[0]) for row in version.file_list if not row[0].not_source)


def _archive(source: Any) -> Archive:
    return Archive(
        origin=source.origin or "",
        label=source.label or "",
        suite=source.archive or "",
        codename=source.codename or "",
        component=source.component or "",
        site=source.site or "",
    )
