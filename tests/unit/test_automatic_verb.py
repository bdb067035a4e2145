"""The verb of automatic updates, on a system in a directory: what it stages, remembers and tells."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from apt_ostree.core import automatic
from apt_ostree.core import status as core_status
from apt_ostree.errors import ExternalFailure, Refused
from apt_ostree.model.automatic import Facts, Record
from apt_ostree.model.automatic_settings import AutomaticSettings, Policy
from apt_ostree.model.queries import Status
from apt_ostree.model.requests.automatic import AutomaticUpdate
from apt_ostree.system import automatic_record, available_update, conditions, motd, process
from tests.unit.repos import System
from tests.unit.test_deploy import Builder, builder  # noqa: F401  # a fixture

REAL_RUN = process.run
#: Programs that are run for real: the administrator's commands.
COMMANDS = ("/bin/true", "/bin/false", "/bin/sh")
FACTS = Facts(now=1_800_000_000.0, uptime=1e6, machine="m")


@pytest.fixture(autouse=True)
def world(system: System, builder: Builder, tmp_path, monkeypatch):  # noqa: F811
    """Facts that are not the host's, and a newer base."""
    monkeypatch.setattr(conditions, "read", lambda: FACTS)
    monkeypatch.setattr(motd, "_DIRECTORY", tmp_path / "motd.d")
    fake = process.run
    monkeypatch.setattr(
        process, "run", lambda argv, **more: (REAL_RUN if argv[0] in COMMANDS else fake)(argv, **more)
    )
    builder.commits = [None] * 9  # no packages to change
    system.repo.set_ref("one", system.two)
    configure(system)


def configure(system: System, policy: Policy = Policy.STAGE, **changes):
    given = replace(AutomaticSettings(), **changes)
    system.settings = replace(system.settings, automatic_policy=policy, automatic=given)


def run(system: System, **request):
    return system.run(automatic.update, AutomaticUpdate(**request))


def test_nothing_is_done_while_it_is_off(system: System):
    configure(system, Policy.NONE)
    assert not run(system).changed
    assert automatic_record.read() is None
    assert system.order() == [system.one]


def test_an_update_is_noted(system: System):
    configure(system, Policy.CHECK)
    result = run(system)
    assert (result.changed, result.details["outcome"]) == (False, "noted")
    assert system.order() == [system.one]
    noted = available_update.read(system.one)
    assert noted and noted.commit == system.two


def test_an_update_is_staged_once(system: System):
    result = run(system)
    assert (result.changed, result.next_boot, result.details["outcome"]) == (True, False, "staged")
    assert system.order() == [system.two, system.one]
    record = automatic_record.read()
    assert record and (record.staged, record.waiting_since) == (system.two, FACTS.now)
    assert record.prediction and record.prediction.commit == system.two
    again = run(system)
    assert (again.changed, again.details["outcome"]) == (False, "staged")
    assert automatic_record.read() == record


def test_an_update_is_live(system: System):
    configure(system, Policy.LIVE)
    result = run(system)
    assert (result.changed, result.live, result.next_boot) == (True, True, False)
    assert system.order() == [system.two, system.one]
    again = run(system)
    assert (again.changed, again.details["outcome"]) == (False, "current")
    assert automatic_record.read().waiting_since == 0


def test_the_caller_reboots_when_nothing_is_against_it(system: System, monkeypatch):
    configure(system, Policy.APPLY, before_reboot=("/bin/true",), after_reboot=("/bin/true",))
    monkeypatch.setattr(conditions, "read", lambda: replace(FACTS, users=("alice",)))
    result = run(system)
    assert (result.next_boot, result.details["outcome"]) == (False, "deferred")
    assert "alice" in result.details["reasons"][0]
    assert not automatic_record.REBOOTING.exists()
    monkeypatch.setattr(conditions, "read", lambda: FACTS)
    assert run(system).next_boot
    assert automatic_record.REBOOTING.exists()
    assert run(system, after_reboot=True).changed
    assert not automatic_record.REBOOTING.exists()


def test_a_command_can_say_no(system: System):
    configure(system, Policy.APPLY, before_reboot=("/bin/sh", "-c", "echo the lock is taken; exit 3"))
    result = run(system)
    assert not result.next_boot
    assert result.details["reasons"] == ["/bin/sh exited with 3: the lock is taken [BeforeReboot]"]


def test_the_command_after_a_reboot_is_run_until_it_succeeds(system: System):
    configure(system, after_reboot=("/bin/false",))
    automatic_record.REBOOTING.touch()
    with pytest.raises(ExternalFailure):
        run(system, after_reboot=True)
    assert automatic_record.REBOOTING.exists()


def test_the_policy_judges_each_step(system: System, monkeypatch):
    judged = []

    def require_open(tx):
        judged.append((tx.reach.preview, tx.reach.applies, tx.reach.reboots))
        if tx.reach.reboots:
            raise Refused("the window is closed")

    monkeypatch.setattr(automatic.policing, "require_open", require_open)
    configure(system, Policy.APPLY)
    result = run(system)
    assert (result.next_boot, result.details["reasons"]) == (False, ["the window is closed"])
    assert list(dict.fromkeys(judged)) == [(True, True, False), (False, True, False), (False, False, True)]
    assert system.order() == [system.two, system.one]


def test_a_failure_is_recorded_and_raised(system: System, monkeypatch):
    def fail(*_arguments, **_options):
        raise ExternalFailure("the disk is gone")

    real = automatic.deploy
    monkeypatch.setattr(automatic, "deploy", lambda tx, t, o: real(tx, t, o) if o.dry_run else fail())
    with pytest.raises(ExternalFailure, match="the disk is gone"):
        run(system)
    record = automatic_record.read()
    assert record and (record.outcome, record.attempts, record.failure) == ("failed", 1, "the disk is gone")
    assert run(system).details["outcome"] == "deferred"
    assert "tried again" in automatic_record.read().reasons[0]


def test_the_administrator_is_told_when_something_is_new(system: System, tmp_path):
    told = tmp_path / "told"
    configure(system, notify=("/bin/sh", "-c", f"cat >> {told}; echo >> {told}"))
    for _again in range(3):
        run(system)
    outcomes = [json.loads(line)["outcome"] for line in told.read_text().splitlines()]
    assert outcomes == ["staged"]


def test_users_are_told_at_login(system: System):
    run(system)
    assert "staged" in (motd._DIRECTORY / "apt-ostree").read_text()
    configure(system, motd=False)
    run(system)
    assert not (motd._DIRECTORY / "apt-ostree").exists()


def test_a_command_that_fails_only_warns(system: System):
    configure(system, notify=("/bin/false",))
    assert run(system).details["outcome"] == "staged"
    assert any("Notify=" in text for text in system.told("warning"))


def test_the_status_tells_what_the_deployment_would_mean(system: System, monkeypatch):
    monkeypatch.setattr(core_status.settings, "automatic_policy", lambda: "stage")
    run(system)
    found = core_status.status(Status()).automatic
    assert found and found.prediction and not found.prediction.refusals
    record = automatic_record.read()
    assert record
    automatic_record.write(replace(record, prediction=replace(found.prediction, commit="another")))
    found = core_status.status(Status()).automatic
    assert found and found.prediction is None


def test_a_prediction_that_fails_holds_nothing_up(system: System, monkeypatch):
    def fail(*_arguments, **_options):
        raise ExternalFailure("units cannot be read")

    monkeypatch.setattr(automatic, "plan_change", fail)
    assert run(system).details["outcome"] == "staged"
    assert any("units cannot be read" in text for text in system.told("warning"))


def test_the_status_tells_the_last_run(system: System, monkeypatch):
    monkeypatch.setattr(core_status.settings, "automatic_policy", lambda: "stage")
    automatic_record.write(Record(last_run=5.0, policy=Policy.STAGE, outcome="deferred", reasons=("why",)))
    found = core_status.status(Status()).automatic
    assert found and (found.policy, found.last_run, found.reasons) == ("stage", 5.0, ("why",))


@pytest.mark.parametrize(("text", "halted"), [("all\n", True), ("", False), (None, True)])
def test_a_file_on_the_update_server_halts_it(system: System, monkeypatch, text, halted):
    configure(system, halt="https://updates.example.com/halt")
    monkeypatch.setattr(conditions, "fetch", lambda _url: text)
    assert (run(system).details["outcome"] == "deferred") is halted
    assert (system.order() == [system.one]) is halted
