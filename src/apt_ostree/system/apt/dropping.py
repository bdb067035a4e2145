"""Removes the packages of dropped requests, with the dependencies that nothing needs any more."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import apt_pkg

_FOLLOW_RECOMMENDS = "APT::AutoRemove::RecommendsImportant"
_FOLLOW_SUGGESTS = "APT::AutoRemove::SuggestsImportant"


def mark(
    cache: apt_pkg.Cache, depcache: Any, dropped: Sequence[apt_pkg.Package], needed: Collection[int]
) -> frozenset[int]:
    """Mark for removal what nothing needs without the dropped requests; return the ids of these packages.

    A dropped package stays if another one depends on it. Other packages also stay if they are recommended.

    dropped: packages whose requests were dropped.
    needed: ids of the packages of the base and of the remaining requests.
    """
    ids = frozenset(pkg.id for pkg in dropped)
    installed = [pkg for pkg in cache.packages if pkg.current_ver and not depcache.marked_delete(pkg)]
    with _roots(depcache, installed, needed):
        with _following(depcache, recommends=False):
            unneeded = [pkg for pkg in installed if pkg.id in ids and depcache.is_garbage(pkg)]
            _delete(depcache, unneeded)
        with _following(depcache, recommends=True):
            rest = [pkg for pkg in installed if pkg.id not in needed and depcache.is_garbage(pkg)]
            _delete(depcache, rest)
    return frozenset(pkg.id for pkg in (*unneeded, *rest))


@contextlib.contextmanager
def _roots(depcache: Any, installed: Sequence[apt_pkg.Package], needed: Collection[int]) -> Iterator[None]:
    """Let libapt take only the needed packages for manually installed ones inside the block."""
    was = {pkg.id: bool(depcache.is_auto_installed(pkg)) for pkg in installed}

    def flag(automatic: dict[int, bool]) -> None:
        group: Any = apt_pkg.ActionGroup(depcache)
        with group:
            for pkg in installed:
                depcache.mark_auto(pkg, automatic[pkg.id])

    flag({pkg.id: pkg.id not in needed for pkg in installed})
    try:
        yield
    finally:
        flag(was)


@contextlib.contextmanager
def _following(depcache: Any, *, recommends: bool) -> Iterator[None]:
    """Set which relations count as a need, and have libapt find again what nothing needs."""
    settings = {_FOLLOW_RECOMMENDS: str(recommends).lower(), _FOLLOW_SUGGESTS: "false"}
    saved = {key: apt_pkg.config.find(key) for key in settings}
    for key, value in settings.items():
        apt_pkg.config.set(key, value)
    group: Any = apt_pkg.ActionGroup(depcache)
    group.release()  # libapt marks when a group ends, and only then
    try:
        yield
    finally:
        for key, value in saved.items():
            apt_pkg.config.set(key, value)


def _delete(depcache: Any, packages: Sequence[apt_pkg.Package]) -> None:
    group: Any = apt_pkg.ActionGroup(depcache)
    with group:
        for pkg in packages:
            depcache.mark_delete(pkg, False)
