"""Newer versions of packages that stay at theirs: which are told, in which order, and the record of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import apt_pkg
import pytest

from apt_ostree.cli import plans
from apt_ostree.model.newer import Newer, follow, format_record, of_origin, parse_record, security_updates
from apt_ostree.model.origin import LocalPackage, Origin
from apt_ostree.model.package_plan import PackagePlan
from apt_ostree.system.apt import versions


@dataclass
class File:
    """Stands for a list of packages (apt_pkg.PackageFile)."""

    label: str
    archive: str
    origin: str = "Debian"
    component: str = "main"
    site: str = ""
    not_source: bool = False


STABLE, SECURITY, LATER = File("Debian", "stable"), File("Debian-Security", "security"), File("Debian", "sid")
STATUS = File("", "now", origin="", component="", not_source=True)


@dataclass
class Version:
    ver_str: str
    files: Sequence[File]

    @property
    def file_list(self) -> list[tuple[File, int]]:
        return [(file, 0) for file in self.files]


@dataclass
class Apt:
    """A cache with one package, and a depcache with its candidate."""

    version_list: list[Version]
    candidate: str
    names: frozenset[Any] = field(default=frozenset({"tool", ("tool", "arm64")}))
    excluded: tuple[str, ...] = ()

    def __contains__(self, key: Any) -> bool:
        return key in self.names

    def __getitem__(self, _key: Any) -> Apt:
        return self

    @property
    def policy(self) -> Apt:
        return self

    def get_priority(self, version: Version) -> int:
        """What preferences make of a version."""
        return -1 if version.ver_str in self.excluded else 500

    def get_candidate_ver(self, _package: Any) -> Version | None:
        return next((v for v in self.version_list if v.ver_str == self.candidate), None)


def told(
    candidate: str, *offered: Version, request: str = "tool=1:1.0", excluded: tuple[str, ...] = ()
) -> list[tuple[str, bool]]:
    apt_pkg.init_system()
    apt: Any = Apt(list(offered), candidate, excluded=excluded)
    return [(newer.version, newer.security) for newer in versions.newer(apt, apt, [request])]


OLD = Version("1:1.0", [STATUS, STABLE])
FIX, NEWER_FIX = Version("1:1.0-2", [SECURITY]), Version("1:1.10", [SECURITY])
NEWEST = Version("1:2.0", [LATER])


@pytest.mark.parametrize(
    ("candidate", "offered", "result"),
    [
        ("1:1.0", [OLD], []),
        ("1:2.0", [NEWEST, OLD], [("1:2.0", False)]),
        ("1:1.10", [NEWER_FIX, FIX, OLD], [("1:1.10", True)]),
        ("1:2.0", [NEWEST, NEWER_FIX, FIX, OLD], [("1:1.10", True), ("1:2.0", False)]),
        # apt's preferences exclude what is above the candidate.
        ("1:1.0-2", [NEWEST, FIX, OLD], [("1:1.0-2", True)]),
        ("1:1.0", [NEWEST, OLD], []),
        # What is installed, but not offered, is not an offer.
        ("1:2.0", [Version("1:2.0", [STATUS]), OLD], []),
        ("nothing", [OLD], []),
    ],
)
def test_the_newest_security_update_and_the_candidate_are_told(candidate, offered, result):
    assert told(candidate, *offered) == result


def test_a_security_update_that_preferences_exclude_is_not_told():
    assert told("1:2.0", NEWEST, NEWER_FIX, FIX, OLD, excluded=("1:1.10",)) == [
        ("1:1.0-2", True),
        ("1:2.0", False),
    ]


def test_a_package_that_no_archive_knows_and_one_of_another_architecture():
    assert told("1:2.0", NEWEST, OLD, request="nothing=1") == []
    assert told("1:2.0", NEWEST, OLD, request="tool:arm64=1:1.0") == [("1:2.0", False)]
    assert told("1:2.0", NEWEST, OLD, request="tool:s390x=1:1.0") == []


def test_requests_that_give_way_follow_security_updates_only():
    fix, later = Newer("tool=1.0", "1.1", "", security=True), Newer("tool=1.0", "2.0", "")
    other = Newer("own=1", "3", "", security=True)
    taken = security_updates([fix, other, later], {"tool=1.0"})
    assert taken == (fix,)
    assert follow(("own=1", "tool=1.0", "vim"), taken) == ("own=1", "tool=1.1", "vim")


ONE = Newer("a=1", "2", "Debian:stable/main")
OTHER = Newer("own=1", "3", "Debian:security/main", security=True)


def test_a_record_is_read_as_it_was_written_and_a_damaged_one_is_empty():
    assert parse_record(format_record((ONE, OTHER))) == (ONE, OTHER)
    for text in ("", "[", "{}", "[1]", '[{"request": "a=1"}]', "null", "7"):
        assert parse_record(text) == ()


def test_a_deployment_has_those_of_its_own_packages():
    origin = Origin(requested=("a=2", "b"), local=(LocalPackage("0" * 64, "own", "1", "all"),))
    assert of_origin((ONE, OTHER), origin) == (OTHER,)


def test_a_plan_names_them_even_if_it_changes_nothing():
    fix = Newer("tool=1", "1.1", "Debian:security/main", security=True)
    plan = PackagePlan(newer=(OTHER, ONE), taken=(fix,)).to_json()
    assert list(plans.lines("transaction", plan)) == [
        "Security updates instead of requested versions:",
        "  tool=1: 1.1 (Debian:security/main, security)",
        "Newer versions of packages that stay at theirs:",
        "  own=1: 3 (Debian:security/main, security)",
        "  a=1: 2 (Debian:stable/main)",
    ]
