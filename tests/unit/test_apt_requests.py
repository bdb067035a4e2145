"""Requests that name nothing to install: all at once, each with its reason."""

import pytest

from apt_ostree.system.apt import requests
from apt_ostree.system.apt.requests import Problem

NAMES = ["htop", "hello", "atop", "nginx", "nginx-common", "hh"]
UNKNOWN = Problem("nosuch", "is not known", unknown=True)
VERSION = Problem("htop", "has no version '7'", "known: 1, 2")
VIRTUAL = Problem("editor", "is virtual", "choose one that provides it: ed, nano")


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [
        ("htpo", "htop"),
        ("ngnix", "nginx"),
        ("nginx:arm64", "nginx"),
        ("nosuch", None),
        ("h", None),
        ("", None),
    ],
)
def test_a_name_that_is_nearly_known_gets_a_proposal(mistyped, meant):
    problem = requests.with_proposal(Problem(mistyped, "is not known", unknown=True), NAMES)
    assert problem.remedy == (f"did you mean '{meant}'?" if meant else "")


def test_a_known_name_gets_no_proposal():
    assert requests.with_proposal(VERSION, NAMES) == VERSION


@pytest.mark.parametrize(
    ("problem", "message", "hint"),
    [
        (UNKNOWN, "package 'nosuch' is not known", "check the name with"),
        (VERSION, "package 'htop' has no version '7'", "known: 1, 2"),
        (VIRTUAL, "package 'editor' is virtual", "choose one that provides it: ed, nano"),
    ],
)
def test_one_problem_is_the_message(problem, message, hint):
    error = requests.explain([problem])
    assert (error.message, error.details) == (message, ())
    assert error.hint.startswith(hint)


def test_the_hint_for_one_unknown_name_begins_with_the_proposal():
    problem = requests.with_proposal(Problem("htpo", "is not known", unknown=True), NAMES)
    assert requests.explain([problem]).hint.startswith("did you mean 'htop'? check the name")


def test_several_problems_are_named_at_once():
    error = requests.explain([UNKNOWN, VERSION, VIRTUAL])
    assert error.message == "3 packages cannot be found: nosuch, htop, editor"
    assert error.details == (
        "nosuch is not known",
        "htop has no version '7'; known: 1, 2",
        "editor is virtual; choose one that provides it: ed, nano",
    )
    assert "refresh-md" in error.hint


def test_the_archives_are_not_searched_when_all_names_are_known():
    assert requests.explain([VERSION, VIRTUAL]).hint == "nothing was changed"


def test_several_unknown_names_are_counted():
    error = requests.explain([UNKNOWN, UNKNOWN])
    assert error.message == "2 packages are not known: nosuch, nosuch"
