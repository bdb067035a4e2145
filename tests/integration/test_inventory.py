"""The packages of a commit, with and without a list in its metadata."""

from pathlib import Path

from apt_ostree.core.state.inventory import packages_of
from apt_ostree.model import layout
from apt_ostree.model.package import Package
from apt_ostree.system.ostree.commit import commit_directory
from apt_ostree.system.ostree.repo import Repo, package_list

STATUS = """\
Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2-1

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: half
Status: install ok half-configured
Architecture: all
Version: 1:2.0~rc1
"""
BASH, HALF = Package("bash", "5.2-1", "amd64"), Package("half", "1:2.0~rc1", "all")


def commit(tmp_path: Path, name: str, *, status: str | None, metadata=None):
    tree = tmp_path / name
    (tree / layout.DPKG_ADMINDIR).mkdir(parents=True)
    if status is not None:
        (tree / layout.DPKG_ADMINDIR / "status").write_text(status)
    path = tmp_path / "repo"
    written = commit_directory(path, tree, name, subject=name, timestamp=0, metadata=metadata or {})
    return Repo.open(path), written.checksum


def test_the_database_of_the_tree_is_read(tmp_path):
    repo, checksum = commit(tmp_path, "foreign", status=STATUS)
    assert repo.packages(checksum) is None
    assert packages_of(repo, checksum) == {BASH, HALF}


def test_the_list_in_the_metadata_is_preferred(tmp_path):
    metadata = {layout.META_PACKAGES: package_list([HALF])}
    repo, checksum = commit(tmp_path, "own", status=STATUS, metadata=metadata)
    assert packages_of(repo, checksum) == repo.packages(checksum) == {HALF}
    assert layout.META_PACKAGES not in repo.metadata(checksum)


def test_an_empty_list_is_a_list(tmp_path):
    repo, checksum = commit(tmp_path, "own", status=STATUS, metadata={layout.META_PACKAGES: package_list([])})
    assert packages_of(repo, checksum) == frozenset()


def test_a_commit_without_a_database_holds_no_packages(tmp_path):
    repo, checksum = commit(tmp_path, "layer", status=None)
    assert packages_of(repo, checksum) == frozenset()
