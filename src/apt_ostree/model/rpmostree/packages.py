"""Packages, and differences between sets of them, as rpm-ostree's structures.

A Debian version is what rpm-ostree calls EVR. All take values of JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import IntEnum
from typing import Any

from apt_ostree.model.rpmostree.deployments import Typed
from apt_ostree.model.search import Group
from apt_ostree.model.versions import epoch_of, version_key

_KEYS = {Group.BOTH: "match_group_a", Group.NAME: "match_group_b", Group.SUMMARY: "match_group_c"}
_CHANGED, _SINGLE = "a(us(ss)(ss))", "a(usss)"
#: (name, version, architecture)
_Triple = tuple[str, str, str]


class Kind(IntEnum):
    """What becomes of a package."""

    ADDED = 0
    REMOVED = 1
    UPGRADED = 2
    DOWNGRADED = 3


def differences(diff: Mapping[str, Any]) -> list[tuple[str, int, dict[str, _Triple]]]:
    """Return (name, kind, packages) of each difference, by kind and name. diff: of a PackageDiff."""
    rows = [(p["name"], Kind.ADDED, {"NewPackage": _triple(p, p["version"])}) for p in diff["added"]]
    rows += [
        (p["name"], Kind.REMOVED, {"PreviousPackage": _triple(p, p["version"])}) for p in diff["removed"]
    ]
    rows += [
        (c["name"], _kind(c), {"PreviousPackage": _triple(c, c["old"]), "NewPackage": _triple(c, c["new"])})
        for c in diff["changed"]
    ]
    return [(name, int(kind), two) for name, kind, two in sorted(rows, key=lambda row: (row[1], row[0]))]


def rpm_diff(diff: Mapping[str, Any], layered: Collection[str]) -> Typed:
    """Return the differences of an update. layered: the names of packages that are not the base's."""

    def place(name: str) -> int:
        return int(name in layered)

    def changed(kind: Kind) -> list[Any]:
        return [
            (place(c["name"]), c["name"], (c["old"], c["architecture"]), (c["new"], c["architecture"]))
            for c in diff["changed"]
            if _kind(c) is kind
        ]

    def single(key: str) -> list[Any]:
        return [(place(p["name"]), *_triple(p, p["version"])) for p in diff[key]]

    return {
        "upgraded": (_CHANGED, changed(Kind.UPGRADED)),
        "downgraded": (_CHANGED, changed(Kind.DOWNGRADED)),
        "added": (_SINGLE, single("added")),
        "removed": (_SINGLE, single("removed")),
    }


def offered(row: Mapping[str, Any]) -> Typed:
    """Return a package of the query `packages`; its key is the group of a search, else its name."""
    name, version, architecture = row["name"], row["version"], row["architecture"]
    without_epoch = version.partition(":")[2] or version
    return {
        "key": ("s", _KEYS[Group(row["group"])] if "group" in row else name),
        "name": ("s", name),
        "epoch": ("t", epoch_of(version)),
        "version": ("s", without_epoch),
        "evr": ("s", version),
        "arch": ("s", architecture),
        "nevra": ("s", f"{name}-{version}.{architecture}"),
        "summary": ("s", row["summary"]),
        "reponame": ("s", row["archive"]),
    }


def archive(row: Mapping[str, Any]) -> Typed:
    """Return an archive of the query `archives`. All that apt reads are switched on."""
    return {
        "id": ("s", row["id"]),
        "description": ("s", row["id"]),
        "is-devel": ("b", False),
        "is-source": ("b", False),
        "is-enabled": ("b", True),
    }


def _triple(package: Mapping[str, Any], version: str) -> _Triple:
    return package["name"], version, package["architecture"]


def _kind(change: Mapping[str, Any]) -> Kind:
    newer = version_key(change["new"]) > version_key(change["old"])
    return Kind.UPGRADED if newer else Kind.DOWNGRADED
