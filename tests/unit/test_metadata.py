"""Values in the metadata of commits: whose numbers are read, and what is made of JSON."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from apt_ostree.system.ostree import commit, metadata
from apt_ostree.system.ostree.gi_ostree import GLib
from apt_ostree.system.ostree.repo import Repo
from tests.unit import repos

VALUES = {
    "number": -42,
    "half": 0.5,
    "yes": True,
    "word": "dé",
    "list": [1, 2.5, "three", False, [4]],
    "object": {"inner": 5, "more": {"none": []}},
    "nothing": {},
}


def write(place: Path, rows: Mapping[str, GLib.Variant]) -> tuple[Repo, str]:
    repo = repos.make_repo(place / "repo")
    repos.write_files(place / "tree", {"usr/x": "x"})
    written = commit.commit_directory(
        place / "repo", place / "tree", "test", subject="x", timestamp=0, metadata=rows
    )
    return repo, written.checksum


def test_what_is_made_of_json_is_read_again(tmp_path):
    repo, checksum = write(tmp_path, {key: metadata.of_json(value) for key, value in VALUES.items()})
    assert repo.metadata(checksum) == VALUES


def test_types_are_those_of_rpm_ostree():
    kinds = {key: metadata.of_json(value).get_type_string() for key, value in VALUES.items()}
    words = ("x", "d", "b", "s", "av", "a{sv}", "a{sv}")
    assert kinds == dict(zip(VALUES, words, strict=True))


def test_numbers_are_as_ostree_shows_them(tmp_path):
    """What a program of this machine wrote without a thought for others is shown otherwise, as by ostree."""
    rows = {"ours": metadata.of_json(42), "pair": metadata.numbers((1, 2)), "host": GLib.Variant("t", 200)}
    repo, checksum = write(tmp_path, rows)
    command = ["ostree", f"--repo={tmp_path / 'repo'}", "show", checksum]
    shown = {
        key: subprocess.run(
            [*command, f"--print-metadata-key={key}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for key in rows
    }
    found = repo.metadata(checksum)
    assert shown["ours"] == "int64 42" and found["ours"] == 42
    assert shown["pair"] == "(uint64 1, uint64 2)" and found["pair"] == (1, 2)
    assert shown["host"] == f"uint64 {found['host']}"


@pytest.mark.skipif(sys.byteorder != "little", reason="on the others nothing is swapped")
def test_a_commit_of_rpm_ostree_has_its_numbers_the_other_way_round(tmp_path):
    stamp, child = GLib.Variant("t", 1_700_000_000).byteswap(), GLib.Variant("u", 6).byteswap()
    repos_of = GLib.Variant("aa{sv}", [{"id": GLib.Variant("s", "fedora"), "timestamp": stamp}])
    repo, checksum = write(
        tmp_path, {"rpmostree.rpmmd-repos": repos_of, "deep": GLib.Variant("(sv)", ("a", child))}
    )
    found = repo.metadata(checksum)
    assert found["rpmostree.rpmmd-repos"] == [{"id": "fedora", "timestamp": 1_700_000_000}]
    assert found["deep"] == ("a", 6)
