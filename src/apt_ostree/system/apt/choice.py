"""The packages of the archives, for choosing a part of an upgrade. Only reads the cache of a resolver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import apt_pkg

from apt_ostree.model.closure import Key, Member, Members, Relation
from apt_ostree.model.package import Package
from apt_ostree.model.package_plan import PackagePlan
from apt_ostree.system.apt.resolver import Resolver
from apt_ostree.system.apt.versions import is_available, is_in_archive, is_security, may_be_chosen


def satisfies(version: str, operator: str, other: str) -> bool:
    """Return whether a version satisfies a relation to another one, by dpkg's order of versions."""
    return bool(apt_pkg.check_dep(version, operator, other))


def native_architecture() -> str:
    """Return the native architecture."""
    return str(apt_pkg.get_architectures()[0])


def after(resolver: Resolver, transaction: PackagePlan, shown: Members) -> Members:
    """Return the packages after a resolved transaction, with their relations."""
    removed = {(step.name, step.architecture) for step in transaction.remove}
    target = {key: member for key, member in shown.items() if key not in removed}
    for step in (*transaction.install, *transaction.upgrade, *transaction.downgrade):
        pkg = resolver.cache[step.name, step.architecture]
        version = resolver.depcache.get_candidate_ver(pkg)
        member = _member(Package(step.name, step.new, step.architecture), version)
        # A package may change its architecture, for instance to `all`; dpkg then replaces the old one.
        for key in _replaced(target, step.name, pkg.architecture):
            del target[key]
        target[member.key] = member
    return target


def absent(resolver: Resolver, packages: Iterable[Package]) -> list[Package]:
    """Return those of the packages whose versions no archive offers."""
    return [package for package in packages if not _offered(resolver, package)]


def is_offered(resolver: Resolver, relation: Relation) -> bool:
    """Return whether a package that is installed, or that an archive offers, satisfies a relation."""
    architectures = [relation.architecture] if relation.architecture else apt_pkg.get_architectures()
    keys = [(relation.name, architecture) for architecture in architectures]
    packages = [resolver.cache[key] for key in keys if key in resolver.cache]
    found = [(v.ver_str, v) for pkg in packages for v in pkg.version_list]
    found += [(row[1] or "", row[2]) for pkg in packages for row in pkg.provides_list]
    versions = [text for text, version in found if is_available(resolver.depcache, version)]
    return any(
        not relation.operator or (version and satisfies(version, relation.operator, relation.version))
        for version in versions
    )


def security_updates(
    resolver: Resolver, packages: Iterable[Package], limits: Mapping[Key, str] | None = None
) -> dict[Key, str]:
    """Return key -> version of the newest security update, for each installed package that has one.

    limits: the highest version allowed for each package. None: apt's candidate versions, and no update of a
        package that is on hold.
    """
    newest = {}
    for package in packages:
        key = (package.name, package.architecture)
        if key not in resolver.cache:
            continue
        pkg = resolver.cache[key]
        limit = limits.get(key) if limits is not None else _candidate(resolver, pkg)
        updates = [
            version.ver_str
            for version in pkg.version_list  # the newest first
            if limit and is_security(version) and _between(package.version, version.ver_str, limit)
            if may_be_chosen(resolver.depcache, version)
        ]
        if updates:
            newest[key] = updates[0]
    return newest


def _candidate(resolver: Resolver, pkg: apt_pkg.Package) -> str | None:
    candidate = resolver.depcache.get_candidate_ver(pkg)
    return candidate.ver_str if candidate and pkg.selected_state != apt_pkg.SELSTATE_HOLD else None


def _between(old: str, version: str, limit: str) -> bool:
    return apt_pkg.version_compare(old, version) < 0 and apt_pkg.version_compare(version, limit) <= 0


def _offered(resolver: Resolver, package: Package) -> bool:
    key = (package.name, package.architecture)
    versions = resolver.cache[key].version_list if key in resolver.cache else []
    return any(version.ver_str == package.version and is_in_archive(version) for version in versions)


def _replaced(target: Members, name: str, architecture: str) -> list[Key]:
    return [key for key in target if key[0] == name and key[1] in (architecture, "all")]


def _member(package: Package, version: Any) -> Member:
    def groups(*kinds: str) -> list[tuple[Relation, ...]]:
        dependencies = (group for kind in kinds for group in version.depends_list.get(kind, []))
        return [tuple(map(relation, group)) for group in dependencies]

    def relation(dep: apt_pkg.Dependency) -> Relation:
        return Relation(dep.target_pkg.name, dep.comp_type, dep.target_ver or "")

    return Member(
        package,
        depends=tuple(groups("PreDepends", "Depends")),
        conflicts=tuple(one for group in groups("Conflicts", "Breaks") for one in group),
        provides=tuple((name, provided or "") for name, provided, _version in version.provides_list),
    )
