"""What a live change does, as far as it matters to units."""

from __future__ import annotations

import pytest

from apt_ostree.model.package import Package, PackageDiff
from apt_ostree.model.plan import EtcAction, EtcStep
from apt_ostree.model.treediff import Kind, PathChange
from apt_ostree.model.unitchange import UnitChange, View, below_usr, enabled, enabled_scripts, outdated

BOOTED, FIRST, SECOND = (
    View(since, {path: ""}) for since, path in [(0.0, "bin/a"), (100.0, "bin/b"), (200.0, "bin/c")]
)
PACKAGES = PackageDiff(added=(Package("a", "1", "all"),))


def change(path: str, kind: Kind, *, is_dir: bool = False) -> PathChange:
    old, new = "" if kind is Kind.ADDED else "old", "" if kind is Kind.REMOVED else "new"
    return PathChange(path, kind, is_dir, old, new)


def unit_change(*changes: PathChange, packages: PackageDiff = PACKAGES, **values) -> UnitChange:
    return UnitChange(packages, "target", changes, **values)


@pytest.mark.parametrize(
    ("started", "files"),
    [
        (0.0, {"bin/a", "bin/b", "bin/c"}),  # unknown: whatever any view had
        (50.0, {"bin/a"}),
        (100.0, {"bin/b"}),
        (150.0, {"bin/b"}),
        (999.0, {"bin/c"}),
    ],
)
def test_a_program_saw_the_view_that_was_shown_when_it_was_started(started: float, files: set[str]):
    assert set(unit_change(views=(BOOTED, FIRST, SECOND)).files_since(started)) == files


def test_the_newest_view_says_what_becomes_of_a_file():
    views = (View(0.0, {"bin/a": "one"}), View(1.0, {"bin/a": "two", "bin/b": ""}))
    assert unit_change(views=views).files == {"bin/a": "two", "bin/b": ""}
    assert unit_change().files_since(5.0) == {}


def test_paths_of_etc_that_running_services_may_have_read():
    steps = (
        EtcStep("a.conf", EtcAction.WRITE, ""),
        EtcStep("gone.conf", EtcAction.REMOVE, ""),
        EtcStep("mine.conf", EtcAction.KEEP, ""),
        EtcStep("new.conf", EtcAction.WRITE, ""),
        EtcStep("ld.so.cache", EtcAction.WRITE, ""),
    )
    changes = (change("etc/new.conf", Kind.ADDED), change("etc/a.conf", Kind.CHANGED))
    packaged, overlay = (unit_change(*changes, packages=p, etc=steps) for p in (PACKAGES, PackageDiff()))
    assert packaged.etc_paths == {"/etc/a.conf", "/etc/gone.conf"}
    assert overlay.etc_paths == {"/etc/a.conf", "/etc/gone.conf", "/etc/new.conf"}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/usr/bin/a", "bin/a"),
        ("/bin/a", "bin/a"),  # of a view that is mounted no more
        ("/opt/bin/a", None),
        ("/usr/bin/b", None),
        ("/usr/usr/bin/a", None),
    ],
)
def test_a_mapped_path(path: str, name: str | None):
    assert below_usr(path, {"bin/a": ""}) == name


def test_links_that_enable_units():
    wants = "systemd/system/multi-user.target.wants"
    changes = (
        change(f"lib/{wants}/a.service", Kind.ADDED),
        change("etc/systemd/system/b.service.requires/a.service", Kind.ADDED),
        change(f"etc/{wants}/kept.service", Kind.ADDED),
        change(f"etc/{wants}/changed.service", Kind.CHANGED),
        change(f"etc/{wants}/gone.service", Kind.REMOVED),
    )
    kept = EtcStep("systemd/system/multi-user.target.wants/kept.service", EtcAction.KEEP, "")
    assert enabled(unit_change(*changes, etc=(kept,))) == {"a.service": {"multi-user.target", "b.service"}}


def test_init_scripts_that_are_enabled():
    links = {"rc2.d/S01uwsgi", "rc5.d/S01uwsgi", "rc0.d/K01uwsgi", "rc1.d/S01single", "rc3.d/S20mount.sh"}
    new_etc = frozenset({*links, "init.d/uwsgi", "rc2.d/K01other"})
    assert enabled_scripts(unit_change(new_etc=new_etc)) == {"uwsgi.service", "mount.service"}


def test_what_a_process_may_run_in_an_outdated_version():
    assert outdated({
        "bin/changed": "new",
        "bin/gone": "",
        "etc/default": "new",
        "lib/sysimage/dpkg/status": "new",
        "lib/tmpfiles.d/a.conf": "",
    }) == {"bin/changed": "new", "bin/gone": ""}  # fmt: skip
