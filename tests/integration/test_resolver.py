"""Security updates in place of requested versions, as libapt's own resolver decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.integration.apt_world import installed, package, resolve

FOO = ("foo=1.0",)


def upgrade(
    directory: Path, present: list[str], *, pinned: tuple[str, ...] = FOO, **archives: list[str]
) -> dict[str, Any]:
    """Upgrade, with requests for versions that give way to security updates."""
    names = [request.partition("=")[0] for request in pinned]
    goal = {"install": pinned, "pinned": pinned, "yielding": pinned, "requested": names}
    return resolve(directory, present, archives, upgrade=True, **goal)


def changes(plan: dict[str, Any]) -> dict[str, tuple[str, str]]:
    steps = [step for kind in ("install", "upgrade", "downgrade", "remove") for step in plan[kind]]
    return {step["name"]: (step["old"], step["new"]) for step in steps}


def rows(plan: dict[str, Any], key: str) -> list[tuple[str, str]]:
    return [(newer["request"], newer["version"]) for newer in plan[key]]


def test_a_security_update_is_taken_and_what_is_newer_is_told(tmp_path: Path):
    plan = upgrade(
        tmp_path,
        [installed("foo", "1.0")],
        main=[package("foo", "2.0"), package("foo", "1.0")],
        security=[package("foo", "1.1")],
    )
    assert changes(plan) == {"foo": ("1.0", "1.1")}
    assert rows(plan, "taken") == [("foo=1.0", "1.1")] and rows(plan, "newer") == [("foo=1.1", "2.0")]


@pytest.mark.parametrize(
    ("fix", "library"),
    [
        ("missing", "libfoo"),  # nobody offers it
        ("libfoo (>= 1.1)", "libfoo"),  # it is on hold
    ],
)
def test_an_update_without_its_dependencies_holds_back_nothing_else(tmp_path: Path, fix, library):
    plan = upgrade(
        tmp_path,
        [installed("foo", "1.0"), package(library, "1.0", state="hold"), installed("other", "1.0")],
        main=[package("foo", "1.0"), package(library, "1.0"), package("other", "2.0")],
        security=[package("foo", "1.1", Depends=fix), package("libfoo", "1.1")],
    )
    assert changes(plan) == {"other": ("1.0", "2.0")}
    assert rows(plan, "taken") == [] and rows(plan, "newer") == [("foo=1.0", "1.1")]


def test_one_update_that_is_refused_does_not_keep_another_from_being_taken(tmp_path: Path):
    names = ("foo", "bar", "base")
    plan = upgrade(
        tmp_path,
        [installed(name, "1.0") for name in names],
        pinned=("foo=1.0", "bar=1.0"),
        main=[package(name, "1.0") for name in names],
        security=[package("foo", "1.1", Conflicts="base"), package("bar", "1.1")],
    )
    assert changes(plan) == {"bar": ("1.0", "1.1")}
    assert rows(plan, "taken") == [("bar=1.0", "1.1")] and rows(plan, "newer") == [("foo=1.0", "1.1")]


def test_two_packages_that_need_each_other_are_updated_together(tmp_path: Path):
    def pair(version: str) -> list[str]:
        return [package("foo", version, Depends=f"libfoo (= {version})"), package("libfoo", version)]

    plan = upgrade(
        tmp_path,
        [installed("foo", "1.0", Depends="libfoo (= 1.0)"), installed("libfoo", "1.0")],
        pinned=("foo=1.0", "libfoo=1.0"),
        main=[*pair("2.0"), *pair("1.0")],
        security=pair("1.1"),
    )
    assert changes(plan) == {"foo": ("1.0", "1.1"), "libfoo": ("1.0", "1.1")}


def new_base(directory: Path, **more: Any) -> dict[str, Any]:
    """Install foo=1.0 and its library again, of which only the present tree has these versions."""
    archives = {
        "main": [package("held", "2.0"), package("held", "1.0")],
        "security": [package("foo", "1.1", Depends="libfoo (>= 1.0)"), package("libfoo", "1.1")],
        "kept": [package("foo", "1.0", Depends="libfoo (= 1.0)"), package("libfoo", "1.0")],
    }
    goal = {"install": FOO, "pinned": FOO, "requested": ["foo"], "kept": {"foo": "1.0", "libfoo": "1.0"}}
    present = [installed("held", "1.0")]
    return resolve(directory, present, archives, upgrade=True, keep={"held": "1.0"}, **goal, **more)


def test_on_a_new_base_an_update_replaces_what_was_kept_and_holds_stay(tmp_path: Path):
    assert changes(new_base(tmp_path, yielding=FOO)) == {"foo": ("", "1.1"), "libfoo": ("", "1.1")}


def test_on_a_new_base_what_does_not_give_way_is_kept_and_holds_stay(tmp_path: Path):
    assert changes(new_base(tmp_path)) == {"foo": ("", "1.0"), "libfoo": ("", "1.0")}


def test_a_requested_version_without_its_dependencies_is_refused(tmp_path: Path):
    present = [installed("foo", "1.0")]
    offered = {"main": [package("foo", "1.1", Depends="missing"), package("foo", "1.0")]}
    answer = resolve(tmp_path, present, offered, install=("foo=1.1",), requested=["foo"])
    assert answer["refused"] == "cannot install foo=1.1 with what it depends on"
    assert answer["details"] == ["foo 1.1: depends on missing"]


def test_a_package_on_hold_stays_although_the_base_has_that_version(tmp_path: Path):
    offered = {"main": [package("foo", "2.0"), package("foo", "1.0")]}
    plan = resolve(tmp_path, [installed("foo", "1.0")], offered, upgrade=True, keep={"foo": "1.0"})
    assert changes(plan) == {}


# --- packages that apt never removes automatically

NEXT = [package("db", "2.0", Depends="db-2"), package("db-2", "2.0")]


def test_a_protected_package_is_requested_when_its_metapackage_needs_another_one(tmp_path: Path):
    present = [installed("db", "1.0", Depends="db-1"), installed("db-1", "1.0")]
    more = {"automatic": ["db-1"], "requested": ["db"], "protected": ["db-1"]}
    plan = resolve(tmp_path, present, {"main": NEXT}, upgrade=True, **more)
    assert changes(plan) == {"db": ("1.0", "2.0"), "db-2": ("", "2.0")}
    assert plan["protected"] == ["db-1"]


def test_a_protected_package_stays_on_a_new_base(tmp_path: Path):
    archives = {"main": NEXT, "kept": [package("db-1", "1.0", Depends="dbc-1"), package("dbc-1", "1.0")]}
    more = {"requested": ["db"], "protected": ["db-1", "dbc-1"], "kept": {"db-1": "1.0", "dbc-1": "1.0"}}
    plan = resolve(tmp_path, [], archives, install=["db"], upgrade=True, **more)
    old, new = {"db-1": ("", "1.0"), "dbc-1": ("", "1.0")}, {"db": ("", "2.0"), "db-2": ("", "2.0")}
    assert changes(plan) == old | new
    assert plan["protected"] == ["db-1"]


def test_a_protected_package_that_is_needed_is_not_requested(tmp_path: Path):
    archives = {"main": [package("db", "1.1", Depends="db-1"), package("db-1", "1.1")]}
    for present in ([], [installed("db", "1.0", Depends="db-1"), installed("db-1", "1.0")]):
        place = tmp_path / str(len(present))
        more = {"automatic": ["db-1"], "requested": ["db"], "protected": ["db-1"]}
        plan = resolve(place, present, archives, install=["db"], upgrade=True, **more)
        assert set(changes(plan)) == {"db", "db-1"} and plan["protected"] == []


# --- archives that cannot be reached


def upgrade_without(directory: Path, *present: str, **more: Any) -> dict[str, Any]:
    """Upgrade while the archive `dead` cannot be reached, which offers version 3.0 of everything."""
    archives = {
        "main": [package("foo", "2.0"), package("bar", "1.0")],
        "dead": [package(name, "3.0") for name in ("foo", "bar", "libfoo")],
    }
    archives |= more.pop("archives", {})
    return resolve(directory, [*present], archives, upgrade=True, unreachable=("dead",), **more)


def test_an_archive_that_cannot_be_reached_holds_nothing_else_back(tmp_path: Path):
    plan = upgrade_without(tmp_path, installed("foo", "1.0"), installed("bar", "1.0"))
    assert changes(plan) == {"foo": ("1.0", "2.0")}
    assert plan["left_out"] == ["bar 3.0", "foo 3.0"]


def test_what_was_downloaded_before_is_taken(tmp_path: Path):
    plan = upgrade_without(
        tmp_path, installed("foo", "1.0"), installed("bar", "1.0"), cached=["bar_3.0_amd64.deb"]
    )
    assert changes(plan) == {"foo": ("1.0", "2.0"), "bar": ("1.0", "3.0")}
    assert plan["left_out"] == ["foo 3.0"]


def test_an_upgrade_that_needs_what_cannot_be_reached_is_held_back(tmp_path: Path):
    archives = {"main": [package("foo", "2.0", Depends="libfoo"), package("bar", "2.0")]}
    plan = upgrade_without(tmp_path, installed("foo", "1.0"), installed("bar", "1.0"), archives=archives)
    assert changes(plan) == {"bar": ("1.0", "2.0")}


def test_a_preference_for_what_cannot_be_reached_is_not_followed(tmp_path: Path):
    (tmp_path / "etc/apt").mkdir(parents=True)
    (tmp_path / "etc/apt/preferences").write_text("Package: foo\nPin: version 3.0\nPin-Priority: 990\n")
    plan = upgrade_without(tmp_path, installed("foo", "1.0"))
    assert changes(plan) == {"foo": ("1.0", "2.0")} and plan["left_out"] == ["foo 3.0"]


def test_a_version_that_others_offer_too_stays(tmp_path: Path):
    archives = {"mirror": [package("foo", "3.0")]}
    plan = upgrade_without(tmp_path, installed("foo", "1.0"), archives=archives)
    assert changes(plan) == {"foo": ("1.0", "3.0")} and plan["left_out"] == []


def test_a_security_update_that_cannot_be_reached_does_not_replace_a_requested_version(tmp_path: Path):
    archives = {"main": [package("foo", "2.0"), package("foo", "1.0")], "security": [package("foo", "1.1")]}
    goal = {"install": FOO, "pinned": FOO, "yielding": FOO, "requested": ["foo"]}
    plan = resolve(
        tmp_path, [installed("foo", "1.0")], archives, upgrade=True, unreachable=("security",), **goal
    )
    assert changes(plan) == {} and plan["taken"] == []
    assert rows(plan, "newer") == [("foo=1.0", "2.0")]


@pytest.mark.parametrize(
    ("name", "version", "lost"),
    [
        ("bar", "3.0", True),  # main has an older one only
        ("foo", "3.0", False),  # it is in the cache
        ("libfoo", "2.0", False),  # no archive knows that version
        ("libfoo", "3.0", True),
        ("baz", "3.0", False),  # main has a newer one
        ("unknown", "1.0", False),
    ],
)
def test_what_is_in_use_and_out_of_reach(tmp_path: Path, name: str, version: str, lost: bool):
    archives = {
        "main": [package("foo", "2.0"), package("bar", "1.0"), package("baz", "4.0")],
        "dead": [package(each, "3.0") for each in ("foo", "bar", "baz", "libfoo")],
    }
    plan = upgrade_without(
        tmp_path, archives=archives, cached=["foo_3.0_amd64.deb"], in_use=[(name, version)]
    )
    assert plan["out_of_reach"] == ([f"{name} {version}"] if lost else [])


def test_what_was_kept_is_taken_from_the_present_tree(tmp_path: Path):
    archives = {
        "main": [package("foo", "1.0")],
        "dead": [package("foo", "3.0", Depends="bar | baz")],
        "kept": [package("foo", "3.0", Depends="bar")],
    }
    archives["main"].append(package("bar", "1.0"))
    goal = {"install": ("foo",), "requested": ["foo"], "kept": {"foo": "3.0"}}
    plan = upgrade_without(tmp_path, archives=archives, **goal)
    assert changes(plan) == {"foo": ("", "3.0"), "bar": ("", "1.0")}
    assert {step["origin"] for step in plan["install"] if step["name"] == "foo"} == {"present tree"}


def test_a_refused_removal_says_who_wants_the_packages_gone(tmp_path: Path):
    present = [installed("foo", "1.0"), installed("bar", "1.0", Depends="foo"), installed("baz", "1.0")]
    archives = {"main": [package("new", "2.0", Conflicts="foo, baz", Replaces="baz")]}
    plan = resolve(tmp_path, present, archives, install=("new",), requested=["new"])
    assert "3 packages that are not requested to be removed: bar, baz, foo" in plan["refused"]
    assert plan["details"] == [
        "bar 1.0: it depends on foo, but foo would be removed",
        "baz 1.0: new 2.0 conflicts with it and replaces it",
        "foo 1.0: new 2.0 conflicts with it",
    ]


def removed(plan: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["reason"] for step in plan["remove"]}


def test_dropped_requests_go_with_what_only_they_needed(tmp_path: Path):
    present = [
        installed("base", "1.0", Recommends="liked"),
        installed("foo", "1.0", Depends="libfoo, libboth", Recommends="extra", Suggests="hint"),
        installed("bar", "1.0", Depends="libboth"),
        *(installed(name, "1.0") for name in ("libfoo", "libboth", "extra", "hint", "liked")),
    ]
    plan = resolve(tmp_path, present, {"main": []}, drop=("foo",), needed=["base", "bar"])
    no_longer = dict.fromkeys(("libfoo", "extra", "hint"), "no longer needed")
    assert removed(plan) == {"foo": "requested", **no_longer}


@pytest.mark.parametrize(("relation", "stays"), [("Depends", True), ("Recommends", False)])
def test_a_dropped_request_stays_only_if_another_package_depends_on_it(
    tmp_path: Path, relation: str, stays: bool
):
    present = [installed("base", "1.0", **{relation: "foo"}), installed("foo", "1.0")]
    plan = resolve(tmp_path, present, {"main": []}, drop=("foo",), needed=["base"])
    assert removed(plan) == ({} if stays else {"foo": "requested"})


def test_a_dropped_request_is_not_upgraded_before_it_goes(tmp_path: Path):
    present = [installed("foo", "1.0"), installed("bar", "1.0")]
    archives = {
        "main": [package("foo", "2.0", Depends="libnew"), package("libnew", "1.0"), package("bar", "2.0")]
    }
    plan = resolve(tmp_path, present, archives, upgrade=True, drop=("foo",), needed=["bar"])
    assert (removed(plan), changes(plan)) == (
        {"foo": "requested"},
        {"foo": ("1.0", ""), "bar": ("1.0", "2.0")},
    )


WANTED = [
    package("foo", "1.0", Depends="libfoo", Recommends="extra"),
    package("libfoo", "1.0", Recommends="data | other"),
    package("bar", "1.0", Recommends="hint, enemy, taken"),
    package("enemy", "1.0", Conflicts="there"),
    package("taken", "1.0"),
]
OFFERED = {"main": [*WANTED, *(package(name, "1.0") for name in ("extra", "data", "other", "hint"))]}
THERE = [installed("there", "1.0", Breaks="taken"), installed("old", "1.0")]


@pytest.mark.parametrize("adds", [None, True, False])
def test_what_is_recommended_comes_along_or_not(tmp_path: Path, adds):
    goal = {"recommends": {"foo": False}, "adds_recommended": adds}
    plan = resolve(tmp_path, THERE, OFFERED, install=("foo",), **goal)
    assert {step["name"] for step in plan["install"]} == {
        "foo", "libfoo", *(["extra", "data"] if adds is not False else []),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("recommends", "expected"),
    [
        ({"foo": False, "bar": False}, set()),
        ({"foo": False}, {"hint"}),
        ({"foo": True, "bar": False}, {"extra", "data"}),
    ],
)
def test_what_some_requests_recommend_comes_along_unless_it_conflicts(tmp_path: Path, recommends, expected):
    goal = {"recommends": recommends, "adds_recommended": False}
    plan = resolve(tmp_path, THERE, OFFERED, install=("foo", "bar"), **goal)
    assert {step["name"] for step in plan["install"]} == {"foo", "libfoo", "bar", *expected}
    assert plan["remove"] == []


@pytest.mark.parametrize(("adds", "expected"), [(None, {"needed", "extra"}), (False, {"needed"})])
def test_an_upgrade_adds_what_is_recommended_or_not(tmp_path: Path, adds, expected):
    present = [installed("foo", "1.0", Recommends="never"), installed("stays", "1.0")]
    new = [
        package("foo", "2.0", Depends="needed", Recommends="never, extra, stays"),
        *(package(name, "1.0") for name in ("never", "needed", "extra")),
    ]
    goal = {"upgrade": True, "requested": ["foo"], "recommends": {"foo": False}, "adds_recommended": adds}
    plan = resolve(tmp_path, present, {"main": new}, **goal)
    assert ({step["name"] for step in plan["install"]}, plan["remove"]) == (expected, [])


CLOCK = (
    installed("old-clock", "1.0", Provides="clock", Conflicts="clock"),
    installed("base", "1.0", Recommends="clock"),
)
NEW_CLOCK = {"main": [package("new-clock", "1.0", Provides="clock", Conflicts="clock", Replaces="clock")]}


def test_a_package_is_exchanged_for_one_that_conflicts_with_it(tmp_path: Path):
    goal = {"install": ("new-clock",), "requested": ["new-clock"]}
    refused = resolve(tmp_path, CLOCK, NEW_CLOCK, **goal)
    assert "not requested to be removed: old-clock" in refused["refused"]
    plan = resolve(tmp_path / "two", CLOCK, NEW_CLOCK, remove=("old-clock",), **goal)
    assert removed(plan) == {"old-clock": "requested"}
    assert changes(plan)["new-clock"] == ("", "1.0")


def test_what_needs_a_removed_package_has_to_be_named(tmp_path: Path):
    present = [installed("foo", "1.0"), installed("bar", "1.0", Depends="foo")]
    refused = resolve(tmp_path, present, {"main": []}, remove=("foo",))
    assert "1 packages that are not requested to be removed: bar" in refused["refused"]
    plan = resolve(tmp_path / "two", present, {"main": []}, remove=("foo", "bar", "absent"))
    assert removed(plan) == {"foo": "requested", "bar": "requested"}


@pytest.mark.parametrize("field", ["Essential", "Protected", "Important"])
def test_what_no_system_can_lack_is_not_removed(tmp_path: Path, field: str):
    present = [installed("foo", "1.0", **{field: "yes"})]
    refused = resolve(tmp_path, present, {"main": []}, remove=("foo",))
    assert "foo cannot be removed" in refused["refused"]


def test_an_upgrade_brings_no_removed_package_back(tmp_path: Path):
    present = [installed("foo", "1.0", Recommends="gone")]
    archives = {"main": [package("foo", "2.0", Recommends="gone"), package("gone", "1.0")]}
    assert changes(resolve(tmp_path, present, archives, upgrade=True)) == {"foo": ("1.0", "2.0")}


def test_what_an_alternative_needed_that_gave_way_is_left_out(tmp_path: Path):
    """As bsd-mailx of exim4, when postfix is the mail server that a package is to have."""
    offered = {
        "main": [
            package("client", "1.0", Depends="exim | server"),
            package("exim", "1.0", Provides="server", Conflicts="server", Depends="exim-base"),
            package("exim-base", "1.0", Depends="exim-mailx"),
            package("exim-mailx", "1.0"),
            package("postfix", "1.0", Provides="server", Conflicts="server", Depends="postfix-base"),
            package("postfix-base", "1.0"),
        ]
    }
    plan = resolve(tmp_path, [], offered, install=("client", "postfix"), requested=["client", "postfix"])
    assert changes(plan) == dict.fromkeys(("client", "postfix", "postfix-base"), ("", "1.0"))


@pytest.mark.parametrize("relation", ["Depends", "Pre-Depends", "Recommends"])
def test_an_unneeded_package_of_the_tree_is_upgraded_with_what_it_needs_now(tmp_path: Path, relation: str):
    """As the old library of a transition: nothing needs it any more, and it stays."""
    needs: dict[str, str] = {relation: "new"}
    offered = {
        "main": [package("lib", "2.0", **needs), package("new", "1.0")],
        "security": [package("app", "1.1")],
    }
    present = [installed("app", "1.0"), installed("lib", "1.0")]
    plan = resolve(tmp_path, present, offered, upgrade=True, automatic=["lib"])
    expected = {"app": ("1.0", "1.1"), "lib": ("1.0", "2.0")}
    expected |= {} if relation == "Recommends" else {"new": ("", "1.0")}
    assert changes(plan) == expected
