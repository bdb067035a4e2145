"""Which files of other packages are diverted for a package that replaces them, and which come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from apt_ostree.model.replaced_files import place_of, to_divert, to_restore
from apt_ostree.system import dpkg_query

OWNERS = {
    "/usr/bin/tool": {"tool"},
    "/usr/bin/both": {"new", "tool"},
    "/usr/bin/own": {"new"},
    "/etc/tool.conf": {"tool"},
}


@pytest.mark.parametrize(
    ("path", "diversions", "is_diverted"),
    [
        ("/usr/bin/tool", {}, True),
        ("/usr/bin/both", {}, True),  # another package that comes with it
        ("/usr/bin/own", {}, False),  # an upgrade of itself
        ("/usr/bin/nobodys", {}, False),
        ("/etc/tool.conf", {}, False),  # dpkg refuses that
        ("/usr/bin/tool", {"/usr/bin/tool": ("/usr/bin/tool.replaced-by-new", "new")}, False),
        ("/usr/bin/tool", {"/usr/bin/tool": ("/usr/bin/tool.distrib", ":")}, False),  # the administrator's
    ],
)
def test_files_of_others_are_diverted(path: str, diversions, is_diverted: bool):
    assert to_divert("new", [path], OWNERS, diversions) == ([path] if is_diverted else [])


def test_what_a_package_does_not_have_any_more_comes_back():
    diversions = {
        "/usr/bin/tool": (place_of("/usr/bin/tool", "new"), "new"),  # a newer version lacks it
        "/usr/bin/both": (place_of("/usr/bin/both", "new"), "new"),
        "/usr/bin/gone": (place_of("/usr/bin/gone", "removed"), "removed"),
        "/usr/bin/own": ("/usr/bin/own.distrib", "removed"),  # not of ours
    }
    assert to_restore(diversions, OWNERS) == [("/usr/bin/tool", "new"), ("/usr/bin/gone", "removed")]


def test_dpkgs_file_of_diversions(tmp_path: Path):
    (tmp_path / "diversions").write_text("/usr/a\n/usr/a.distrib\n:\n/usr/b\n/usr/b.x\nmine\n")
    assert dpkg_query.diversions(tmp_path) == {
        "/usr/a": ("/usr/a.distrib", ":"),
        "/usr/b": ("/usr/b.x", "mine"),
    }
    assert dpkg_query.diversions(tmp_path / "none") == {}


def test_owners_of_all_paths(tmp_path: Path):
    (tmp_path / "info").mkdir()
    (tmp_path / "info/a:amd64.list").write_text("/.\n/usr\n/usr/x\n")
    (tmp_path / "info/b.list").write_text("/usr\n")
    owners = dpkg_query.owners_of_all(tmp_path)
    assert (owners["/usr"], owners["/usr/x"]) == ({"a", "b"}, {"a"})
