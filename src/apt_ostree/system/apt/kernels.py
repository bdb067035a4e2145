"""Leaves one kernel in a resolved transaction, with the meta-packages that need it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apt_pkg

from apt_ostree.errors import Refused
from apt_ostree.model.kernel import is_image, is_kernel, kept_images
from apt_ostree.system.apt.reasons import final_version

_DEPENDS = ("PreDepends", "Depends")


def drop_superseded(
    cache: apt_pkg.Cache, depcache: Any, changed: Sequence[apt_pkg.Package], requested: Iterable[str]
) -> frozenset[int]:
    """Mark all kernels but those to keep for removal, with the meta-packages that need them, if one is new.

    changed: the packages that the transaction changes.
    requested: names of packages that were asked for.

    Returns the ids of the packages that were marked. Raises Refused if several kernels were asked for.
    """
    if not any(is_kernel(pkg.name) and depcache.marked_install(pkg) for pkg in changed):
        return frozenset()
    present = {
        pkg.name: pkg for pkg in cache.packages if is_kernel(pkg.name) and final_version(depcache, pkg)
    }
    finals = {name: final_version(depcache, pkg) for name, pkg in present.items()}
    images = {name: v.ver_str for name, v in finals.items() if is_image(name, v.installed_size)}
    if not any(depcache.marked_install(present[name]) for name in images):
        return frozenset()
    kept = kept_images(images, _with_needs(requested, finals), apt_pkg.version_compare)
    if len(kept) > 1:
        raise Refused(
            f"{len(kept)} kernels are requested, and a deployment boots one: {', '.join(sorted(kept))}",
            hint="uninstall the others; nothing was changed",
        )
    dropped = [present[name] for name in images if name not in kept]
    _delete(depcache, dropped)
    meta = [pkg for name, pkg in present.items() if name not in images]
    while broken := [pkg for pkg in meta if pkg not in dropped and depcache.is_inst_broken(pkg)]:
        _delete(depcache, broken)
        dropped += broken
    return frozenset(pkg.id for pkg in dropped)


def _with_needs(requested: Iterable[str], finals: dict[str, Any]) -> set[str]:
    """Return the names of kernel packages that were asked for, and of those on which these depend."""
    waiting, names = list(requested), set()
    while waiting:
        name = waiting.pop()
        if name in finals and name not in names:
            names.add(name)
            groups = [group for kind in _DEPENDS for group in finals[name].depends_list.get(kind, [])]
            waiting += [dependency.target_pkg.name for group in groups for dependency in group]
    return names


def _delete(depcache: Any, packages: Sequence[apt_pkg.Package]) -> None:
    for pkg in packages:
        depcache.mark_delete(pkg, False)
