"""Which packages a commit holds, whoever made it."""

from __future__ import annotations

from functools import lru_cache

from apt_ostree.model import layout
from apt_ostree.model.package import Package
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.repo import Repo


@lru_cache(maxsize=32)
def packages_of(repo: Repo, commit: str) -> frozenset[Package]:
    """Return a commit's packages: from its metadata, else from the dpkg database in its tree.

    A commit of another tool has no list in its metadata; one without a database holds no packages.
    """
    listed = repo.packages(commit)
    if listed is not None:
        return listed
    database = diff.file_of(repo, commit, f"{layout.DPKG_ADMINDIR}/status")
    if database is None:
        return frozenset()
    from apt_ostree.system.apt import status

    return status.installed(repo.file_state(database).content)
