"""Composes that only fill the cache, and composes that use nothing else."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from apt_ostree.core.compose import parts, tree
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, Refused, UsageError
from apt_ostree.model import events
from apt_ostree.model.package import Package
from apt_ostree.model.requests.compose import ComposeInstall, ComposeRootfs, ComposeTree
from apt_ostree.system import aptget, mmdebstrap
from tests.unit.test_compose_parts import as_root, treefile  # noqa: F401

PACKAGES = (Package("base", "1:1", "all"), Package("tool", "1.0", "amd64"))
LISTS = "deb.example_debian_dists_trixie_main_binary-amd64_Packages"


def archive(package: Package) -> bytes:
    return f"archive of {package.label}".encode()


def section(package: Package, content: bytes) -> str:
    names = ("Package", "Version", "Architecture", "SHA256")
    values = (package.name, package.version, package.architecture, sha256(content).hexdigest())
    return "".join(f"{name}: {value}\n" for name, value in zip(names, values, strict=True)) + "\n"


class World:
    """A treefile, an archive behind a network, and what was asked of it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.treefile = treefile(place)
        self.refreshed = 0
        self.fetched: list[str] = []
        self.lists = "".join(section(one, archive(one)) for one in PACKAGES)
        self.made: list[tuple[set[str], bool]] = []

    def refresh(self, _bootstrap: mmdebstrap.Bootstrap, lists: Path) -> None:
        self.refreshed += 1
        (lists / LISTS).write_text(self.lists)

    def fetch(self, world: aptget.World, names: list[str]) -> None:
        self.fetched += names
        for package in PACKAGES:
            if f"{package.name}={package.version}" in names:
                (world.archives / f"{package.name}.deb").write_bytes(archive(package))

    def make_root(self, _bootstrap: object, _root: Path, lists: Path, **how: object) -> None:
        assert (lists / LISTS).read_text() == self.lists
        assert isinstance(how["shelf"], mmdebstrap.Shelf)
        self.made.append(({path.name for path in how["shelf"].given.iterdir()}, bool(how["offline"])))
        raise ExternalFailure("this is as far as it goes")

    def compose(self, **options: object):
        told: list[events.Event] = []
        request = ComposeTree(
            treefile=self.treefile,
            repo=str(self.place / "repo"),
            **{"cachedir": str(self.place / "cache"), **options},
        )
        return tree.compose_tree(Transaction(told.append, "compose-tree"), request), told


@pytest.fixture
def world(tmp_path, monkeypatch) -> World:
    found = World(tmp_path)
    monkeypatch.setattr(mmdebstrap, "simulate", lambda _wanted, _lists: PACKAGES)
    monkeypatch.setattr(mmdebstrap, "refresh", found.refresh)
    monkeypatch.setattr(mmdebstrap, "make_root", found.make_root)

    def fetch_alone(world: aptget.World, names: list[str]) -> None:
        found.fetch(world, names)

    monkeypatch.setattr(aptget.World, "fetch_alone", fetch_alone)
    return found


ALL = ["base=1:1", "tool=1.0"]


def test_what_was_downloaded_is_enough_without_a_network(world):
    result, _told = world.compose(download_only=True)
    assert result.changed and [row[0] for row in result.details["packages"]] == ["base", "tool"]
    assert (world.fetched, world.made, world.refreshed) == (ALL, [], 1)
    assert not (world.place / "repo").exists()
    with pytest.raises(ExternalFailure, match="as far as it goes"):
        world.compose(cache_only=True)
    assert world.made == [({"base_1%3a1_all.deb", "tool_1.0_amd64.deb"}, True)]
    assert (world.fetched, world.refreshed) == (ALL, 1)
    with pytest.raises(ExternalFailure):
        world.compose()
    assert (world.made[-1][1], world.refreshed) == (False, 2)


def test_only_what_is_not_there_is_downloaded(world):
    world.compose(download_only=True)
    _result, told = world.compose(download_only=True)
    assert world.fetched == ALL
    assert any("in the cache" in event.text for event in told if isinstance(event, events.Message))
    tool = sha256(archive(PACKAGES[1])).hexdigest()
    (world.place / "cache/archives" / f"{tool}.{tool}").write_bytes(b"damaged")
    world.compose(download_only=True)
    assert world.fetched == [*ALL, "tool=1.0"]


def test_lists_that_are_not_in_the_cache_are_named(world):
    with pytest.raises(Refused, match="package lists") as caught:
        world.compose(cache_only=True)
    assert caught.value.details == ("deb http://deb.example/debian trixie main",)
    assert (world.refreshed, world.fetched) == (0, [])


@pytest.mark.parametrize(
    ("lists", "reason"),
    [
        (lambda: section(PACKAGES[0], archive(PACKAGES[0])) + section(PACKAGES[1], b"other"), "tool 1.0"),
        (lambda: section(PACKAGES[0], archive(PACKAGES[0])), "tool 1.0: the lists have no digest"),
        (lambda: "".join(section(p, c) for p in PACKAGES[::-1] for c in (archive(p), b"x")), "different"),
    ],
)
def test_archives_that_are_not_in_the_cache_are_named(world, lists: Callable[[], str], reason: str):
    world.lists = lists()
    _result, told = world.compose(download_only=True)
    warned = [event.text for event in told if isinstance(event, events.Message) and event.level == "warning"]
    assert len(warned) == 1 and "not kept" in warned[0]
    with pytest.raises(Refused, match="packages are not in the cache") as caught:
        world.compose(cache_only=True)
    assert reason in caught.value.details[-1]
    assert world.made == []
    result, _told = world.compose(cache_only=True, dry_run=True)
    assert len(result.details["packages"]) == 2


@pytest.mark.parametrize("options", [{"cache_only": True}, {"download_only": True}])
def test_without_a_cache_there_is_nothing_to_use_or_fill(world, options):
    with pytest.raises(UsageError, match="need a cache"):
        world.compose(cachedir=None, **options)
    tx = Transaction([].append, "compose")
    with pytest.raises(UsageError, match="need a cache"):
        request = ComposeInstall(treefile=world.treefile, destdir=str(world.place / "dest"), **options)
        parts.install(tx, request)
    if "cache_only" in options:
        with pytest.raises(UsageError, match="need a cache"):
            request = ComposeRootfs(treefile=world.treefile, dest=str(world.place / "dest"), cache_only=True)
            parts.rootfs_for_others(tx, request)
    assert (world.refreshed, world.fetched) == (0, [])


def test_an_install_downloads_and_prints_without_a_directory(world):
    tx = Transaction([].append, "compose")
    request = {"treefile": world.treefile, "destdir": str(world.place / "dest")}
    made = parts.install(tx, ComposeInstall(**request, print_only=True))
    assert made.details["treefile"]["ref"] == "test/small" and not made.changed
    cache = str(world.place / "cache")
    made = parts.install(tx, ComposeInstall(**request, cachedir=cache, download_only=True))
    assert made.changed and len(made.details["packages"]) == 2
    assert world.fetched == ALL
    with pytest.raises(ExternalFailure):
        parts.install(tx, ComposeInstall(**request, cachedir=cache, cache_only=True))
    assert world.made[-1][1] is True
    assert not (world.place / "dest").exists()
