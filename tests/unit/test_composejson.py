"""What is told of a compose in the keys of rpm-ostree, and commits whose parent is not the ref's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apt_ostree.core.compose import composejson
from apt_ostree.errors import UsageError
from apt_ostree.model import layout
from apt_ostree.model.package import Package
from apt_ostree.system.ostree import commit
from apt_ostree.system.ostree.repo import Repo, package_list, text
from tests.unit import repos

OLD = [Package("a", "2", "all"), Package("b", "1", "amd64"), Package("gone", "1", "all")]
NEW = [Package("a", "1", "all"), Package("b", "2", "amd64"), Package("come", "1", "all")]
FAR = "0123456789abcdef" * 4


def write(place: Path, content: str, packages=None, **options) -> commit.Written:
    """Commit a directory with one file to the ref `test`."""
    repos.write_files(place / content, {"usr/x": content})
    rows = {"version": text(content), layout.META_INPUTS: text("digest")}
    rows |= {layout.META_PACKAGES: package_list(packages)} if packages else {}
    return commit.commit_directory(
        place / "repo", place / content, "test", subject="x", timestamp=86400, metadata=rows, **options
    )


@pytest.fixture
def repo(tmp_path) -> Repo:
    return repos.make_repo(tmp_path / "repo")


def told(place: Path, repo: Repo, written: commit.Written) -> dict:
    composejson.write(place / "told.json", repo, "test", written.checksum, written.counts)
    return json.loads((place / "told.json").read_text())


def test_all_keys_of_rpm_ostree_are_there(tmp_path, repo):
    first, second = write(tmp_path, "one", OLD), write(tmp_path, "two", NEW, consume=False)
    found = told(tmp_path, repo, second)
    assert found == found | {
        "ref": "test",
        "ostree-commit": second.checksum,
        "ostree-parent-commit": first.checksum,
        "ostree-version": "two",
        "ostree-timestamp": "1970-01-02T00:00:00Z",
        "rpm-ostree-inputhash": "digest",
        "ostree-content-bytes-written": 3,
        "ostree-n-content-written": 1,
        "ostree-n-cache-hits": 0,
        "pkgdiff": [
            ["come", 0, {"NewPackage": ["come", "1", "all"]}],
            ["gone", 1, {"PreviousPackage": ["gone", "1", "all"]}],
            ["b", 2, {"PreviousPackage": ["b", "1", "amd64"], "NewPackage": ["b", "2", "amd64"]}],
            ["a", 3, {"PreviousPackage": ["a", "2", "all"], "NewPackage": ["a", "1", "all"]}],
        ],
    }
    assert len(found["ostree-content-checksum"]) == 64
    assert found["ostree-n-metadata-total"] >= found["ostree-n-metadata-written"] > 0
    assert found["ostree-n-content-total"] >= 1


def test_what_is_not_known_is_left_out(tmp_path, repo):
    found = told(tmp_path, repo, write(tmp_path, "one"))
    assert not {"ostree-parent-commit", "pkgdiff"} & found.keys()
    found = told(tmp_path, repo, write(tmp_path, "two", NEW, parent=FAR))
    assert found["ostree-parent-commit"] == FAR and "pkgdiff" not in found
    moved = told(tmp_path, repo, write(tmp_path, "three"))
    assert ("ostree-n-content-written" in moved) == (not repo.is_bare)
    again = commit.Written(repo.resolve("test"), changed=False)
    assert not [key for key in told(tmp_path, repo, again) if key.startswith("ostree-n-")]


def test_a_place_where_no_file_can_be_is_a_mistake(tmp_path):
    assert composejson.place(None) is None
    assert composejson.place(str(tmp_path / "x")) == tmp_path / "x"
    for path in (tmp_path, tmp_path / "none/x"):
        with pytest.raises(UsageError):
            composejson.place(str(path))


# --- parents


def test_another_parent_than_the_ref_s_commit(tmp_path, repo):
    first, second = write(tmp_path, "one"), write(tmp_path, "two")
    assert repo.parent(second.checksum) == first.checksum
    third = write(tmp_path, "three", parent=first.checksum)
    assert repo.parent(third.checksum) == first.checksum
    assert repo.resolve("test") == third.checksum
    again = write(tmp_path, "three", parent=first.checksum)
    assert (again.checksum, again.changed) == (third.checksum, False)
    other = write(tmp_path, "three", parent=second.checksum)
    assert other.changed and repo.parent(other.checksum) == second.checksum


def test_a_parent_is_in_the_repository_or_a_full_checksum(tmp_path, repo):
    first = write(tmp_path, "one").checksum
    place = tmp_path / "repo"
    for rev in ("test", first, first[:10]):
        assert commit.parent_of(place, rev) == first
    assert commit.parent_of(place, FAR) == FAR
    assert commit.parent_of(place, None) is None
    for where, rev in ((place, "none"), (place, FAR[:20]), (tmp_path / "new", "test")):
        with pytest.raises(UsageError, match="no commit or ref"):
            commit.parent_of(where, rev)
