"""What the system shows and keeps: live state, generations' refs and directories, packages of commits."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest

from apt_ostree.core.state import generations, inventory, live
from apt_ostree.core.state.generations import Ending
from apt_ostree.core.state.live import frozen_uppers, read_live_state
from apt_ostree.errors import ExternalFailure, Refused
from apt_ostree.model import layout
from apt_ostree.model.deployment import Deployments
from apt_ostree.model.generation import Phase, ViewRecord
from apt_ostree.model.history import Intent, Outcome
from apt_ostree.model.notes import Note
from apt_ostree.model.overlay import Applied, State, Transition
from apt_ostree.model.package import Package
from apt_ostree.system import running, statedb
from apt_ostree.system.statedb import StateDb
from tests.unit import repos
from tests.unit.repos import System

STATUS = """\
Package: here
Status: install ok installed
Architecture: amd64
Version: 1.0

Package: half
Status: install ok half-configured
Architecture: all
Version: 2

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 3
"""


def begin(
    records: StateDb, source: str, target: str, *, overlays: tuple[Applied, ...] = (), base: str = "",
    uppers: tuple[str, ...] = (), layers: tuple[str, ...] = (), moves: tuple[Transition, ...] = (),
) -> int:  # fmt: skip
    """Record a generation that is live."""
    number = records.begin(
        Intent("test", "me", source, target),
        deployment="debian-1.0",
        view=ViewRecord(base or target, overlays, layers, uppers),
        etc=(),
        units=(),
        transitions=moves,
    )
    records.keep(number)
    return number


# --- live state


def test_without_a_change_the_booted_commit_is_shown(system: System):
    with system.transaction() as tx:
        state = tx.live
        assert (state.commit, state.base, state.current, state.numbers) == (system.one, system.one, None, ())
        assert state.goal.commit == state.goal.base == system.one
        assert state.goal.overlays == ()


def test_the_newest_generation_of_this_boot_is_shown(system: System, monkeypatch):
    applied = (Applied("system/x", system.two, system.two),)
    with system.transaction() as tx:
        begin(tx.records, system.one, system.two)
        with monkeypatch.context() as patch:
            patch.setattr(statedb, "boot_id", lambda: "another boot")
            begin(tx.records, system.one, "f" * 64)  # a boot whose traces are not cleared up yet
        begin(tx.records, system.two, system.one, base=system.two, overlays=applied)
        state = read_live_state(tx.deployments, tx.records)
    assert state.numbers == (1, 3)
    assert (state.commit, state.base, state.goal.overlays) == (system.one, system.two, applied)


def test_the_generation_that_the_boot_began_with_is_known(system: System):
    with system.transaction() as tx:
        number = begin(tx.records, system.one, system.two)
        for boot, first in (("another boot", 0), (running.boot_id(), number)):
            tx.records.set_note(Note.BOOT, f"{number} {boot}")
            assert read_live_state(tx.deployments, tx.records).first == first
        tx.records.set_note(Note.BOOT, f"{number + 1} {running.boot_id()}")  # undone meanwhile
        assert read_live_state(tx.deployments, tx.records).first == 0


def test_a_system_that_was_not_booted_from_a_deployment_has_no_live_state(system: System):
    with system.open() as machine:
        left = tuple(replace(d, booted=False) for d in machine.deployments().all)
    with pytest.raises(Refused, match="not booted from an OSTree deployment"):
        read_live_state(Deployments(left), None)


def test_what_is_written_in_an_unlocked_usr_is_kept_under_the_next_view(system: System):
    with system.transaction() as tx:
        assert frozen_uppers(tx.live) == ()
        fd = system.kernel.new_overlay_mount(
            ["/usr"], source="overlay", scratch=system.state, upper=("/up", "/work"), read_only=False
        )
        system.kernel.attach(fd, repos.USR)
        assert frozen_uppers(tx.live) == ("/up",)  # ostree's own
        begin(tx.records, system.one, system.two, uppers=("/a", "/b"))
        tx.reread()
        assert live.frozen_uppers(tx.live) == ("/a", "/b")


# --- refs of generations


def test_refs_hold_what_a_generation_shows(system: System):
    with system.transaction() as tx:
        repo = tx.sysroot.repo
        layer = repos.write_commit(repo, {"bin/x": "layer"}, ref="layer")
        for ref in ("two", "layer"):
            repo.set_ref(ref, None)
        generations.pin(tx.sysroot, 1, [system.two, layer], [layer, system.two])
        generations.pin(tx.sysroot, 2, [system.one], [])
        tx.sysroot.cleanup()
        assert repo.has_commit(system.two)
        assert repo.has_commit(layer)
        assert repo.refs("apt-ostree/live")["apt-ostree/live/1/target"] == system.two
        generations.unpin_all_but(tx.sysroot, {2}, {system.one})
        tx.sysroot.cleanup()
        assert not repo.has_commit(system.two)
        assert list(repo.refs("apt-ostree/live").values()) == [system.one]


def test_a_forgotten_generation_leaves_its_end_in_the_history(system: System):
    state = State("system/x", system.two, True, "boot")
    with system.transaction() as tx:
        number = begin(tx.records, system.one, system.two, moves=(Transition(state.id, None, state),))
        generations.pin(tx.sysroot, number, [system.two], [])
        assert tx.records.overlays() == (state,)
        generations.remove_generation(tx.sysroot, tx.records, number, Ending(Outcome.FAILED, "why"))
        assert tx.records.generations() == ()
        assert tx.records.overlays() == ()  # undone with it
        assert not tx.sysroot.repo.refs("apt-ostree/live")
        assert [(e.outcome, e.message) for e in tx.records.history()] == [(Outcome.FAILED, "why")]


def test_what_a_generation_made_of_overlays_may_be_settled(system: System):
    state = State("system/x", system.two, True, "boot")
    with system.transaction() as tx:
        number = begin(tx.records, system.one, system.two, moves=(Transition(state.id, None, state),))
        tx.records.settle_overlays([number])
        generations.remove_generation(tx.sysroot, tx.records, number, Ending(Outcome.ENDED, ""))
        assert tx.records.overlays() == (state,)


# --- directories of generations


def test_a_view_is_made_of_layers_uppers_and_the_booted_usr(system: System):
    with system.transaction() as tx:
        layer = repos.write_commit(tx.sysroot.repo, {"bin/x": "layer"}, ref="layer")
        begin(tx.records, system.one, system.two, layers=(layer,), uppers=("/up",))
        (generation,) = tx.records.generations()
        found = generations.lowers(tx.sysroot, tx.live.booted, generation)
        booted = tx.sysroot.directory(tx.live.booted) / "usr"
        assert found == (generations.layers_dir(tx.sysroot) / layer, Path("/up"), booted)
        assert (found[0] / "bin/x").read_text() == "layer"
        assert generations.lowers(tx.sysroot, tx.live.booted, generation) == found  # used again
        generations.remove_layers_but(tx.sysroot, [generation])
        assert found[0].is_dir()
        generations.remove_layers_but(tx.sysroot, [])
        assert not found[0].exists()


def test_uppers_are_as_what_they_cover_and_go_when_nobody_shows_them(system: System, tmp_path):
    like = tmp_path / "like"
    like.mkdir()
    like.chmod(0o711)
    with system.transaction() as tx:
        kept, gone = (generations.new_upper(tx.sysroot, like) for _ in range(2))
        assert (kept / "upper").stat().st_mode & 0o7777 == 0o711
        assert (kept / "work").is_dir()
        assert kept.parent == generations.uppers_dir(tx.sysroot)
        begin(tx.records, system.one, system.two, uppers=(str(kept / "upper"),))
        generations.remove_uppers_but(tx.sysroot, tx.records.generations())
        assert kept.is_dir()
        assert not gone.exists()


def test_scratch_directories_of_killed_calls_go(system: System):
    with system.transaction() as tx:
        with generations.scratch(tx.sysroot) as mine:
            assert not list(mine.iterdir())
        assert not mine.exists()
        (tx.sysroot.state_dir / "view-left").mkdir()
        generations.discard_scratch(tx.sysroot)
        assert not list(tx.sysroot.state_dir.iterdir())


def test_accounts_that_a_tree_describes(system: System):
    lines = "u app 900 - /\ng other 901\n"
    with system.transaction() as tx:
        target = repos.write_commit(tx.sysroot.repo, {layout.SYSUSERS: lines}, ref="accounts")
        begin(tx.records, system.one, target)
        begin(tx.records, target, system.two)
        begin(tx.records, target, "0" * 64)  # its commit is gone
        described = [generations.described_accounts(tx.sysroot, g) for g in tx.records.generations()]
    assert described == [{"app", "other"}, frozenset(), frozenset()]


def test_ostree_is_told_how_usr_is_unlocked(system: System):
    with system.transaction() as tx:
        for upper, read_only, how in (
            (None, True, "none"),
            (("/u", "/w"), False, "development"),
            (("/u", "/w"), True, "transient"),
        ):
            fd = system.kernel.new_overlay_mount(
                ["/usr"], source="overlay", scratch=system.state, upper=upper, read_only=read_only
            )
            system.kernel.attach(fd, repos.USR)
            generations.mark_unlocked(tx.sysroot)
            tx.reread()
            assert tx.live.booted.unlocked == how


def test_phases_are_those_of_the_record(system: System):
    with system.transaction() as tx:
        number = begin(tx.records, system.one, system.two)
        tx.records.set_phase(number, Phase.UNDOING)
    with system.transaction() as tx:
        assert [g.phase for g in tx.live.generations] == [Phase.UNDOING]


# --- packages of commits


def test_packages_are_those_of_the_metadata(system: System):
    assert inventory.packages_of(system.repo, system.two) == set(repos.PACKAGES["two"])


@pytest.mark.parametrize(
    ("tree", "packages"),
    [
        ({f"{layout.DPKG_ADMINDIR}/status": STATUS}, {("here", "1.0", "amd64"), ("half", "2", "all")}),
        ({f"{layout.DPKG_ADMINDIR}/status": ""}, set()),
        ({"usr/bin/x": "x"}, set()),
    ],
)
def test_a_commit_of_another_tool_has_the_packages_of_its_database(system: System, tree, packages):
    repo = system.repo
    commit = repos.write_commit(repo, tree, ref="other")
    assert inventory.packages_of(repo, commit) == {Package(*row) for row in packages}


def test_a_list_without_packages_is_a_list(system: System):
    repo = system.repo
    tree = {f"{layout.DPKG_ADMINDIR}/status": STATUS}
    assert inventory.packages_of(repo, repos.write_commit(repo, tree, packages=[])) == frozenset()
    assert json.dumps(sorted(repo.metadata(system.two)))  # and it is no part of the plain metadata
    assert layout.META_PACKAGES not in repo.metadata(system.two)


# --- the database of an older apt-ostree


def test_a_database_of_an_older_version_is_read_as_it_is(system: System):
    with statedb.opened() as records:
        records.log(Intent("verb", "caller", "s", "t", {}))
    path = statedb.DIRECTORY / "state.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("ALTER TABLE generation DROP COLUMN began")
        connection.execute("ALTER TABLE generation DROP COLUMN kernel")
        connection.execute("PRAGMA user_version = 3")
        columns = (
            "id, boot_id, deployment, source, target, layers, uppers, phase, created, base, overlays, hidden"
        )
        row = (1, "boot", "d.0", "s", "t", "[]", "[]", "live", time.time() - 5, "t", "[]", "{}")
        connection.execute(f"INSERT INTO generation ({columns}) VALUES ({', '.join('?' * len(row))})", row)
    before = path.read_bytes()
    for opened in (statedb.read_only, statedb.opened):
        assert path.read_bytes() == before
        with opened() as records:
            assert records
            (generation,) = records.generations()
            assert generation.kernel == ()
            assert generation.created == generation.began == pytest.approx(time.monotonic() - 5, abs=2)


def test_what_the_database_cannot_do_is_an_error_of_its_own(system: System):
    with (
        statedb.opened() as records,
        pytest.raises(ExternalFailure, match=r"cannot use the database .*state\.db: "),
    ):
        records.log(Intent("verb", "caller", "s", None, {}))  # type: ignore[arg-type]
