"""Removes the packages of dropped requests, with the dependencies that nothing needs any more."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import apt_pkg

_FOLLOW_RECOMMENDS = "APT::AutoRemove::RecommendsImportant"
_FOLLOW_SUGGESTS = "APT::AutoRemove::SuggestsImportant"


def mark(
    installed: Sequence[apt_pkg.Package],
    depcache: Any,
    dropped: Sequence[apt_pkg.Package],
    needed: Collection[int],
) -> frozenset[int]:
    """Mark for removal what nothing needs without the dropped requests; return the ids of these packages.

    A dropped package stays if another one depends on it. Other packages also stay if they are recommended.

    installed: all installed packages.
    dropped: packages whose requests were dropped.
    needed: ids of the packages of the base and of the remaining requests.
    """
    ids = frozenset(pkg.id for pkg in dropped)
    installed = [pkg for pkg in installed if not depcache.marked_delete(pkg)]
    was = {pkg.id: bool(depcache.is_auto_installed(pkg)) for pkg in installed}
    # libapt looks for what nothing needs when a group ends, and only then; it takes 20 ms.
    with _following(recommends=False), _group(depcache):
        for pkg in installed:
            depcache.mark_auto(pkg, pkg.id not in needed)
    unneeded = [pkg for pkg in installed if pkg.id in ids and depcache.is_garbage(pkg)]
    with _following(recommends=True), _group(depcache):
        for pkg in unneeded:
            depcache.mark_delete(pkg, False)
    rest = [pkg for pkg in installed if pkg.id not in needed and depcache.is_garbage(pkg)]
    with _group(depcache):
        for pkg in rest:
            depcache.mark_delete(pkg, False)
        for pkg in installed:
            depcache.mark_auto(pkg, was[pkg.id])
    return frozenset(pkg.id for pkg in (*unneeded, *rest))


def _group(depcache: Any) -> Any:
    return apt_pkg.ActionGroup(depcache)


@contextlib.contextmanager
def _following(*, recommends: bool) -> Iterator[None]:
    """Set which relations count as a need inside the block."""
    settings = {_FOLLOW_RECOMMENDS: str(recommends).lower(), _FOLLOW_SUGGESTS: "false"}
    saved = {key: apt_pkg.config.find(key) for key in settings}
    for key, value in settings.items():
        apt_pkg.config.set(key, value)
    try:
        yield
    finally:
        for key, value in saved.items():
            apt_pkg.config.set(key, value)
