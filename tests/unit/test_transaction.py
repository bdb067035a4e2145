"""A transaction: the system opened alone, questions that let others work meanwhile, and the clock."""

from __future__ import annotations

import os
import time

import pytest

from apt_ostree.core import transaction
from apt_ostree.core.transaction import Clock, Transaction
from apt_ostree.errors import Cancelled, NotAuthorized, Refused, UsageError
from apt_ostree.model import events
from apt_ostree.model.events import PlanShown
from apt_ostree.model.history import Intent
from apt_ostree.model.origin import Origin
from apt_ostree.model.overlay import State, Transition
from apt_ostree.model.settings import Settings
from apt_ostree.system import settings as settings_files
from apt_ostree.system import statedb
from tests.unit.repos import System

PLAN = PlanShown("test", {"what": "nothing"})


class Taken(Exception):
    """Somebody else has the lock."""


def is_locked(system: System) -> bool:
    """Tell whether a second program would have to wait."""

    def wait() -> None:
        raise Taken

    try:
        system.open(on_wait=wait).close()
    except Taken:
        return True
    return False


# --- the system


def test_the_system_is_locked_while_it_is_changed(system: System):
    assert not is_locked(system)
    with system.transaction() as tx:
        assert is_locked(system)
        assert tx.live.booted.checksum == system.one
    assert not is_locked(system)


def test_the_lock_is_let_go_of_on_a_failure(system: System):
    with pytest.raises(Taken), system.transaction():
        raise Taken
    assert not is_locked(system)


def test_who_must_not_wait_is_refused(system: System):
    told: list[events.Event] = []
    impatient = Transaction(told.append, "test", wait=False)
    other_waits = pytest.raises(Refused, match="another program")
    with system.transaction(), other_waits as caught, impatient.changing("test"):
        pass
    assert "--no-wait" in str(caught.value.hint)
    assert not told


def test_who_waits_is_told(system: System):
    other = system.open()
    told: list[events.Event] = []

    def report(event: events.Event) -> None:
        told.append(event)
        other.close()  # the other program ends

    with Transaction(report, "test").changing("test"):
        assert "waiting" in told[0].text  # type: ignore[union-attr]
    assert not is_locked(system)


def test_nobody_but_root_changes_the_system(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(transaction, "Sysroot", lambda **_: pytest.fail("the system was opened"))
    tx = Transaction(events.silent, "test")
    with pytest.raises(NotAuthorized, match="cannot paint without root's rights"), tx.changing("paint"):
        pass


def test_records_are_made_by_the_first_change(system: System):
    with system.transaction() as tx:
        assert tx.records.overlays() == ()
        assert not list(system.state.iterdir())
        tx.records.log(Intent("test", "me", "a", "b"))
        assert {path.name for path in system.state.iterdir()} == {"state.db", "live"}
    with statedb.read_only() as records:
        assert records
        assert [entry.verb for entry in records.history()] == ["test"]


def test_what_was_read_is_read_again_when_told_so(system: System):
    with system.transaction() as tx:
        before = tx.deployments
        tx.sysroot.stage(system.two, Origin(refspec="two"), tx.merge_deployment)
        assert tx.deployments is before
        tx.reread()
        assert [d.checksum for d in tx.deployments.all] == [system.two, system.one]
        assert tx.merge_deployment.checksum == system.two
        assert tx.live.base == system.one


def test_a_mistake_in_a_file_of_settings_keeps_nobody_from_going_back(system: System, monkeypatch):
    def load() -> Settings:
        raise UsageError("the file is wrong")

    with system.transaction() as tx:
        monkeypatch.setattr(settings_files, "load", load)
        assert tx.safe_settings == Settings()
        with pytest.raises(UsageError):
            _ = tx.settings


# --- questions


def test_without_a_question_the_plan_is_shown_and_that_is_it(system: System):
    with system.transaction() as tx:
        tx.confirm(PLAN, commits=["gone"])
    assert system.events == [PLAN]


def test_the_lock_is_let_go_of_while_the_user_thinks(system: System):
    locked: list[bool] = []

    def ask() -> bool:
        locked.append(is_locked(system))
        return True

    with system.transaction(ask=ask) as tx:
        tx.confirm(PLAN, commits=[system.one, system.two])
        locked.append(is_locked(system))
    assert locked == [False, True]
    assert system.events == [PlanShown("test", PLAN.plan, confirm=True)]


def test_a_no_cancels(system: System):
    with system.transaction(ask=lambda: False) as tx, pytest.raises(Cancelled, match="nothing was changed"):
        tx.confirm(PLAN)


def test_a_no_is_a_no_whatever_happened_meanwhile(system: System):
    def ask() -> bool:
        _stage(system)
        return False

    with system.transaction(ask=ask) as tx, pytest.raises(Cancelled):
        tx.confirm(PLAN)


def test_the_lock_is_taken_again_when_asking_fails(system: System):
    def ask() -> bool:
        raise Taken

    with system.transaction(ask=ask) as tx:
        with pytest.raises(Taken):
            tx.confirm(PLAN)
        assert is_locked(system)


def _stage(system: System) -> None:
    with system.open() as machine:
        machine.stage(system.two, Origin(refspec="two"), machine.deployments().all[0])


def _add_overlay(system: System) -> None:
    state = State("system/x", system.one, True, "boot")
    with statedb.opened() as records:
        records.move([Transition(state.id, None, state)])


@pytest.mark.parametrize("change", [_stage, _add_overlay])
def test_an_answer_is_about_what_was_there(system: System, change):
    def ask() -> bool:
        change(system)
        return True

    with system.transaction(ask=ask) as tx:
        tx.records.log(Intent("test", "me", "a", "b"))  # there is a file of records, which others open
        with pytest.raises(Refused, match="the system was changed while the question was open"):
            tx.confirm(PLAN)


def test_a_commit_that_is_gone_cannot_be_deployed(system: System):
    def ask() -> bool:
        repo = system.repo
        repo.set_ref("two", None)
        with system.open() as machine:
            machine.cleanup()
        return True

    with system.transaction(ask=ask) as tx, pytest.raises(Refused, match="while the question was open"):
        tx.confirm(PLAN, commits=[system.one, system.two])


# --- the clock


def test_the_clock_announces_each_step_and_measures_it():
    told: list[events.Event] = []
    clock = Clock(told.append)
    clock.stop()
    clock.begin("detection")
    clock.begin("preparation")
    clock.begin("detection")
    clock.stop()
    clock.stop()
    assert told == [events.Message(f"{name}:") for name in ("Detection", "Preparation", "Detection")]
    assert clock.seconds.keys() == {"detection", "preparation"}
    assert all(seconds >= 0 for seconds in clock.seconds.values())


def test_a_persons_time_is_not_ours(system: System, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def ask() -> bool:
        now[0] += 3600
        return True

    with system.transaction(ask=ask) as tx:
        tx.clock.begin("detection")
        now[0] += 1
        tx.confirm(PLAN)
        tx.clock.stop()
        assert tx.clock.seconds == {"detection": 1.0}
