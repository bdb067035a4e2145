"""What the upper directories of an unlocked /usr say."""

from __future__ import annotations

import pytest

from apt_ostree.model.upper import Entry, changed_paths, fold, is_default_of_etc

BASE = {"d": ("d/a", "d/b"), "d/b": ("d/b/x",), "f": ()}


def children(path: str) -> tuple[str, ...]:
    return BASE.get(path, ())


def directory(path: str, *, opaque: bool = False) -> Entry:
    return Entry(path, "directory", opaque)


def file(path: str) -> Entry:
    return Entry(path, "other")


def whiteout(path: str) -> Entry:
    return Entry(path, "whiteout")


@pytest.mark.parametrize(
    ("path", "left_out"), [("etc", True), ("etc/a", True), ("etcetera", False), ("share/etc/a", False)]
)
def test_defaults_of_etc_belong_to_packages(path: str, left_out: bool):
    assert is_default_of_etc(path) is left_out


def test_the_newest_upper_says_what_became_of_a_path():
    old = [directory("d"), file("d/a"), whiteout("d/b"), file("f")]
    new = [directory("d"), whiteout("d/a"), file("d/b")]
    assert changed_paths([old, new]) == {"d/a": "removed", "d/b": "written", "f": "written"}
    assert fold([old, new], children) == {"d": 1, "d/a": None, "d/b": 1, "f": 0}


@pytest.mark.parametrize("above", [whiteout("d"), file("d")])
def test_what_replaces_a_directory_hides_all_that_was_written_into_it(above: Entry):
    found = fold([[directory("d"), file("d/new"), file("dx")], [above]], children)
    assert found == {"d": None if above.kind == "whiteout" else 1, "dx": 0}


def test_an_opaque_directory_removes_what_the_base_has_in_it():
    found = fold([[directory("d", opaque=True), file("d/new")]], children)
    assert found == {"d": 0, "d/a": None, "d/b": None, "d/new": 0}


def test_an_opaque_directory_hides_what_older_uppers_have_in_it():
    found = fold([[directory("d"), file("d/old"), file("d/a")], [directory("d", opaque=True)]], children)
    assert found == {"d": 1, "d/a": None, "d/b": None}


def test_a_new_directory_in_an_opaque_one_shows_nothing_of_the_base():
    found = fold([[directory("d", opaque=True), directory("d/b"), file("d/b/new")]], children)
    assert found == {"d": 0, "d/a": None, "d/b": 0, "d/b/x": None, "d/b/new": 0}


def test_a_directory_that_is_made_again_shows_nothing_of_the_base():
    found = fold([[whiteout("d")], [directory("d"), directory("d/b"), file("d/b/new")]], children)
    assert found == {"d": 1, "d/a": None, "d/b": 1, "d/b/x": None, "d/b/new": 1}


def test_nothing_was_written():
    assert fold([[], []], children) == {}
