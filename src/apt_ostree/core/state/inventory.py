"""The packages of a commit, whichever tool made it, and the files that are theirs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache

from apt_ostree.model import dpkg_lists, initramfs, layout
from apt_ostree.model.package import Package
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.repo import Repo


@lru_cache(maxsize=32)
def packages_of(repo: Repo, commit: str) -> frozenset[Package]:
    """Return the packages of a commit: from its metadata, else from the dpkg database in its tree.

    A commit of another tool has no list in its metadata. A tree without a database has no packages. Raises
    ExternalFailure if the commit is missing or damaged.
    """
    listed = repo.packages(commit)
    if listed is not None:
        return listed
    database = diff.file_of(repo, commit, f"{layout.DPKG_ADMINDIR}/status")
    if database is None:
        return frozenset()
    from apt_ostree.system.apt import status

    return status.installed(repo.file_state(database).content)


def layered_packages(repo: Repo, commit: str) -> frozenset[Package]:
    """Return the packages that a commit has in another version than its base, or in addition to it."""
    return packages_of(repo, commit) - packages_of(repo, repo.base_of(commit))


def owners(
    repo: Repo, commit: str, packages: Iterable[tuple[str, str]], paths: Collection[str]
) -> dict[str, str]:
    """Return which of these packages of a commit owns each path; what several own has no owner.

    packages: names and architectures.
    """
    info = diff.directory_of(repo, commit, f"{layout.DPKG_ADMINDIR}/info")
    if info is None or not paths:
        return {}
    files = diff.read_dirtree(repo, info[0])[0]
    names = [dpkg_lists.info_name(files, name, architecture) for name, architecture in packages]
    lists = {
        name: repo.file_state(files[f"{name}.list"]).content.decode(errors="replace")
        for name in names
        if f"{name}.list" in files
    }
    return dpkg_lists.owners(lists, paths)


def initramfs_contents(repo: Repo, commit: str, kernel: str) -> frozenset[str]:
    """Return the paths that the initramfs of a kernel contains in a commit; none if they are not listed."""
    path = f"{layout.KERNEL_MODULES}/{kernel}/{layout.INITRAMFS_LIST}"
    listing = diff.file_of(repo, commit, path)
    return initramfs.read_list(repo.file_state(listing).content.decode()) if listing else frozenset()
