"""Queries on a system: the status, the history, what the archives offer."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from apt_ostree.core import apply_live, archives, history, queries, status
from apt_ostree.core.live import confirmation
from apt_ostree.errors import NotAuthorized, Refused, UsageError
from apt_ostree.model import events, layout
from apt_ostree.model.generation import Phase
from apt_ostree.model.history import Outcome
from apt_ostree.model.origin import LocalPackage, Origin
from apt_ostree.model.package import PackageDiff
from apt_ostree.model.queries import (
    CompareOperations,
    History,
    RequestedPackages,
    Search,
    ShowOperation,
    Status,
)
from apt_ostree.model.requests.archives import RefreshMd
from apt_ostree.model.requests.live import ApplyLive, Confirm, RollbackLive
from apt_ostree.model.requests.options import LiveOptions
from apt_ostree.model.search import Offer
from apt_ostree.model.update import Update
from apt_ostree.system import available_update, refreshed, statedb
from apt_ostree.system.apt import acquire, catalogue, config
from apt_ostree.system.apt.catalogue import Source
from tests.unit import repos
from tests.unit.repos import System


def apply(system: System, **options) -> None:
    live = LiveOptions(allow_replacement=True, **options)
    system.run(apply_live.apply_live, ApplyLive(target=system.two, live=live))


@pytest.fixture
def running(system: System, monkeypatch) -> System:
    """Have the system's root pass for /, which only a real one is."""
    monkeypatch.setattr(repos.Machine, "passes_for_root", True)
    return system


def the_status(*, booted: bool = False):
    return status.status(Status(booted=booted))


# --- status


def test_a_deployment_is_told_with_its_commit(running: System):
    found = the_status()
    (one,) = found.deployments
    assert (one.commit.checksum, one.commit.version) == (running.one, "one")
    assert (one.base, one.layered, one.live, one.diff) == (None, (), None, None)
    assert not found.pending
    assert one.to_json()["checksum"] == running.one


def test_a_program_that_changes_the_system_is_seen(system: System):
    query = Status(sysroot=str(system.place))
    with system.open():
        assert status.status(query).busy
    assert not status.status(query).busy


def test_a_layered_deployment_is_told_with_its_base(running: System):
    words = {layout.META_BASE: running.one, "version": "one"}
    commit = repos.write_commit(
        running.repo,
        {**repos.ONE, "usr/bin/extra": "x"},
        ref="layered",
        packages=repos.PACKAGES["two"],
        **words,
    )
    origin = Origin("one", ("base", "extra=1"), (LocalPackage("f" * 64, "mine", "1", "all"),))
    with running.open() as machine:
        machine.stage(commit, origin, machine.deployments().all[0])
    found = the_status()
    new, booted = found.deployments
    assert found.pending
    assert new.base is not None
    assert (new.base.checksum, new.layered) == (running.one, ("extra",))
    assert [(c.name, c.old, c.new) for c in new.upgraded] == [("tool", "1.0", "2.0")]
    assert new.diff is not None
    assert [p.name for p in new.diff.added] == ["extra"]
    assert booted.diff is None
    assert status.requested_packages(RequestedPackages()) == ["base", "extra", "mine"]
    assert [d.commit.checksum for d in the_status(booted=True).deployments] == [running.one]


def test_the_live_state_is_told(running: System):
    apply(running, confirm_within=600)
    (one,) = the_status().deployments
    live = one.live
    assert live is not None
    assert (live.commit, live.generation, live.shown, live.unfinished) == (running.two, 1, True, None)
    assert [p.name for p in live.diff.added] == ["extra"]
    assert live.confirm_by is not None
    assert 500 < live.confirm_by - time.time() < 700


def test_an_unfinished_change_is_told(running: System):
    apply(running)
    with running.transaction() as tx:
        tx.records.set_phase(1, Phase.UNDOING)
    live = the_status().deployments[0].live
    assert live is not None
    assert (live.commit, live.unfinished) == (None, running.two)


def test_a_view_that_is_covered_is_told(running: System):
    apply(running)
    running.kernel.usr.clear()
    live = the_status().deployments[0].live
    assert live is not None
    assert not live.shown


def test_who_may_not_read_the_records_sees_the_mount(running: System, monkeypatch):
    apply(running)
    monkeypatch.setattr(statedb, "is_readable", lambda: False)
    live = the_status().deployments[0].live
    assert live is not None
    assert (live.commit, live.generation, live.unfinished) == (running.two, 1, None)
    running.kernel.usr.clear()
    assert the_status().deployments[0].live is None


def test_a_system_below_a_path_has_no_live_state(system: System):
    apply(system)
    found = status.status(Status(sysroot=str(system.place)))
    assert [d.live for d in found.deployments] == [None]


def test_an_update_is_told_as_long_as_it_starts_from_the_next_deployment(running: System, monkeypatch):
    monkeypatch.setattr(available_update, "RECORD", running.place / "update.json")
    assert the_status().update is None
    noted = Update(
        against=running.one, osname=repos.OSNAME, origin="one", commit=running.two, version=None, timestamp=5,
        new_base=True, gpg_enabled=False, diff=PackageDiff(),
    )  # fmt: skip
    available_update.write(noted)
    assert the_status().update == noted
    assert status.status(Status(sysroot=str(running.place))).update is None
    available_update.write(replace(noted, against=running.two))
    assert the_status().update is None


def test_an_empty_system_has_no_requests(system: System):
    assert queries.answer_json("requested-packages", {}) == []


# --- history


def test_without_records_there_is_no_history(system: System):
    assert history.history(History()) == ()
    with pytest.raises(UsageError, match="no operation 1") as caught:
        history.show_operation(ShowOperation(number=1))
    assert caught.value.hint == "there are: none"


def test_operations_are_told_from_the_oldest_on(system: System):
    apply(system)
    system.run(apply_live.rollback_live, RollbackLive())
    first, second = history.history(History())
    assert (first.number, first.verb, first.outcome) == (1, "apply-live", Outcome.ROLLED_BACK)
    assert (second.verb, second.outcome) == ("rollback --live 0", Outcome.DONE)
    assert first.steps.keys() == {"detection", "preparation", "application", "verification"}
    assert history.show_operation(ShowOperation(number=2)) == second
    with pytest.raises(UsageError) as caught:
        history.show_operation(ShowOperation(number=3))
    assert caught.value.hint == "there are: 1 to 2"
    assert queries.answer_json("history-show", {"number": 1})["target"] == system.two


def test_operations_are_compared(system: System):
    apply(system)
    found = history.compare_operations(CompareOperations(one=0, two=1))
    assert (found["source"], found["target"]) == (system.one, system.two)
    assert ["added", "/usr/share/new"] in found["changes"]
    assert [p["name"] for p in found["packages"]["added"]] == ["extra"]
    back = history.compare_operations(CompareOperations(one=1, two=0))
    assert ["removed", "/usr/share/new"] in back["changes"]
    assert history.compare_operations(CompareOperations(one=1, two=1))["changes"] == []


def test_a_commit_that_is_gone_cannot_be_compared(system: System):
    apply(system)
    system.run(apply_live.apply_live, ApplyLive(reset=True))
    system.repo.set_ref("two", None)
    with system.open() as machine:
        machine.cleanup()
    with pytest.raises(Refused, match="operations 0 and 1 cannot be compared") as caught:
        history.compare_operations(CompareOperations(one=0, two=1))
    assert "kept as long as" in str(caught.value.hint)


@pytest.mark.parametrize("query", [History(), ShowOperation(number=1)])
def test_the_history_is_roots_alone(query, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(NotAuthorized, match="cannot read the history"):
        queries.answer(query)


# --- confirmation


def test_a_change_that_waits_is_confirmed(system: System):
    with pytest.raises(Refused, match="no live change waits"):
        system.run(confirmation.confirm, Confirm())
    apply(system, confirm_within=600)
    assert any("undone in 10 minutes" in text for text in system.told("warning"))
    (timer,) = (call for call in system.programs.calls if call[0] == "systemd-run")
    assert "--on-active=600" in timer
    assert timer[-2:] == ["recover", "--at=deadline"]
    result = system.run(confirmation.confirm, Confirm())
    assert result.details == {"generations": [1]}
    assert system.programs.ran("systemctl", "stop", "apt-ostree-unconfirmed-*.timer")
    with pytest.raises(Refused):
        system.run(confirmation.confirm, Confirm())


# --- archives


@pytest.fixture
def stamp(monkeypatch, tmp_path: Path) -> Path:
    """Where the last refresh is recorded."""
    path = tmp_path / "refreshed"
    monkeypatch.setattr(refreshed, "RECORD", path)
    return path


@pytest.fixture
def catalogue_of(monkeypatch, stamp: Path):
    """Have libapt know of some packages and archives."""

    def choose(offers: list[Offer], sources: list[Source]) -> None:
        monkeypatch.setattr(config, "use_host", lambda: None)
        monkeypatch.setattr(catalogue, "offered", lambda: iter(offers))
        monkeypatch.setattr(catalogue, "sources", lambda: tuple(sources))

    return choose


HELLO = Offer("hello", "2.10", "example package", "2.9")
ARCHIVE = Source("http://deb.debian.org/debian", "trixie", signed=True, downloaded=True)


def test_packages_are_found_by_all_terms(catalogue_of):
    catalogue_of([HELLO, Offer("other", "1", "another example")], [ARCHIVE])
    found = archives.search(Search(terms=("EXAMPLE", " ", "hello")))
    assert found["warnings"] == []
    (match,) = found["matches"]
    assert (match["name"], match["version"], match["installed"]) == ("hello", "2.10", "2.9")


def test_a_search_without_lists_says_so(catalogue_of):
    catalogue_of([], [Source("http://x", "trixie", signed=True, downloaded=False)])
    found = archives.search(Search(terms=("x",)))
    assert found["matches"] == []
    assert "refresh-md" in found["warnings"][0]


def test_a_search_in_older_lists_names_their_archives(catalogue_of, stamp: Path):
    catalogue_of([], [ARCHIVE])
    stamp.write_text("amd64\nhttp://x trixie\nhttp://y trixie\n")
    (warning,) = archives.search(Search(terms=("x",)))["warnings"]
    assert "http://x trixie, http://y trixie are old" in warning


@pytest.mark.parametrize("terms", [(), ("",), (" ", "\t")])
def test_a_search_for_nothing_is_a_mistake(terms):
    with pytest.raises(UsageError, match="nothing to search for"):
        archives.search(Search(terms=terms))


def test_an_archive_that_failed_is_tried_again(system: System, catalogue_of, stamp: Path, monkeypatch):
    catalogue_of([], [ARCHIVE])
    stamp.write_text("amd64\nhttp://x trixie")
    monkeypatch.setattr(acquire, "lists_are_current", lambda: True)
    monkeypatch.setattr(acquire, "refresh_lists", lambda report: stamp.write_text("amd64"))
    assert system.run(archives.refresh_md, RefreshMd()).changed
    assert not system.run(archives.refresh_md, RefreshMd()).changed


@pytest.mark.parametrize(("current", "force"), [(True, False), (True, True), (False, False)])
def test_lists_are_refreshed_unless_current(system: System, catalogue_of, monkeypatch, current, force):
    unsigned = Source("http://x", "mine", signed=False, downloaded=True)
    catalogue_of([], [ARCHIVE, unsigned])
    monkeypatch.setattr(acquire, "lists_are_current", lambda: current)
    monkeypatch.setattr(acquire, "refresh_lists", lambda report: report(events.Message("refreshed")))
    result = system.run(archives.refresh_md, RefreshMd(force=force))
    assert result.changed == (force or not current)
    assert ("refreshed" in system.told()) == result.changed
    if result.changed:
        assert system.told()[-2:] == ["http://deb.debian.org/debian trixie", "http://x mine (not signed)"]
        assert result.details["sources"][1]["signed"] is False
    else:
        assert "--force" in system.told()[0]
