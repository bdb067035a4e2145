"""rollback and cleanup on real deployments: their order, and what nobody needs any more."""

from __future__ import annotations

import os

import pytest

from apt_ostree.core import apply_live, deployments
from apt_ostree.core.state import generations
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.origin import Origin
from apt_ostree.model.requests.deployments import Cleanup, FinalizeDeployment, Pin, Rollback, Unpin
from apt_ostree.model.requests.live import ApplyLive
from apt_ostree.model.requests.options import LiveOptions
from apt_ostree.system import busctl, local_debs, usrview
from apt_ostree.system.apt import acquire, config
from apt_ostree.system.ostree import sysroot
from apt_ostree.system.usrview import ViewInUse
from tests.unit import repos
from tests.unit.repos import System


@pytest.fixture
def pending(system: System) -> System:
    """The second commit is deployed for the next boot."""
    with system.open() as machine:
        machine.stage(system.two, Origin("two"), machine.deployments().all[0])
    return system


def roll_back(system: System, **options):
    return system.run(deployments.boot_previous, Rollback(**options))


def clean(system: System, **options):
    return system.run(deployments.cleanup, Cleanup(**options))


# --- rollback


def test_there_is_nothing_to_roll_back_to(system: System):
    with pytest.raises(Refused, match="no deployment to roll back to") as caught:
        roll_back(system)
    assert "apply-live --reset" in str(caught.value.hint)


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_staged_deployment_is_not_rolled_back_over(pending: System, dry_run: bool):
    with pytest.raises(Refused, match=f"{pending.two}.0 is staged") as caught:
        roll_back(pending, dry_run=dry_run)
    assert "cleanup --pending" in str(caught.value.hint)
    assert pending.order() == [pending.two, pending.one]
    clean(pending, pending=True)
    assert pending.order() == [pending.one]


def test_a_rollback_boots_the_one_before_and_the_second_takes_that_back(pending: System):
    pending.booted = pending.two  # after a reboot
    assert pending.order() == [pending.two, pending.one]
    assert roll_back(pending).next_boot
    assert pending.order() == [pending.one, pending.two]


def test_a_dry_run_only_shows_the_order(pending: System):
    pending.booted = pending.two  # after a reboot
    result = roll_back(pending, dry_run=True)
    assert not result.next_boot
    assert pending.order() == [pending.two, pending.one]
    (plan,) = pending.plans("deployments")
    assert result.details["next"] == plan["next"]


# --- cleanup


def test_nothing_is_cleaned_up_unless_named(system: System):
    with pytest.raises(UsageError, match="nothing to clean up was named"):
        clean(system)
    with pytest.raises(UsageError, match="no deployment has the stateroot 'other'") as caught:
        clean(system, base=True, stateroot="other")
    assert repos.OSNAME in str(caught.value.hint)


def test_the_pending_deployment_goes(pending: System):
    result = clean(pending, pending=True, stateroot=repos.OSNAME)
    assert pending.order() == [pending.one]
    assert [row["reason"] for row in result.details["dropped"]] == ["pending"]
    assert result.details["freed_bytes"] >= 0
    assert pending.repo.has_commit(pending.two)  # its own ref holds it


def test_the_rollback_deployment_goes_with_its_commit(pending: System):
    pending.booted = pending.two
    repo = pending.repo
    repo.set_ref("one", None)
    pending.unpin(1)
    clean(pending, rollback=True)
    assert pending.order() == [pending.two]
    assert not repo.has_commit(pending.one)


def test_a_pinned_one_stays(pending: System):
    pending.booted = pending.two
    result = clean(pending, rollback=True)  # the first is pinned
    assert pending.order() == [pending.two, pending.one]
    assert [row["reason"] for row in result.details["kept"]] == ["pinned"]


def test_what_the_running_system_shows_stays(pending: System):
    live = LiveOptions(allow_replacement=True)
    pending.run(apply_live.apply_live, ApplyLive(live=live))
    pending.repo.set_ref("two", None)
    clean(pending, base=True, pending=True)
    assert pending.repo.has_commit(pending.two)
    with pending.open() as machine:
        assert any(generations.layers_dir(machine).iterdir())


def test_leftovers_of_killed_calls_go(system: System):
    with system.open() as machine:
        state = machine.state_dir
        machine.repo.set_ref("apt-ostree/live/7/target", system.two)
        machine.repo.set_ref("apt-ostree/base/gone", system.two)
    leftovers = (
        "view-1",
        "work/build-1",
        "work/tree-1/below",
        "work/repair-1",
        "layers/x.partial",
        "uppers/u",
    )
    for name in (*leftovers, "work/other"):
        (state / name).mkdir(parents=True)
    local_debs.STORE.mkdir()
    (local_debs.STORE / "unused.deb").touch()
    clean(system, base=True)
    left = {str(p.relative_to(state)) for p in state.rglob("*")}
    assert left == {"layers", "uppers", "work", "work/other"}
    assert not local_debs.STORE.exists()
    assert not system.repo.refs("apt-ostree")


@pytest.mark.parametrize("shown", [True, False])
def test_layers_go_when_no_mount_shows_them(system: System, monkeypatch, shown: bool):
    with system.transaction() as tx:
        layers = generations.layers_dir(tx.sysroot)
    request = ApplyLive(target=system.two, live=LiveOptions(allow_replacement=True))
    system.run(apply_live.apply_live, request)
    # A service with a mount namespace of its own may still see it.
    views = (ViewInUse(1, os.getppid(), frozenset(layers.iterdir())),) if shown else ()
    monkeypatch.setattr(usrview, "in_use", lambda: views)
    system.run(apply_live.apply_live, ApplyLive(reset=True))
    held = clean(system, base=True).details["held"]
    assert len(list(layers.iterdir())) == shown
    assert [(row["generation"], row["pid"]) for row in held] == [(1, os.getppid())] * shown
    assert all(row["command"] in row["reason"] for row in held)
    monkeypatch.setattr(usrview, "in_use", lambda: ())
    assert clean(system, base=True).details["held"] == []
    assert not list(layers.iterdir())


def test_what_is_live_keeps_its_space(pending: System):
    pending.run(apply_live.apply_live, ApplyLive(live=LiveOptions(allow_replacement=True)))
    (row,) = clean(pending, base=True).details["held"]
    assert (row["generation"], row["pid"]) == (1, None)


def test_downloads_go_and_are_counted(system: System, monkeypatch):
    monkeypatch.setattr(config, "use_host", lambda: None)
    monkeypatch.setattr(acquire, "remove_downloads", lambda: 3)
    result = clean(system, repomd=True)
    assert result.details["downloads"] == 3
    assert system.told() == ["3 files of package lists, archives and images removed"]
    assert system.order() == [system.one]


# --- pin and finalize


def pinned(system: System) -> list[bool]:
    with system.open(writable=False) as machine:
        return [deployment.pinned for deployment in machine.deployments().all]


def test_deployments_are_pinned_by_index_and_name(pending: System):
    with pytest.raises(Refused, match="is staged, and cannot be pinned"):
        pending.run(deployments.pin, Pin(deployments=("pending",)))
    pending.booted = pending.two  # after a reboot
    assert pinned(pending) == [False, True]  # the fixture has pinned the first one
    result = pending.run(deployments.unpin, Unpin(deployments=("1", "rollback")))
    assert (result.changed, len(result.details["deployments"])) == (True, 1)
    assert pinned(pending) == [False, False]
    assert not pending.run(deployments.unpin, Unpin(deployments=("1",))).changed
    assert pending.run(deployments.pin, Pin(deployments=("1",))).changed
    assert pinned(pending) == [False, True]
    with pytest.raises(UsageError, match="no deployment '7'") as caught:
        pending.run(deployments.unpin, Unpin(deployments=("1", "7")))
    assert "there are: 0, 1, booted, rollback" in str(caught.value.hint)
    assert pinned(pending) == [False, True]


def finalize(system: System, **options):
    return system.run(deployments.finalize, FinalizeDeployment(**options))


def test_nothing_is_finalized_that_was_not_looked_at(system: System):
    with pytest.raises(Refused, match="no deployment is staged"):
        finalize(system, checksum=system.two)
    with system.open() as machine:
        machine.stage(system.two, Origin("two"), machine.deployments().all[0])
    with pytest.raises(Refused, match=f"{system.two[:12]} is staged, and not {system.one}"):
        finalize(system, checksum=system.one)
    with pytest.raises(Refused, match="not locked"):
        finalize(system, checksum=system.two)
    result = finalize(system, allow_missing_checksum=True, allow_unlocked=True)
    assert (result.changed, result.next_boot, result.details["commit"]) == (False, True, system.two)
    for wrong in ({}, {"checksum": "x", "allow_missing_checksum": True}):
        with pytest.raises(ValueError, match="either a checksum"):
            FinalizeDeployment(**wrong)


def test_nothing_is_finalized_while_a_program_inhibits_the_reboot(system: System, monkeypatch):
    """The answers are those of busctl 252 and 257."""
    rows = [
        ["sleep", "Screen", "Locks the screen", "block", 0, 1],
        ["shutdown:sleep", "apt-ostree", "finalize", "block", 0, 2],
        ["shutdown", "Desk", "Asks", "delay", 0, 3],
        ["sleep:shutdown", "Writer", "Burns a disk", "block", 1000, 4],
    ]
    monkeypatch.setattr(busctl, "call", lambda *_call: [rows])
    with system.open() as machine:
        machine.stage(system.two, Origin("two"), machine.deployments().all[0])
    with pytest.raises(Refused, match=r"a reboot is inhibited by Writer \(Burns a disk\)"):
        finalize(system, checksum=system.two, allow_unlocked=True)
    del rows[-1]
    assert finalize(system, checksum=system.two, allow_unlocked=True).next_boot


def test_the_lock_goes_with_what_was_locked(system: System, monkeypatch, tmp_path):
    lock = tmp_path / "run/locked"
    monkeypatch.setattr(sysroot, "_LOCKED", lock)
    with system.open() as machine:
        machine.stage(system.two, Origin("two"), machine.deployments().all[0], locked=True)
        assert lock.exists()
        machine.keep(lambda deployment: not deployment.staged)
        assert not lock.exists()
