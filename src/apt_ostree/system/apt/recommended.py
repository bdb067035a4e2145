"""Has packages installed with or without recommended ones, whatever apt is configured for.

libapt reads that setting when a cache is opened, for all packages. Where requests differ, the cache has none
installed, and those of some are added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import apt_pkg

from apt_ostree.system.apt import config
from apt_ostree.system.apt.reasons import final_version

_SETTING = "APT::Install-Recommends"


def configured() -> bool:
    """Return whether apt is configured to install recommended packages."""
    return bool(apt_pkg.config.find_b(_SETTING, True))


def followed(recommends: bool | None) -> AbstractContextManager[None]:
    """Have a cache that is opened inside the block add recommended packages, or not; None: as configured."""
    return nullcontext() if recommends is None else config.changed({_SETTING: str(recommends).lower()})


def add(depcache: Any, packages: Iterable[apt_pkg.Package]) -> None:
    """Mark what new packages and their dependencies recommend for installation, unless it conflicts."""
    pending, seen = list(packages), set()
    while pending:
        pkg = pending.pop(0)
        if pkg.id in seen or not depcache.marked_install(pkg):
            continue
        seen.add(pkg.id)
        relations = depcache.get_candidate_ver(pkg).depends_list
        for group in relations.get("Recommends", []):
            _satisfy(depcache, group)
        kinds = ("PreDepends", "Depends", "Recommends")
        groups = (group for kind in kinds for group in relations.get(kind, []))
        pending += (version.parent_pkg for group in groups for version in _targets(group))


def _satisfy(depcache: Any, group: Any) -> None:
    targets = list(_targets(group))
    if any(final_version(depcache, version.parent_pkg) == version for version in targets):
        return
    for version in targets:
        pkg = version.parent_pkg
        if depcache.get_candidate_ver(pkg) == version and not _conflicts(depcache, version):
            depcache.mark_install(pkg, True, False)
            return


def _targets(group: Any) -> Iterator[Any]:
    return (version for one in group for version in one.all_targets())


def _conflicts(depcache: Any, version: Any) -> bool:
    """Return whether a version conflicts with one that is to be there, or the other way round."""
    kinds = ("Conflicts", "Breaks")
    groups = (group for kind in kinds for group in version.depends_list.get(kind, []))
    others = [target for group in groups for target in _targets(group)]
    others += [
        one.parent_ver
        for one in version.parent_pkg.rev_depends_list
        if one.dep_type_untranslated in kinds and version in one.all_targets()
    ]
    return any(final_version(depcache, other.parent_pkg) == other for other in others)
