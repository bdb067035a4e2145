"""What a build starts from and how it decides: lower directories, changes of scripts, plans, questions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from apt_ostree.core.build import inside, layering, lowerdirs
from apt_ostree.core.build.layering import Label, Session
from apt_ostree.core.state import leftovers
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Cancelled, ExternalFailure, Refused
from apt_ostree.model import events, layout
from apt_ostree.model.filestate import FileState
from apt_ostree.model.newer import Newer
from apt_ostree.model.origin import Origin
from apt_ostree.model.package_plan import PackagePlan, Step
from apt_ostree.model.sizes import Space
from apt_ostree.system import buildroot, space
from apt_ostree.system.apt import acquire, verification
from apt_ostree.system.apt.resolver import PackageGoal
from apt_ostree.system.ostree import objects
from tests.unit import repos
from tests.unit.repos import System, write_files

PLAN = PackagePlan(install=(Step("extra", "all", new="1"),), disk_bytes=1)


# --- lower directories


def test_a_deployed_commit_serves_as_it_is(system: System):
    with system.open() as machine, lowerdirs.usr_of(machine, system.one) as lowers:
        assert lowers == (machine.directory(machine.deployments().all[0]) / "usr",)


def test_any_commit_is_a_layer_on_a_deployment(system: System):
    with system.open() as machine:
        with lowerdirs.usr_of(machine, system.two) as (layer, base):
            assert base == machine.directory(machine.deployments().all[0]) / "usr"
            assert (layer / "bin/tool").read_text() == "two"
            assert (layer / "share/new").exists()
            assert not (layer / "share/old").is_file()  # a whiteout
            assert not (layer / "lib").exists()  # only what differs
        assert not layer.exists()


def test_a_commit_with_the_same_usr_needs_no_layer(system: System):
    commit = repos.write_commit(system.repo, {**repos.ONE, "boot/other": "x"}, ref="same")
    with system.open() as machine, lowerdirs.usr_of(machine, commit) as lowers:
        assert len(lowers) == 1


def test_a_hotfix_is_no_tree_to_build_on(system: System):
    third = repos.write_commit(system.repo, {**repos.ONE, "usr/bin/third": "3"}, ref="three", packages=[])
    with system.open() as machine:
        machine.stage(third, Origin("three"), machine.deployments().all[0])
    (system.place / "unlocked").write_text("hotfix")
    with system.open() as machine, lowerdirs.usr_of(machine, system.one) as lowers:
        hotfix = machine.directory(machine.deployments().all[1]) / "usr"
        assert hotfix not in lowers
        assert len(lowers) == 2


def test_there_is_no_deployment_to_start_from(system: System):
    with system.open() as machine:
        machine.write_order([])
        with pytest.raises(Refused, match="no deployment"), lowerdirs.usr_of(machine, system.two):
            pass


# --- what scripts changed


def test_an_upper_directory_tells_what_to_settle(tmp_path):
    write_files(tmp_path, {
        "lib/python3/__pycache__/a.pyc": "x", "lib/python3/__pycache__/notes": "x", "lib/python3/b.pyc": "x",
        "lib/modules/6.1/vmlinuz": "k", "lib/modules/6.2/kernel/x.ko": "m", "lib/modules/6.3/other": "o",
    })  # fmt: skip
    (tmp_path / "lib/link").symlink_to("/etc")
    found = inside.read_changes(tmp_path)
    assert found.bytecode == ["lib/python3/__pycache__/a.pyc"]
    assert found.kernels == ["6.1", "6.2"]
    assert found.owners == sorted({os.getuid(), os.getgid()})


def test_no_link_is_followed(tmp_path):
    outside = tmp_path / "outside"
    write_files(outside, {"__pycache__/a.pyc": "x"})
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/link").symlink_to(outside)
    assert inside.read_changes(tmp_path / "upper").bytecode == []


# --- plans and questions


class Resolver:
    """Stands for libapt: its answer is a plan."""

    def __init__(self, plan: PackagePlan) -> None:
        self.plan = plan
        self.untrusted = False
        self.asked: list[PackageGoal] = []

    def resolve(self, goal: PackageGoal) -> PackagePlan:
        self.asked.append(goal)
        return self.plan

    def refuse_untrusted(self, _plan: PackagePlan) -> None:
        if self.untrusted:
            raise Refused("an archive is not signed")


class Bench:
    """A session without a mounted root: nothing but the resolver is asked."""

    def __init__(self, tx: Transaction, start: str, place: Path) -> None:
        self.resolver = Resolver(PLAN)
        self.downloads: list[bool] = []
        self.unverified: dict[str, list[str]] = {}
        resolver: Any = self.resolver
        self.session = Session(
            tx, start, place / "root", place, resolver, (), {}, (), False, 60, frozenset(), {}, ExitStack()
        )
        self.label = Label(start)

    def install(self, **options: bool) -> layering.Built:
        return layering.install(self.session, PackageGoal(("extra",)), self.label, **options)

    def download(self, _resolver: Any, _report: Any, *, cache_only: bool) -> list[Path]:
        self.downloads.append(cache_only)
        return []


@pytest.fixture
def answers() -> list[bool]:
    return []


@pytest.fixture
def bench(system: System, answers, tmp_path, monkeypatch) -> Iterator[Bench]:
    with system.transaction(ask=lambda: answers.pop(0)) as tx:
        found = Bench(tx, system.one, tmp_path)
        monkeypatch.setattr(acquire, "download", found.download)
        monkeypatch.setattr(verification, "unverified", lambda _resolver, _plan: found.unverified)
        monkeypatch.setattr(inside, "initramfs_notes", lambda _root, _plan: ())  # needs a root
        yield found


def shown(system: System) -> list[bool]:
    """Return of each plan that was shown whether it asked."""
    return [e.confirm for e in system.events if isinstance(e, events.PlanShown)]


def test_nothing_to_do_is_an_answer(system: System, bench: Bench):
    bench.resolver.plan = PackagePlan()
    assert bench.install() == layering.Built(PackagePlan(), None)
    assert shown(system) == []
    assert bench.downloads == []


def test_newer_versions_are_told_if_there_is_nothing_to_do(system: System, bench: Bench):
    bench.resolver.plan = PackagePlan(newer=(Newer("extra=1", "2", "Debian:stable/main"),))
    assert not bench.install().plan
    assert shown(system) == [False]


def test_a_request_that_moves_without_a_package_is_told(system: System, bench: Bench):
    bench.resolver.plan = PackagePlan(taken=(Newer("extra=1", "2", "Debian:security/main", security=True),))
    assert not bench.install().plan
    assert shown(system) == [False]


def test_a_dry_run_shows_the_plan_and_does_not_ask(system: System, bench: Bench):
    assert bench.install(dry_run=True) == layering.Built(PLAN, None)
    assert shown(system) == [False]
    assert bench.downloads == []


def test_a_download_stops_there(system: System, bench: Bench, answers):
    answers.append(True)
    assert bench.install(download_only=True) == layering.Built(PLAN, None)
    assert shown(system) == [True]
    assert bench.downloads == [False]


def test_somebody_else_may_ask(system: System, bench: Bench):
    bench.install(download_only=True, ask=False)
    assert shown(system) == [False]


def test_what_was_not_verified_is_told(system: System, bench: Bench):
    bench.unverified = {"'Trusted: yes' is set for file:/archive/": ["extra=2", "more=1"]}
    bench.install(download_only=True, ask=False)
    told = [event.text for event in system.events if isinstance(event, events.Message)]
    assert "extra=2, more=1 not verified: 'Trusted: yes' is set for file:/archive/" in told


def test_a_no_ends_it_before_the_download(system: System, bench: Bench, answers):
    answers.append(False)
    with pytest.raises(Cancelled):
        bench.install()
    assert bench.downloads == []


def test_an_archive_that_is_not_signed_is_refused_before_the_plan(system: System, bench: Bench):
    bench.resolver.untrusted = True
    with pytest.raises(Refused, match="not signed"):
        bench.install()
    assert shown(system) == []


def test_there_has_to_be_room(system: System, bench: Bench):
    bench.resolver.plan = PackagePlan(install=PLAN.install, disk_bytes=2**62)
    with pytest.raises(ExternalFailure, match="not enough space to change the packages"):
        bench.install()
    assert shown(system) == []


def test_a_removal_has_what_is_reserved_for_root(system: System, bench: Bench, answers, monkeypatch):
    monkeypatch.setattr(space, "of", lambda _path: Space(0, 100_000_000, None))
    with pytest.raises(ExternalFailure, match="not enough space to change the packages"):
        bench.install()
    bench.resolver.plan = PackagePlan(remove=(Step("extra", "all", old="1", reason="dropped"),))
    answers.append(False)
    with pytest.raises(Cancelled):
        bench.install()
    assert shown(system) == [True]


# --- what was built in vain


def test_what_nothing_points_at_is_removed(system: System):
    repo = system.repo
    commit = repos.write_commit(repo, {"usr/x": "x"}, ref="vain", packages=repos.PACKAGES["one"])
    repo.set_ref("vain", None)
    repo.set_ref(leftovers.PREVIOUS, commit)  # a killed program's
    with system.transaction():
        pass
    assert repo.has_commit(commit)
    with system.transaction() as tx:
        tx.tidy_at_end()
        assert repo.has_commit(commit)
    assert not repo.has_commit(commit)
    assert repo.has_commit(system.one)


def test_what_overlays_leave_is_removed_with_more_of_it(system: System):
    repo, commits = system.repo, []
    while not commits or all(map(repo.has_commit, commits)):
        commits.append(repos.write_commit(repo, {"usr/x": str(len(commits))}, ref="overlay"))
        repo.set_ref("overlay", None)
        with system.transaction() as tx:
            tx.tidy_at_end()
    assert 10 < len(commits) < 50
    assert not any(map(repo.has_commit, commits))


def test_a_damaged_commit_goes_at_once(system: System):
    repo = system.repo
    commit = repos.write_commit(repo, {"usr/x": "x"}, ref="overlay")
    repo.set_ref("overlay", None)
    place = system.place / f"ostree/repo/objects/{commit[:2]}/{commit[2:]}.commit"
    place.unlink()
    place.touch()
    with system.transaction() as tx:
        tx.tidy_at_end()
    assert not place.exists()
    assert system.told("warning") == []


def test_objects_without_a_commit_are_left_to_a_thorough_clean_up(system: System):
    repo = system.repo
    with repo.transaction():
        checksum = objects.write(
            repo, FileState("file", 0o644, content=b"of a commit that was never written")
        )
    with system.transaction() as tx:
        tx.tidy_at_end()
    assert repo.inode(checksum)
    with system.open() as machine:
        machine.cleanup(thorough=True)
    assert not repo.inode(checksum)


def test_a_clean_up_that_fails_does_not_hide_why_it_was_needed(system: System, monkeypatch):
    def broken(_machine: object, **_options: object) -> None:
        raise ExternalFailure("the disk is sick")

    monkeypatch.setattr(repos.Machine, "cleanup", broken)
    with pytest.raises(Refused), system.transaction() as tx:
        tx.tidy_at_end()
        raise Refused("the reason")
    (warning,) = system.told("warning")
    assert "the disk is sick" in warning


# --- the shape of a build root


def test_what_packages_put_beside_usr_is_seen(tmp_path):
    buildroot.make_top_level(tmp_path, {"snap": 0o711})
    assert buildroot.unexpected_top_level(tmp_path) == []
    assert buildroot.directories_beside_usr(tmp_path) == {"snap": 0o711}
    (tmp_path / "strange/inner").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("usr")
    assert buildroot.unexpected_top_level(tmp_path) == ["file", "link", "strange"]
    assert buildroot.directories_beside_usr(tmp_path) == {"snap": 0o711}
    assert {path.name for path in tmp_path.iterdir()} >= layout.TOP_DIRECTORIES.keys()
