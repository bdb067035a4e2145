"""Explains conflicts of packages, from libapt's relations and the decisions of a depcache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apt_pkg

#: Relation that prevents two packages from being installed together -> verb for messages. Replaces alone
#: removes nothing, but explains a conflict further.
_AGAINST = {"Conflicts": "conflicts with", "Breaks": "breaks", "Replaces": "replaces"}
_FOR = {"PreDepends": "depends on", "Depends": "depends on"}


def final_version(depcache: Any, pkg: apt_pkg.Package) -> Any:
    """Return the version of a package after the transaction, or None."""
    if depcache.marked_delete(pkg):
        return None
    if not depcache.marked_keep(pkg):
        return depcache.get_candidate_ver(pkg)
    return pkg.current_ver


def removal(depcache: Any, pkg: apt_pkg.Package, changed: Sequence[apt_pkg.Package]) -> str:
    """Return "NAME VERSION: reasons" for an installed package that would be removed.

    changed: all packages that the transaction changes; one of them is the cause.
    """
    finals = [final for other in changed if (final := final_version(depcache, other))]
    reasons = [*_opponents(pkg.current_ver, finals), *_lost(depcache, pkg.current_ver)]
    explanation = "; ".join(dict.fromkeys(reasons)) or "libapt gives no reason"
    return f"{pkg.name} {pkg.current_ver.ver_str}: {explanation}"


def _opponents(old: Any, finals: Sequence[Any]) -> Iterator[str]:
    """Yield the conflicts between new versions and an installed one, in both directions."""
    for new in finals:
        label = f"{new.parent_pkg.name} {new.ver_str}"
        if against := _relations(new, old):
            yield f"{label} " + " and ".join(f"{verb} it" for verb in against)
        elif against := _relations(old, new):
            yield "it " + " and ".join(f"{verb} {label}" for verb in against)


def _relations(one: Any, other: Any) -> list[str]:
    """Return the verbs of one version's conflicts with another; none if it only replaces that."""
    # By id: versions of different packages with the same number are equal in python-apt.
    verbs = [
        verb
        for kind, verb in _AGAINST.items()
        if any(
            target.id == other.id for group in one.depends_list.get(kind, []) for target in _targets(group)
        )
    ]
    return [] if verbs == [_AGAINST["Replaces"]] else verbs


def _targets(group: Sequence[apt_pkg.Dependency]) -> Iterator[Any]:
    return (target for dep in group for target in dep.all_targets())


def _lost(depcache: Any, version: Any) -> Iterator[str]:
    """Yield the dependencies of an installed version that would no longer be satisfied."""
    for kind, verb in _FOR.items():
        for group in version.depends_list.get(kind, []):
            present = [t for t in _targets(group) if t.parent_pkg.current_ver == t]
            if any(final_version(depcache, t.parent_pkg) == t for t in _targets(group)):
                continue
            fates = ", ".join(dict.fromkeys(_fate(depcache, t) for t in present))
            yield f"it {verb} {group_text(group)}" + (f", but {fates}" if fates else "")


def _fate(depcache: Any, version: Any) -> str:
    final = final_version(depcache, version.parent_pkg)
    name = version.parent_pkg.name
    return f"{name} would be {final.ver_str}" if final else f"{name} would be removed"


def unmet(cache: apt_pkg.Cache, depcache: Any) -> Iterator[str]:
    """Yield the relations that the transaction would break."""
    for pkg in cache.packages:
        if not depcache.is_inst_broken(pkg):
            continue
        version = depcache.get_candidate_ver(pkg) or pkg.current_ver
        for kind in ("PreDepends", "Depends", "Conflicts", "Breaks"):
            for group in version.depends_list.get(kind, []):
                if not _satisfied(depcache, kind, group):
                    yield unmet_text(version, kind, group)


def _satisfied(depcache: Any, kind: str, group: Sequence[apt_pkg.Dependency]) -> bool:
    hits = [v for v in _targets(group) if final_version(depcache, v.parent_pkg) == v]
    return not hits if kind in ("Conflicts", "Breaks") else bool(hits)


def conflicts(chosen: Mapping[int, Any], targets: Sequence[apt_pkg.Package]) -> Iterator[str]:
    """Yield the conflicts between the requested packages, and between these and installed ones.

    chosen: package id -> requested version.
    """
    for pkg in targets:
        version = chosen[pkg.id]
        groups = [g for kind in ("Conflicts", "Breaks") for g in version.depends_list.get(kind, [])]
        packages = (target.parent_pkg for group in groups for target in _targets(group))
        others = {other.id: other for other in packages if other.id != pkg.id}
        for other in sorted(others.values(), key=lambda other: other.name):
            if other.id in chosen or other.current_ver:
                yield f"{pkg.name} {version.ver_str} conflicts with {other.name}"


def missing(chosen: Mapping[int, Any], targets: Sequence[apt_pkg.Package]) -> Iterator[str]:
    """Yield the dependencies of the requested packages that no available package satisfies.

    chosen: package id -> requested version.
    """
    for pkg in targets:
        version = chosen[pkg.id]
        for kind in _FOR:
            for group in version.depends_list.get(kind, []):
                if not any(_targets(group)):
                    yield unmet_text(version, kind, group)


def unmet_text(version: Any, kind: str, group: Sequence[apt_pkg.Dependency]) -> str:
    """Return "NAME VERSION: KIND on ALTERNATIVES"."""
    return f"{version.parent_pkg.name} {version.ver_str}: {kind.lower()} on {group_text(group)}"


def group_text(group: Sequence[apt_pkg.Dependency]) -> str:
    """Return the alternatives of a relation in the syntax of control files."""
    return " | ".join(
        f"{dep.target_pkg.name} ({dep.comp_type} {dep.target_ver})" if dep.target_ver else dep.target_pkg.name
        for dep in group
    )
