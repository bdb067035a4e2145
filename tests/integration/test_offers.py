"""Which versions a policy lets in, as libapt's own resolver then chooses among the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.integration.apt_world import installed, package, resolve

HERE = [installed("foo", "1.0"), installed("bar", "1.0")]
ARCHIVES = {
    "main": [package("foo", "2.0"), package("bar", "2.0"), package("new", "2.0")],
    "security": [package("foo", "1.1"), package("new", "1.1")],
    "ppa": [package("foo", "3.0"), package("extra", "1.0"), package("bar", "3.0", Depends="extra")],
}


BOTH = {"foo": "origins", "bar": "origins"}


def after(answer: dict[str, Any]) -> dict[str, str]:
    return {
        step["name"]: step["new"] for kind in ("install", "upgrade", "downgrade") for step in answer[kind]
    }


def held(answer: dict[str, Any]) -> dict[str, str]:
    return {r["subject"]: r["rule"] for r in answer["policy"]["reasons"] if r["allowed"] and r["subject"]}


def refused(answer: dict[str, Any]) -> dict[str, str]:
    return {r["subject"]: r["rule"] for r in answer["policy"]["reasons"] if not r["allowed"]}


@pytest.mark.parametrize(
    ("policy", "expected", "kept"),
    [  # what is held back, by which rule
        ("", {"foo": "3.0", "bar": "3.0", "extra": "1.0"}, {}),
        ("Origins=suite=main suite=security", {"foo": "2.0", "bar": "2.0"}, BOTH),
        ("Origins=label=World-Security", {"foo": "1.1"}, BOTH),
        ("Origins=o=World,l=World,a=main", {"foo": "2.0", "bar": "2.0"}, BOTH),
        ("Origins=o=Else", {}, BOTH),
        ("Origins=origin=W*", {"foo": "3.0", "bar": "3.0", "extra": "1.0"}, {}),
        ("SecurityOnly=yes", {"foo": "1.1"}, {"foo": "security-only", "bar": "security-only"}),
        ("SecurityOnly=no", {"foo": "3.0", "bar": "3.0", "extra": "1.0"}, {}),
        ("[Holds]\nfoo=2999-01-01", {"bar": "3.0", "extra": "1.0"}, {"foo": "hold"}),
        ("[Holds]\nfoo=2001-01-01", {"foo": "3.0", "bar": "3.0", "extra": "1.0"}, {}),
        (
            "SecurityOnly=yes\nOrigins=suite=main suite=security",
            {"foo": "1.1"},
            BOTH,
        ),
    ],
)
def test_an_upgrade_takes_what_comes_in_and_names_the_rest(tmp_path: Path, policy, expected, kept):
    answer = resolve(tmp_path, HERE, ARCHIVES, policy=policy, upgrade=True)
    assert after(answer) == expected
    assert held(answer) == kept
    assert answer["policy"]["allowed"] and refused(answer) == {}


@pytest.mark.parametrize(
    ("policy", "request_made", "expected", "wrong"),
    [
        # The newest version of an archive that is allowed.
        ("Origins=suite=security", "new", {"new": "1.1"}, {}),
        ("Origins=suite=main", "new", {"new": "2.0"}, {}),
        # None is: the refusal names the setting, where the resolver could only say that there is none.
        ("Origins=suite=main", "extra", {"extra": "1.0"}, {"extra": "origins"}),
        # A version that is asked for is judged, not held back.
        ("Origins=suite=main", "new=1.1", {"new": "1.1"}, {"new": "origins"}),
        ("Origins=suite=main", "foo=3.0", {"foo": "3.0"}, {"foo": "origins"}),
        ("SecurityOnly=yes", "new", {"new": "2.0"}, {}),
        ("[Holds]\nfoo=2999-01-01", "foo=2.0", {"foo": "2.0"}, {"foo": "hold"}),
        ("[Holds]\n*=2999-01-01", "new", {"new": "2.0"}, {}),
        # Dependencies, too.
        ("Origins=suite=main\nNeverPackages=new", "new", {"new": "2.0"}, {"new": "never-packages"}),
    ],
)
def test_a_request(tmp_path: Path, policy, request_made, expected, wrong):
    answer = resolve(tmp_path, HERE, ARCHIVES, policy=policy, install=[request_made])
    assert after(answer) == expected
    assert refused(answer) == wrong


@pytest.mark.parametrize(
    ("policy", "wrong"),
    [
        ("Origins=suite=main", {"given": "origins"}),
        ("Origins=suite=main file", {}),
        ("OnlyPackages=given", {}),
    ],
)
def test_a_file_comes_from_no_archive(tmp_path: Path, policy, wrong):
    archives = {**ARCHIVES, "files": [package("given", "1.0")]}
    answer = resolve(tmp_path, HERE, archives, policy=policy, install=["given=1.0"])
    assert after(answer) == {"given": "1.0"}
    assert refused(answer) == wrong


def test_what_is_kept_from_the_present_tree_was_judged_before(tmp_path: Path):
    archives = {**ARCHIVES, "kept": [package("gone", "1.0")]}
    answer = resolve(tmp_path, HERE, archives, policy="Origins=suite=main", install=["gone=1.0"])
    assert after(answer) == {"gone": "1.0"}
    assert refused(answer) == {}


def test_a_security_update_of_a_requested_version_obeys_the_policy(tmp_path: Path):
    pinned = ["foo=1.0"]
    goal = {"install": pinned, "pinned": pinned, "yielding": pinned, "requested": ["foo"], "upgrade": True}
    assert after(resolve(tmp_path / "1", HERE, ARCHIVES, policy="SecurityOnly=yes", **goal)) == {"foo": "1.1"}
    assert after(resolve(tmp_path / "2", HERE, ARCHIVES, policy="Origins=suite=main", **goal)) == {
        "bar": "2.0"
    }


def test_a_preference_does_not_bring_in_what_may_not_come_in(tmp_path: Path):
    (tmp_path / "etc/apt/preferences.d").mkdir(parents=True)
    (tmp_path / "etc/apt/preferences").write_text("Package: *\nPin: version 3.0\nPin-Priority: 1001\n")
    answer = resolve(tmp_path, HERE, ARCHIVES, policy="Origins=suite=main", upgrade=True)
    assert after(answer) == {"foo": "2.0", "bar": "2.0"}
