"""A live change from its plan to its end, and back, on a real repository; mounts are a list."""

from __future__ import annotations

import dataclasses
import os

import pytest

from apt_ostree.core import apply_live
from apt_ostree.core.live import confirmation, engine, planning, rollback, undo
from apt_ostree.core.live.apply import Application
from apt_ostree.core.live.planning import Prepared
from apt_ostree.core.state import generations, opt, reserve
from apt_ostree.core.state.generations import Ending
from apt_ostree.errors import Cancelled, ExternalFailure, Incomplete, Refused, UsageError
from apt_ostree.model.generation import Phase
from apt_ostree.model.history import Outcome
from apt_ostree.model.origin import Origin
from apt_ostree.model.overlay import Goal
from apt_ostree.model.plan import RestartPolicy
from apt_ostree.model.requests.live import ApplyLive, Confirm, RollbackLive
from apt_ostree.model.requests.options import LiveOptions
from apt_ostree.model.selection import Selection
from apt_ostree.model.settings import Settings
from apt_ostree.model.sizes import Space
from apt_ostree.system import failpoints, process, space, statedb, systemd
from apt_ostree.system.ostree.gi_ostree import OSTree
from tests.unit import repos
from tests.unit.repos import System

REPLACING = LiveOptions(allow_replacement=True)
UNIT = "ut-tool.service"
UNIT_FILE = f"usr/lib/systemd/system/{UNIT}"
WITH_UNIT = {**repos.TWO, UNIT_FILE: "[Service]\nExecStart=/usr/bin/tool\n"}


def apply(system: System, commit: str | None = None, live: LiveOptions = REPLACING, **options):
    request = ApplyLive(target=commit or system.two, live=live, **options)
    return system.run(apply_live.apply_live, request)


def go_back(system: System, number: int | None = None, **options):
    return system.run(apply_live.rollback_live, RollbackLive(generation=number, **options))


def conf(system: System) -> str:
    return (system.etc / "ut/tool.conf").read_text()


def history(system: System) -> list[tuple[str, Outcome]]:
    with statedb.read_only() as records:
        return [(entry.verb, entry.outcome) for entry in records.history()] if records else []


def records_of(system: System) -> list[tuple[int, Phase]]:
    with statedb.read_only() as records:
        return [(g.id, g.phase) for g in records.generations()] if records else []


@pytest.fixture
def as_before(system: System):
    """See that the system is at the end what it was at the begin."""
    yield
    assert system.kernel.usr == []
    assert conf(system) == "one\n"
    assert records_of(system) == []
    assert system.repo.refs("apt-ostree/live") == {}


@pytest.fixture
def with_unit(system: System) -> str:
    """A service runs whose unit file and program the change replaces; return the commit."""
    system.programs.add_unit(UNIT)
    old = {**repos.ONE, UNIT_FILE: "[Service]\nExecStart=/usr/bin/old\n"}
    repo = system.repo
    with system.open() as machine:
        machine.stage(
            repos.write_commit(repo, old, ref="with-unit", packages=repos.PACKAGES["one"]),
            Origin(refspec="with-unit"),
            machine.deployments().all[0],
        )
        system.booted = machine.deployments().all[0].checksum
    return repos.write_commit(repo, WITH_UNIT, ref="with-unit-2", packages=repos.PACKAGES["two"])


# --- to its end


def test_a_change_shows_in_usr_and_in_etc(system: System):
    result = apply(system)
    assert (result.changed, result.live, result.details["generation"]) == (True, True, 1)
    assert system.kernel.sources() == ["apt-ostree:1"]
    assert conf(system) == "two\n"
    assert history(system) == [("apply-live", Outcome.LIVE)]
    assert records_of(system) == [(1, Phase.LIVE)]
    assert set(system.repo.refs("apt-ostree/live").values()) >= {system.two}
    layer, booted_usr = system.kernel.usr[0].lowers
    assert sorted(os.listdir(layer + "/share")) == ["new", "old"]  # a whiteout
    assert not os.path.isfile(layer + "/share/old")
    assert booted_usr.endswith("/usr")


def test_the_plan_is_shown_before_and_says_what_differs(system: System):
    result = apply(system)
    (plan,) = system.plans()
    assert plan == result.details["plan"]
    assert (plan["source"], plan["target"]) == (system.one, system.two)
    assert plan["files"] == {"added": 1, "removed": 1, "changed": 2}
    assert [(s["path"], s["action"]) for s in plan["etc"]] == [("ut/tool.conf", "write")]
    assert [p["name"] for p in plan["packages"]["added"]] == ["extra"]


def test_a_dry_run_touches_nothing(system: System, as_before):
    result = apply(system, dry_run=True)
    assert (result.changed, result.live) == (True, False)
    assert len(system.plans()) == 1
    assert history(system) == []


def test_the_same_commit_again_is_no_change(system: System):
    apply(system)
    result = apply(system)
    assert (result.changed, result.live) == (False, False)
    assert system.kernel.sources() == ["apt-ostree:1"]
    assert "shows this commit already" in system.told()[-1]


def test_the_pending_deployment_is_the_target_unless_one_is_named(system: System):
    with pytest.raises(Refused, match="no pending deployment"):
        system.run(apply_live.apply_live, ApplyLive(live=REPLACING))
    with system.open() as machine:
        machine.stage(system.two, Origin(refspec="two"), machine.deployments().all[0])
    assert system.run(apply_live.apply_live, ApplyLive(live=REPLACING)).details["commit"] == system.two


def test_a_commit_that_is_no_system_is_a_mistake(system: System):
    commit = repos.write_commit(system.repo, {"bin/x": "x"}, ref="strange")
    with pytest.raises(UsageError, match="is not a system's tree"):
        apply(system, commit)
    with pytest.raises(UsageError, match="no commit or ref"):
        apply(system, "nosuch")


@pytest.mark.parametrize(
    "options",
    [
        {"reset": True},
        {"selection": Selection(("tool",))},
        {"reset": True, "selection": Selection(security=True)},
    ],
)
def test_ways_to_choose_exclude_each_other(system: System, options):
    with pytest.raises(UsageError, match="exclude each other"):
        apply(system, **options)


def test_one_generation_follows_the_other(system: System):
    third = repos.write_commit(system.repo, {**repos.TWO, "usr/bin/third": "3"}, ref="three")
    apply(system)
    result = apply(system, third)
    assert result.details["generation"] == 2
    assert system.kernel.sources() == ["apt-ostree:2"]  # one mount alone
    assert records_of(system) == [(1, Phase.LIVE), (2, Phase.LIVE)]


# --- refused


def test_running_packages_are_not_replaced_unless_that_is_allowed(system: System, as_before):
    with pytest.raises(Refused, match="cannot be applied live") as caught:
        apply(system, live=LiveOptions())
    assert any("tool" in line for line in caught.value.details)
    assert "--allow-replacement" in str(caught.value.hint)
    assert len(system.plans()) == 1


def test_force_takes_risks(system: System):
    assert apply(system, live=LiveOptions(force=True)).live


def test_a_no_leaves_everything_alone(system: System, as_before):
    request = ApplyLive(target=system.two, live=REPLACING)
    with pytest.raises(Cancelled):
        system.run(apply_live.apply_live, request, ask=lambda: False)


def test_the_question_is_asked_about_the_plan(system: System):
    request = ApplyLive(target=system.two, live=REPLACING)
    assert system.run(apply_live.apply_live, request, ask=lambda: True).live
    assert len(system.plans()) == 1


def test_a_system_that_shuts_down_is_not_changed(system: System, as_before):
    system.programs.state = "stopping"
    with pytest.raises(Refused, match="shutting down"):
        apply(system)


def test_nothing_is_mounted_over_a_foreign_mount(system: System):
    apply(system)
    fd = system.kernel.new_overlay_mount(["/usr"], source="sysext", scratch=system.state)
    system.kernel.attach(fd, repos.USR)
    third = repos.write_commit(system.repo, {**repos.TWO, "usr/bin/third": "3"}, ref="three")
    with pytest.raises(Refused) as caught:
        apply(system, third)
    assert "something else is mounted over the live view" in repos.refused(caught.value)
    with pytest.raises(Refused, match="something else is mounted"):
        go_back(system)
    assert conf(system) == "two\n"


# --- undone


@pytest.mark.parametrize("point", ["journal.before", "journal.after", "switch.before", "act.switched",
                                   "etc.after-write", "verify.packages", "act.before-end"])  # fmt: skip
def test_a_failure_puts_everything_back(system: System, as_before, monkeypatch, point):
    repos.fail_at(monkeypatch, point)
    with pytest.raises(ExternalFailure):
        apply(system)
    outcomes = {outcome for _verb, outcome in history(system)}
    assert outcomes <= {Outcome.FAILED}


def test_an_edit_during_the_change_is_kept_and_ends_it(system: System, monkeypatch):
    switch = process.run

    def run(argv, **options):
        if "is-system-running" in argv:  # between the plan and the journal
            (system.etc / "ut/tool.conf").write_text("mine\n")
        return switch(argv, **options)

    monkeypatch.setattr(process, "run", run)
    with pytest.raises(Refused, match="edited while the change was being prepared") as caught:
        apply(system)
    assert caught.value.details == ("ut/tool.conf",)
    assert conf(system) == "mine\n"
    assert system.kernel.usr == []


def test_files_that_are_not_as_packaged_undo_it(system: System, as_before):
    system.programs.results["dpkg"] = lambda _words: (1, "??5??????   /usr/bin/tool\n")
    with pytest.raises(ExternalFailure, match="not as their packages have them") as caught:
        apply(system)
    assert caught.value.details == ("/usr/bin/tool",)


def test_configuration_files_of_packages_may_differ(system: System):
    system.programs.results["dpkg"] = lambda _words: (1, "??5?????? c /etc/ut/tool.conf\n")
    assert apply(system).live


def test_an_undo_that_fails_too_is_told(system: System, monkeypatch):
    def broken() -> None:
        raise ExternalFailure("systemd does not answer")

    monkeypatch.setattr(systemd, "daemon_reload", broken)
    system.programs.results["dpkg"] = lambda _words: (1, "??5??????   /usr/bin/tool\n")
    with pytest.raises(Incomplete, match="could not be undone completely") as caught:
        apply(system)
    assert "apt-ostree recover" in str(caught.value.hint)
    assert any("tried again" in text for text in system.told("warning"))
    assert records_of(system) == [(1, Phase.UNDOING)]  # and the next call goes on with it


# --- units


def test_units_are_restarted_and_watched(system: System, with_unit):
    system.settings = Settings(settle=0.01)
    live = LiveOptions(RestartPolicy.NEEDED, allow_replacement=True)
    apply(system, with_unit, live)
    (step,) = system.plans()[-1]["units"]
    assert (step["unit"], step["action"], step["acts"]) == (UNIT, "restart", True)
    assert system.programs.ran("systemctl", "daemon-reload")
    assert system.programs.ran("systemctl", "try-restart", UNIT)
    with statedb.read_only() as records:
        assert records
        assert [(r.unit, r.action, r.begun) for r in records.unit_records(1)] == [(UNIT, "restart", True)]


def test_units_are_left_alone_unless_asked(system: System, with_unit):
    apply(system, with_unit)
    (step,) = system.plans()[-1]["units"]
    assert (step["unit"], step["acts"]) == (UNIT, False)
    assert not system.programs.ran("systemctl", "try-restart")


@pytest.mark.parametrize("ends", [True, False])
def test_a_unit_with_a_job_is_waited_for_a_moment(system: System, with_unit, monkeypatch, ends: bool):
    looks = []

    def look(words: list[str]) -> tuple[int, str]:
        looks.append(words)
        system.programs.units[UNIT]["Job"] = "0" if ends and len(looks) > 20 else "7"
        return system.programs._systemctl(words)

    monkeypatch.setattr(planning, "_PATIENCE", 10.0 if ends else 0.05)
    monkeypatch.setattr(planning, "_INTERVAL", 0.01)
    system.programs.results["systemctl"] = look
    live = LiveOptions(RestartPolicy.NEEDED, allow_replacement=True)
    if ends:
        apply(system, with_unit, live)
    else:
        with pytest.raises(Refused) as caught:
            apply(system, with_unit, live)
        assert f"{UNIT} is waiting for a job; try again later" in caught.value.details
    assert "Waiting for units that are starting or stopping..." in system.told()


def test_a_unit_that_does_not_start_undoes_it_and_runs_its_old_code(system: System, with_unit):
    live = LiveOptions(RestartPolicy.NEEDED, allow_replacement=True)
    system.programs.failing.add(UNIT)
    booted = system.kernel.usr

    def restart(words: list[str]) -> tuple[int, str]:
        if "restart" in words and not booted:  # back on the old /usr it starts
            system.programs.failing.clear()
        return system.programs._systemctl(words)

    system.programs.results["systemctl"] = restart
    with pytest.raises(ExternalFailure, match=UNIT):
        apply(system, with_unit, live)
    assert system.kernel.usr == []
    assert system.programs.units[UNIT]["ActiveState"] == "active"
    assert records_of(system) == []


def test_a_unit_whose_old_code_does_not_run_either_is_named(system: System, with_unit):
    live = LiveOptions(RestartPolicy.NEEDED, allow_replacement=True)
    system.programs.failing.add(UNIT)
    with pytest.raises(Incomplete, match=f"the old versions of 1 units do not run: {UNIT}"):
        apply(system, with_unit, live)
    assert system.kernel.usr == []


# --- units that are new


NEW = "ut-new.service"


@pytest.fixture
def with_new_unit(system: System) -> str:
    """The change enables a service; return the commit."""
    system.settings = Settings(settle=0.01)
    system.programs.add_unit("multi-user.target")
    system.programs.units[NEW] = {"Id": NEW, "ActiveState": "inactive", "Type": "simple", "NRestarts": "0"}
    units = "usr/lib/systemd/system"
    tree = {f"{units}/{NEW}": "[Service]\n", f"{units}/multi-user.target.wants/{NEW}": f"-> ../{NEW}"}
    return repos.write_commit(system.repo, {**repos.TWO, **tree}, ref="new", packages=repos.PACKAGES["two"])


def begin_badly(system: System, **properties: str) -> None:
    """Have a start of the new unit succeed, and the unit be in this state right after it."""

    def start(words: list[str]) -> tuple[int, str]:
        done = system.programs._systemctl(words)
        if words[1] == "start" and NEW in words:
            system.programs.units[NEW] |= properties
        return done

    system.programs.results["systemctl"] = start


CRASHED = {"ActiveState": "failed", "Result": "exit-code"}
RESTARTING = {"ActiveState": "activating", "SubState": "auto-restart"}


def test_a_new_unit_is_started_and_watched(system: System, with_new_unit):
    assert apply(system, with_new_unit).details["failed_units"] == ()
    assert system.programs.ran("systemctl", "start", NEW)
    assert system.told("warning") == []


def test_a_new_unit_whose_condition_is_not_met_is_no_failure(system: System, with_new_unit):
    system.settings = Settings(settle=0.01, undo_if_new_unit_fails=True)
    begin_badly(system, ActiveState="inactive")
    assert apply(system, with_new_unit).details["failed_units"] == ()


@pytest.mark.parametrize("state", [CRASHED, RESTARTING])
def test_a_new_unit_that_does_not_run_is_kept_and_named(system: System, with_new_unit, state):
    begin_badly(system, **state)
    result = apply(system, with_new_unit)
    assert result.details["failed_units"] == (NEW,)
    assert any(f"{NEW} does not run properly" in text for text in system.told("warning"))
    assert history(system) == [("apply-live", Outcome.LIVE)]
    go_back(system)
    assert system.programs.ran("systemctl", "stop", NEW)
    assert system.programs.ran("systemctl", "reset-failed", NEW)


@pytest.mark.parametrize("state", [CRASHED, RESTARTING])
def test_a_new_unit_that_does_not_run_undoes_it_if_the_settings_say_so(
    system: System, with_new_unit, state, as_before
):
    system.settings = Settings(undo_if_new_unit_fails=True)
    begin_badly(system, **state)
    with pytest.raises(ExternalFailure, match=NEW):
        apply(system, with_new_unit)
    assert system.programs.ran("systemctl", "stop", NEW)


def test_a_new_unit_that_cannot_be_started_is_kept_and_named(system: System, with_new_unit):
    system.programs.failing.add(NEW)
    assert apply(system, with_new_unit).details["failed_units"] == (NEW,)
    assert any("could be started" in text for text in system.told("warning"))


def test_a_new_unit_that_cannot_be_started_undoes_it_if_the_settings_say_so(
    system: System, with_new_unit, as_before
):
    system.settings = Settings(undo_if_new_unit_fails=True)
    system.programs.failing.add(NEW)
    with pytest.raises(ExternalFailure, match=NEW):
        apply(system, with_new_unit)


def test_a_new_unit_that_needs_a_failed_one_is_named(system: System, with_new_unit):
    system.programs.results["systemctl"] = lambda words: (
        (1, "A dependency job failed.")
        if "start" in words and NEW in words
        else system.programs._systemctl(words)
    )
    assert apply(system, with_new_unit).details["failed_units"] == (NEW,)


# --- the units of a shutdown


def test_what_shutdown_needs_is_started_with_the_first_change(system: System):
    apply(system)
    assert system.programs.ran("systemctl", "start", "apt-ostree-live.service")


# --- health checks


@pytest.mark.parametrize("name", ["users", "directories", "libraries", "udev", "bus"])
def test_what_boot_would_do_is_done(system: System, name):
    files = {
        "users": ("usr/lib/sysusers.d/ut.conf", "systemd-sysusers"),
        "directories": ("usr/lib/tmpfiles.d/ut.conf", "systemd-tmpfiles"),
        "libraries": ("usr/lib/libut.so.1", "ldconfig"),
        "udev": ("usr/lib/udev/rules.d/99-ut.rules", "udevadm"),
        "bus": ("usr/share/dbus-1/system.d/ut.conf", "busctl"),
    }
    path, program = files[name]
    for unit in ("systemd-udevd.service", "dbus.service"):
        system.programs.add_unit(unit)
    commit = repos.write_commit(system.repo, {**repos.TWO, path: "x"}, ref=name)
    apply(system, commit)
    assert system.programs.ran(program)
    others = {other for _path, other in files.values()} - {program}
    assert not any(system.programs.ran(other) for other in others)


# --- back


def test_a_step_back_gives_everything_back(system: System, as_before):
    apply(system)
    result = go_back(system)
    assert (result.changed, result.live, result.details["commit"]) == (True, False, system.one)
    assert history(system)[0] == ("apply-live", Outcome.ROLLED_BACK)
    assert history(system)[1][1] is Outcome.DONE


def test_a_dry_step_back_changes_nothing(system: System):
    apply(system)
    assert go_back(system, dry_run=True).changed
    assert conf(system) == "two\n"
    assert system.kernel.sources() == ["apt-ostree:1"]
    plan = system.plans()[-1]
    assert (plan["source"], plan["target"]) == (system.two, system.one)
    assert [(s["path"], s["action"]) for s in plan["etc"]] == [("ut/tool.conf", "write")]


def test_a_step_back_to_a_generation_shows_it_again(system: System):
    third = repos.write_commit(
        system.repo, {**repos.TWO, "usr/etc/ut/tool.conf": "three\n"}, ref="three", packages=[]
    )
    apply(system)
    apply(system, third)
    assert conf(system) == "three\n"
    result = go_back(system)
    assert (result.live, result.details["generation"]) == (True, 1)
    assert conf(system) == "two\n"
    assert system.kernel.sources() == ["apt-ostree:1"]
    assert records_of(system) == [(1, Phase.LIVE)]


def test_back_to_where_it_is_is_no_change(system: System):
    apply(system)
    assert not go_back(system, 1).changed
    with pytest.raises(UsageError, match="generation 9 is not live"):
        go_back(system, 9)


def test_nothing_to_go_back_from(system: System):
    with pytest.raises(Refused, match="nothing was changed live"):
        go_back(system)


def test_reset_goes_back_to_the_booted_commit(system: System, as_before):
    apply(system)
    apply(system, repos.write_commit(system.repo, {**repos.TWO, "usr/x": "3"}, ref="three"))
    result = system.run(apply_live.apply_live, ApplyLive(reset=True))
    assert (result.changed, result.live) == (True, False)


def test_reset_of_a_system_without_changes(system: System, as_before):
    result = system.run(apply_live.apply_live, ApplyLive(reset=True))
    assert not result.changed
    assert result.details == {"commit": system.one}


def test_an_edit_since_the_change_is_kept_on_the_way_back(system: System):
    apply(system)
    (system.etc / "ut/tool.conf").write_text("mine\n")
    go_back(system)
    assert conf(system) == "mine\n"
    assert any("kept /etc/ut/tool.conf" in text for text in system.told("warning"))
    assert [s["action"] for s in system.plans()[-1]["etc"]] == ["keep"]


def test_a_restarted_unit_is_restarted_on_the_way_back(system: System, with_unit):
    system.settings = Settings(settle=0.01)
    apply(system, with_unit, LiveOptions(RestartPolicy.NEEDED, allow_replacement=True))
    system.programs.calls.clear()
    go_back(system)
    assert system.programs.ran("systemctl", "restart", UNIT)


def test_what_was_written_into_an_unlocked_usr_since_is_not_lost(system: System):
    with system.transaction() as tx:
        goal = dataclasses.replace(Goal(system.two, system.two), unlock="development")
        change = engine.plan(tx, goal, REPLACING)
        engine.carry_out(tx, change, REPLACING)
        (generation,) = tx.live.generations
        upper = generation.uppers[0]
    assert system.kernel.usr[-1].upper[0] == upper  # type: ignore[index]
    go_back(system, dry_run=True)
    with open(upper + "/mine", "w") as file:
        file.write("x")
    os.makedirs(upper + "/share/__pycache__")  # copied up, and nobody's
    with pytest.raises(Refused, match="1 paths were edited in the unlocked /usr") as caught:
        go_back(system)
    assert caught.value.details == (upper + "/mine",)


# --- interrupted


def interrupt(system: System, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    """Have a change end at a point as a killed worker does: nothing is undone."""
    with monkeypatch.context() as patch:
        patch.setattr(undo, "finish_undo", lambda *_: None)
        repos.fail_at(patch, point)
        with pytest.raises(ExternalFailure):
            apply(system)
    system.events.clear()


@pytest.mark.parametrize("point", ["journal.after", "switch.before", "act.switched", "act.before-end"])
def test_what_was_interrupted_is_undone_by_the_next_call(system: System, as_before, monkeypatch, point):
    interrupt(system, monkeypatch, point)
    assert records_of(system) == [(1, Phase.ACTING)]
    with system.transaction() as tx:
        assert undo.recover_interrupted(tx)
        assert not undo.recover_interrupted(tx)
    assert history(system) == [("apply-live", Outcome.INTERRUPTED)]


def test_a_dry_run_does_not_clear_up(system: System, monkeypatch):
    interrupt(system, monkeypatch, "act.switched")
    with pytest.raises(Refused, match="was interrupted") as caught:
        apply(system, dry_run=True)
    assert "apt-ostree recover" in str(caught.value.hint)


def test_a_change_after_an_interrupted_one(system: System, monkeypatch):
    interrupt(system, monkeypatch, "act.switched")
    assert apply(system).details["generation"] == 2
    assert conf(system) == "two\n"
    assert system.kernel.sources() == ["apt-ostree:2"]


def test_an_interrupted_step_back_is_finished(system: System, as_before, monkeypatch):
    apply(system)
    with monkeypatch.context() as patch:
        repos.fail_at(patch, "undo.restarted", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            go_back(system)
    assert records_of(system) == [(1, Phase.UNDOING)]
    with system.transaction() as tx:
        assert undo.recover_interrupted(tx)
    assert history(system)[0][1] is Outcome.ROLLED_BACK


def test_an_undo_that_is_repeated_does_no_harm(system: System, as_before):
    apply(system)
    with system.transaction() as tx:
        going = tx.live.generations
        for _ in range(2):
            undo.undo(tx, going, Ending(Outcome.ROLLED_BACK, "twice"))
            tx.reread()
        generations.reclaim(tx.sysroot, tx.records)


# --- its parts


def test_the_journal_is_whole_before_anything_changes(system: System):
    with system.transaction() as tx:
        change = planning.plan_change(tx, Goal(system.two, system.two), REPLACING)
        application = Application(tx, change, Prepared((system.two,), (), (), None), REPLACING)
        application.undo(Refused("before it began"))  # nothing is begun, so nothing is undone
        assert tx.records.generations() == ()
        application.begin()
        (generation,) = tx.records.generations()
        assert (generation.id, generation.phase) == (application.generation, Phase.ACTING)
        (row,) = tx.records.etc_records(generation.id)
        assert (row.path, row.before.content) == ("ut/tool.conf", b"one\n")
        assert row.after is not None
        assert row.after.content == b"two\n"
        assert (
            tx.sysroot.repo.refs("apt-ostree/live")[f"apt-ostree/live/{generation.id}/target"] == system.two
        )
        assert system.kernel.usr == []
        assert conf(system) == "one\n"
        application.undo(Refused("it failed"))
        assert tx.records.generations() == ()
    assert history(system) == [("test", Outcome.FAILED)]


def test_a_step_back_to_the_booted_tree_needs_a_change(system: System, as_before):
    for dry_run, changed in ((True, True), (False, True), (False, False)):
        if changed and not system.kernel.usr:
            apply(system)
        with system.transaction("reset") as tx:
            result = rollback.step_back_to_booted(tx, RestartPolicy.NONE, dry_run=dry_run)
        assert result.changed == changed


# --- planning


def test_the_running_kernels_modules_stay(system: System, monkeypatch):
    running = os.uname().release
    commit = repos.write_commit(system.repo, {**repos.TWO, f"usr/lib/modules/{running}/new": "x"}, ref="k")
    with system.transaction() as tx:
        change = planning.plan_change(tx, Goal(commit, commit), REPLACING)
        assert change.view_diff is not None
        back = planning.plan_change(tx, Goal(system.one, system.one), REPLACING)
    assert back.view_diff is None
    assert back.changes == ()
    assert change.plan.target == commit


def test_at_boot_units_are_left_alone(system: System, with_unit):
    with system.transaction() as tx:
        options = LiveOptions(RestartPolicy.ALL, allow_replacement=True)
        assert planning.plan_change(tx, Goal(with_unit, with_unit), options).plan.units
        assert not planning.plan_change(tx, Goal(with_unit, with_unit), options, at_boot=True).plan.units


def test_a_deployment_that_is_a_hotfix_has_no_live_changes(system: System):
    (system.place / "unlocked").write_text("hotfix")
    with pytest.raises(Refused) as caught:
        apply(system)
    assert any("hotfix" in line for line in caught.value.details)


# --- older generations


def made_live(system: System, count: int, *, keep: int) -> None:
    """Show another commit so many times, alternately; `keep` generations stay."""
    system.settings = dataclasses.replace(system.settings, keep_generations=keep)
    trees = ({**repos.ONE, "usr/etc/ut/more": "more\n"}, repos.TWO)
    for number in range(count):
        tree = {**trees[number % 2], "usr/share/number": str(number)}
        apply(system, repos.write_commit(system.repo, tree, ref=f"number{number}", packages=[]))
        system.repo.set_ref(f"number{number}", None)


def live_refs(system: System) -> set[str]:
    return {ref.split("/")[2] for ref in system.repo.refs("apt-ostree/live")} - {"parts"}


def test_older_generations_are_forgotten(system: System, as_before):
    made_live(system, 5, keep=2)
    assert [number for number, _phase in records_of(system)] == [4, 5]
    assert live_refs(system) == {"4", "5"}
    assert [outcome for _verb, outcome in history(system)[:3]] == [Outcome.FORGOTTEN] * 3
    with pytest.raises(UsageError, match="generation 3 was forgotten") as caught:
        go_back(system, 3)
    assert "there are 0, 4, 5" in str(caught.value.hint)
    assert "KeepGenerations" in str(caught.value.hint)
    go_back(system)
    assert (usr_shows(system), conf(system)) == (4, "two\n")
    go_back(system, 0)
    assert conf(system) == "one\n"
    assert not (system.etc / "ut/more").exists()


def usr_shows(system: System) -> int:
    return int(system.kernel.usr[-1].source.rpartition(":")[2])


def test_forgotten_commits_and_layers_leave_the_disk(system: System):
    made_live(system, 2, keep=1)
    objects = system.repo.handle.list_objects(OSTree.RepoListObjectsFlags.LOOSE, None)[1]
    made_live(system, 6, keep=1)
    again = system.repo.handle.list_objects(OSTree.RepoListObjectsFlags.LOOSE, None)[1]
    assert len(objects) == len(again)
    with system.open() as machine:
        assert len(list(generations.layers_dir(machine).iterdir())) == 1


def test_an_unconfirmed_generation_can_be_undone_alone(system: System):
    made_live(system, 1, keep=1)
    apply(system, live=dataclasses.replace(REPLACING, confirm_within=3600.0))
    assert [number for number, _phase in records_of(system)] == [1, 2]
    system.run(confirmation.confirm, Confirm())
    made_live(system, 1, keep=1)
    assert [number for number, _phase in records_of(system)] == [3]


@pytest.mark.parametrize("point", ["generations.before-fold", "generations.folded"])
def test_what_is_not_forgotten_now_is_forgotten_later(system: System, as_before, monkeypatch, point: str):
    made_live(system, 2, keep=2)
    with monkeypatch.context() as patch:
        repos.fail_at(patch, point)
        made_live(system, 1, keep=2)
    assert any("kept for now" in text for text in system.told("warning"))
    assert conf(system) == "one\n"
    apply(system)
    assert [number for number, _phase in records_of(system)] == [3, 4]
    assert live_refs(system) == {"3", "4"}
    go_back(system, 0)


# --- /opt


@pytest.mark.parametrize("live", [REPLACING, dataclasses.replace(REPLACING, force=True)])
def test_a_directory_in_opt_needs_its_place(system: System, as_before, tmp_path, monkeypatch, live):
    monkeypatch.setattr(opt, "PLACE", tmp_path)
    tree = {**repos.ONE, "usr/lib/opt/fx/data": "x"}
    commit = repos.write_commit(system.repo, tree, ref="opt", packages=repos.PACKAGES["one"])
    (tmp_path / "fx").mkdir()
    with pytest.raises(Refused) as caught:
        apply(system, commit, live)
    assert "/opt/fx" in repos.refused(caught.value)
    (tmp_path / "fx").rmdir()
    assert apply(system, commit, live).live
    (tmp_path / "fx").mkdir()  # the change has no part in it
    tree = {**tree, "usr/lib/opt/fx/data": "y"}
    commit = repos.write_commit(system.repo, tree, ref="opt", packages=repos.PACKAGES["one"])
    assert apply(system, commit, live).live
    go_back(system, 0)


# --- space that is set aside


def test_packages_can_be_removed_while_root_has_space(system: System, as_before, monkeypatch):
    fewer = repos.write_commit(system.repo, repos.TWO, ref="fewer", packages=repos.PACKAGES["one"][:1])
    with monkeypatch.context() as patch:
        patch.setattr(space, "of", lambda _path: Space(0, 100_000_000, None))
        with pytest.raises(Refused) as caught:
            apply(system)
        assert any("free" in reason for reason in caught.value.details)
        assert apply(system, fewer).live
    go_back(system)


def test_an_undo_has_space_on_a_full_disk(system: System, as_before, monkeypatch):
    apply(system)
    with system.open() as machine:
        path = machine.state_dir / "reserve"
    size = path.stat().st_size
    assert size
    with system.transaction() as tx:
        assert not reserve.release(tx.sysroot)  # the disk is not full

    def failpoint(name: str) -> None:
        assert path.exists() != name.startswith(("undo.", "withdraw.", "etc."))

    with monkeypatch.context() as patch:
        patch.setattr(space, "of", lambda _path: Space(0, size - 1, None))
        repos.patch_everywhere(patch, failpoints.failpoint, failpoint)
        go_back(system)
        assert not path.exists()
    path.touch()  # by a program that was killed before it had taken the space
    apply(system)
    assert path.stat().st_blocks * 512 >= size
    go_back(system)
