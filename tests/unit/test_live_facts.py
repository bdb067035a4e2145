"""What a live change is planned from: /etc and units as they are, health checks, and parts of deployments."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from apt_ostree.core import apply_live
from apt_ostree.core.build import layering
from apt_ostree.core.live import (
    etc_planning,
    etc_restore,
    health,
    subset,
    unit_files,
    unit_planning,
)
from apt_ostree.core.live.health import Acted
from apt_ostree.core.live.subset import Source
from apt_ostree.core.state import etc_trees
from apt_ostree.errors import ExternalFailure, Refused, UsageError
from apt_ostree.model import health as rules
from apt_ostree.model.etc_rules import OverlayEtc
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.generation import EtcRecord, ViewRecord
from apt_ostree.model.history import Intent
from apt_ostree.model.origin import Origin
from apt_ostree.model.package import PackageChange, PackageDiff
from apt_ostree.model.plan import EtcAction, RestartPolicy, UnitAction
from apt_ostree.model.requests.live import ApplyLive
from apt_ostree.model.requests.options import LiveOptions
from apt_ostree.model.selection import Selection
from apt_ostree.model.settings import Settings
from apt_ostree.model.treediff import flatten
from apt_ostree.model.unit import Process, Unit
from apt_ostree.model.unitchange import UnitChange, View, outdated
from apt_ostree.model.unitrules import Need
from apt_ostree.system import files, running, systemd
from apt_ostree.system.apt import choice
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.repo import Repo
from tests.unit import repos
from tests.unit.repos import System

UNIT = "ut-tool.service"
UNITS = "usr/lib/systemd/system"


# --- /etc


def planned(system: System, tree: dict[str, str]):
    """Plan what the way from the booted tree to another does to /etc."""
    repo = system.repo
    commit = repos.write_commit(repo, {**repos.KERNEL, **tree}, ref="etc")
    changes = tuple(flatten(diff.diff_commits(repo, system.one, commit)))
    return etc_planning.plan_etc(repo, changes, OverlayEtc())


def actions(plan) -> dict[str, EtcAction]:
    return {step.path: step.action for step in plan.steps}


def test_what_nobody_edited_follows_the_tree(system: System):
    plan = planned(
        system,
        {"usr/etc/ut/tool.conf": "new", "usr/etc/ut/more/a.conf": "a", "usr/etc/ut/link": "-> tool.conf"},
    )
    assert actions(plan) == dict.fromkeys(
        ("ut/tool.conf", "ut/link", "ut/more", "ut/more/a.conf"), EtcAction.WRITE
    )
    assert plan.states["ut/tool.conf"].content == b"new"
    assert plan.seen["ut/tool.conf"].content == b"one\n"
    assert plan.states["ut/link"].type == "symlink"
    order = [step.path for step in plan.steps]
    assert order.index("ut/more") < order.index("ut/more/a.conf")


def test_what_is_no_longer_shipped_goes_after_what_is_new(system: System):
    plan = planned(system, {"usr/etc/ut2/x": "x"})
    assert actions(plan) == {
        "ut2": EtcAction.WRITE, "ut2/x": EtcAction.WRITE,
        "ut/tool.conf": EtcAction.REMOVE, "ut": EtcAction.REMOVE,
    }  # fmt: skip
    assert [step.path for step in plan.steps][-2:] == ["ut/tool.conf", "ut"]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda conf: conf.write_text("mine"), "edited"),
        (lambda conf: conf.chmod(0o600), "edited"),
        (lambda conf: conf.unlink(), "removed it"),
    ],
)
def test_what_the_administrator_did_stays(system: System, edit, reason):
    edit(system.etc / "ut/tool.conf")
    plan = planned(system, {"usr/etc/ut/tool.conf": "new"})
    assert actions(plan) == {"ut/tool.conf": EtcAction.KEEP}
    assert reason in plan.steps[0].reason
    assert plan.changed == ()


def test_accounts_and_host_names_are_nobodys_configuration(system: System):
    plan = planned(system, {**repos.ONE, "usr/etc/passwd": "x", "usr/etc/hostname": "x"})
    assert plan.steps == ()


def test_a_directory_with_files_of_the_administrator_is_not_replaced(system: System):
    (system.etc / "ut/mine.conf").write_text("mine")
    plan = planned(system, {"usr/etc/ut": "a file now"})
    assert actions(plan)["ut"] is EtcAction.KEEP


def record(system: System, *rows: EtcRecord) -> int:
    with system.transaction() as tx:
        number = tx.records.begin(
            Intent("test", "me", system.one, system.two),
            deployment="x",
            view=ViewRecord(system.two, (), (), ()),
            etc=rows,
            units=(),
        )
        tx.records.keep(number)
        return number


def state(text: str) -> FileState:
    return FileState("file", 0o644, *repos.ME, text.encode())


def test_an_undo_gives_back_what_nobody_touched_since(system: System):
    (system.etc / "ut/new").write_text("new")
    (system.etc / "ut/new").chmod(0o644)
    (system.etc / "ut/edited").write_text("mine")
    rows = [
        EtcRecord("ut/new", ABSENT, state("new")),
        EtcRecord("ut/gone", state("old"), ABSENT),
        EtcRecord("ut/edited", state("old"), state("new")),
        EtcRecord("ut/running", ABSENT, None),  # an outside program did not come to it
    ]
    steps = {s.path: s.action for s in etc_restore.plan_restore(rows)}
    assert steps == {
        "ut/new": EtcAction.REMOVE, "ut/gone": EtcAction.WRITE, "ut/edited": EtcAction.KEEP,
    }  # fmt: skip
    with system.transaction() as tx:
        etc_restore.restore(tx, rows)
        etc_restore.restore(tx, rows)  # again, after an interruption
    assert not (system.etc / "ut/new").exists()
    assert (system.etc / "ut/gone").read_text() == "old"
    assert (system.etc / "ut/edited").read_text() == "mine"
    assert set(system.told("warning")) == {"kept /etc/ut/edited: it was changed after the update"}


def test_an_undo_works_on_the_etc_of_another_deployment(system: System, tmp_path):
    repos.write_files(tmp_path, {"ut/x": "new"})
    row = EtcRecord("ut/x", state("old"), files.read_state(tmp_path / "ut/x"))
    with system.transaction() as tx:
        etc_restore.restore(tx, [row], etc=tmp_path)
    assert (tmp_path / "ut/x").read_text() == "old"
    assert not (system.etc / "ut/x").exists()


def test_a_directory_that_is_in_use_by_now_stays(system: System):
    (system.etc / "ut/dir").mkdir()
    (system.etc / "ut/dir/mine").touch()
    made = FileState("directory", (system.etc / "ut/dir").stat().st_mode & 0o7777, *repos.ME)
    with system.transaction() as tx:
        etc_restore.restore(tx, [EtcRecord("ut/dir", state("a file"), made)])
    assert (system.etc / "ut/dir/mine").exists()
    assert system.told("warning")


def test_accounts_of_a_change_go_and_those_made_since_stay(system: System):
    before, added = "root:x:0:0::/:/bin/sh\n", "app:x:900:900::/:/bin/sh\n"
    passwd = system.etc / "passwd"
    passwd.write_text(f"{before}{added}me:x:1000:1000::/:/bin/sh\n")
    row = EtcRecord("passwd", state(before), state(before + added))
    with system.transaction() as tx:
        etc_restore.restore(tx, [row])
    assert passwd.read_text() == f"{before}me:x:1000:1000::/:/bin/sh\n"
    assert (system.etc / ".pwd.lock").exists()  # which useradd and passwd take, too


def test_what_is_left_alone_is_decided_once(system: System):
    conf = system.etc / "ut/tool.conf"
    one, two = files.read_state(conf), state("two")
    first = record(system, EtcRecord("ut/tool.conf", one, two))
    second = record(system, EtcRecord("ut/tool.conf", two, one))
    conf.write_text("mine")
    with system.transaction() as tx:
        generations = tx.live.generations
        etc_restore.leave_edited(tx, generations)
        assert tx.records.etc_records(first) == tx.records.etc_records(second) == ()
        conf.write_text("again")
        etc_restore.leave_edited(tx, generations)
    assert len(system.told("warning")) == 1


def test_states_without_overlays_are_those_of_before(system: System):
    with system.transaction() as tx:
        assert etc_trees.without_overlays(system.repo, tx.records, tx.live, system.two) == {}
    assert etc_trees.covered(system.repo, system.one, ()) == frozenset()


# --- unit files


def unit(system: System, name: str = UNIT, **properties: str) -> Unit:
    system.programs.add_unit(name, **properties)
    return Unit(name, dict(system.programs.units[name]))


def between(system: System, old: dict[str, str], new: dict[str, str], **options) -> UnitChange:
    """Return what lies between two trees, as far as units are concerned."""
    repo = system.repo
    first, second = (
        repos.write_commit(repo, {**repos.KERNEL, **t}, ref="u", packages=[]) for t in (old, new)
    )
    changes = tuple(flatten(diff.diff_commits(repo, first, second)))
    changed = PackageDiff(changed=(PackageChange("tool", "amd64", "1", "2"),))
    views = (View(0.0, outdated(diff.replaced(repo, first, second))),)
    return UnitChange(changed, second, changes, (), unit_files.states(repo, changes), views, **options)


def test_new_states_of_unit_files_by_their_paths(system: System):
    change = between(
        system,
        {f"{UNITS}/{UNIT}": "", f"{UNITS}/gone.service": "x", "usr/etc/systemd/system/a.timer": "1"},
        {f"{UNITS}/{UNIT}": "[Service]\nA=1\n", f"{UNITS}/new.service.d/x.conf": "y", "usr/bin/x": "x"},
    )  # fmt: skip
    assert {path: s.type for path, s in change.new_states.items()} == {
        f"/{UNITS}/{UNIT}": "file",
        f"/{UNITS}/gone.service": "absent",
        f"/{UNITS}/new.service.d/x.conf": "file",
        "/etc/systemd/system/a.timer": "absent",
    }
    only = unit_files.states(system.repo, change.changes, etc=())
    assert "/etc/systemd/system/a.timer" not in only


def test_a_definition_before_and_after(system: System):
    path = f"{UNITS}/{UNIT}"
    change = between(system, {path: "[Service]\nA=1\n"}, {path: "[Service]\nA=2\nExecStart=/bin/x\n"})
    _old, new, gone = unit_files.definitions(unit(system), change.new_states)
    assert not gone
    assert new is not None
    assert "/bin/x" in str(new)
    assert unit_files.definitions(unit(system, "ut-other.service"), change.new_states) == (None, None, False)


@pytest.mark.parametrize("new", [{}, {"usr/etc/systemd/system/ut-tool.service": "-> /dev/null"}])
def test_a_unit_without_a_file_or_masked_goes(system: System, new):
    change = between(system, {f"{UNITS}/{UNIT}": "[Service]\n"}, new)
    assert unit_files.definitions(unit(system), change.new_states)[2]
    assert unit_files.without_definition(system.repo, change.changes) == {UNIT}
    generated = unit(system, FragmentPath="/run/systemd/generator/x")
    assert unit_files.definitions(generated, change.new_states)[2] is False


def test_a_unit_of_an_init_script_goes_with_it(system: System):
    generated = unit(system, FragmentPath="/run/systemd/generator.late/ut-tool.service")
    script = f"/etc/init.d/{generated.name.removesuffix('.service')}"
    assert unit_files.definitions(generated, {script: ABSENT})[1:] == (None, True)
    assert unit_files.definitions(generated, {script: FileState("file")}) == (None, None, False)


def test_nothing_is_without_definition_where_no_unit_file_differs(system: System):
    change = between(system, {"usr/bin/x": "1"}, {"usr/bin/x": "2"})
    assert unit_files.without_definition(system.repo, change.changes) == frozenset()
    assert not system.programs.calls  # systemd is not even asked


# --- what happens to units


def steps(system: System, change: UnitChange, policy=RestartPolicy.NEEDED, **options):
    found = unit_planning.plan_units(system.repo, change, policy=policy, **options)
    return {step.unit: (step.action, step.acts) for step in found}


def test_a_unit_with_another_definition_is_restarted(system: System):
    unit(system)
    path = f"{UNITS}/{UNIT}"
    change = between(system, {path: "[Service]\nExecStart=/bin/a\n"}, {path: "[Service]\nExecStart=/bin/b\n"})
    assert steps(system, change) == {UNIT: (UnitAction.RESTART, True)}
    assert steps(system, change, RestartPolicy.NONE) == {UNIT: (UnitAction.RESTART, False)}
    assert steps(system, change, overrides={UNIT: Need.SKIP})[UNIT][0] is UnitAction.SKIP


def test_a_process_that_runs_old_code_is_found(system: System):
    unit(system)
    change = between(system, {"usr/bin/ut": "1"}, {"usr/bin/ut": "2"})
    system.processes = [
        Process(4_000_001, "ut", UNIT, frozenset({("/usr/bin/ut", 12345)})),
        Process(4_000_002, "other", "ut-other.service", frozenset({("/usr/bin/other", 1)})),
        Process(os.getpid(), "us", "ut-us.service", frozenset({("/usr/bin/ut", 12345)})),
    ]
    (step,) = unit_planning.plan_units(system.repo, change, policy=RestartPolicy.NEEDED)
    assert (step.unit, step.action, step.evidence) == (UNIT, UnitAction.RESTART, ("/usr/bin/ut",))
    assert step.processes == ("4000001 ut",)


def test_a_process_that_runs_the_new_file_already_is_left_alone(system: System):
    unit(system)
    change = between(system, {"usr/bin/ut": "1"}, {"usr/bin/ut": "2"})
    new = system.repo.inode(change.files["bin/ut"])
    system.processes = [Process(4_000_001, "ut", UNIT, frozenset({("/usr/bin/ut", new)}))]
    assert steps(system, change) == {}


def is_script_of_data(path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_mode & 0o111:
        return False
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def test_systemd_is_not_asked_about_data(system: System, monkeypatch):
    def asks(path: str, *changed: PackageChange) -> bool:
        system.programs.calls.clear()
        change = replace(between(system, {path: "1"}, {path: "2"}), packages=PackageDiff(changed=changed))
        assert steps(system, change) == {}
        return system.programs.ran("systemctl", "show")

    unit(system)
    monkeypatch.setattr(running, "is_a_view_kept", lambda: False)
    assert not asks("usr/lib/os-release")
    assert asks("usr/bin/env")  # executable
    script = next(p for p in Path("/usr/share").rglob("*") if is_script_of_data(p))
    assert asks(str(script).removeprefix("/"))  # ExecStart=/bin/sh SCRIPT
    assert asks("usr/lib/os-release", PackageChange("tool", "amd64", "1", "2"))
    assert asks("usr/lib/no-such-file")
    assert asks(f"{UNITS}/other.service")
    monkeypatch.setattr(running, "is_a_view_kept", lambda: True)
    assert asks("usr/lib/os-release")


def test_what_goes_is_stopped_whatever_the_policy(system: System):
    unit(system)
    change = between(system, {f"{UNITS}/{UNIT}": "[Service]\n"}, {})
    assert steps(system, change, RestartPolicy.NONE) == {UNIT: (UnitAction.STOP, True)}


def test_what_is_enabled_is_started_unless_the_policy_forbids_it(system: System, monkeypatch):
    unit(system, "multi-user.target", ActiveState="active")
    link = f"-> ../{UNIT}"
    change = between(system, {}, {f"{UNITS}/{UNIT}": "x", f"{UNITS}/multi-user.target.wants/{UNIT}": link})
    assert steps(system, change, RestartPolicy.NONE)[UNIT] == (UnitAction.START, True)
    monkeypatch.setattr(systemd, "is_allowed", lambda _unit, _action: False)
    assert steps(system, change, RestartPolicy.NONE)[UNIT] == (UnitAction.SKIP, False)


def test_nothing_is_asked_about_what_only_adds(system: System):
    change = between(system, {}, {"usr/bin/new": "1"})
    assert steps(system, change) == {}
    assert not any("--state" in " ".join(call) for call in system.programs.calls)


# --- health


def test_checks_are_those_of_the_new_tree_and_etc(system: System):
    repo = system.repo
    directory = "usr/lib/apt-ostree/health.d"
    tree = {f"{directory}/ut-a": "#!/bin/sh\n", f"{directory}/ut-README": "text", f"{directory}/ut-b": "#!/x"}
    target = repos.write_commit(repo, tree, ref="health")
    etc = {
        "apt-ostree/health.d/ut-b": FileState("symlink", 0o777, 0, 0, b"/dev/null"),
        "greenboot/check/wanted.d/ut-c": FileState("file", 0o755),
        "apt-ostree/health.d/ut-d": FileState("file", 0o644),
    }
    found = [path for path in health.checks(repo, target, etc) if "/ut-" in path]
    assert found == [f"/{directory}/ut-a", "/etc/greenboot/check/wanted.d/ut-c"]


def test_units_settle(system: System):
    found = {UNIT: unit(system)}
    began = time.monotonic()
    health.settle(Acted((UNIT,), found, began), Settings(settle=0.05))
    assert time.monotonic() - began >= 0.05
    health.settle(Acted((), {}, began), Settings())


def test_a_unit_is_watched_from_when_it_started(system: System):
    began = time.monotonic() - 100  # one that came before it in the transaction has taken its time
    unit(system, InactiveExitTimestampMonotonic=str(round(time.monotonic() * 1e6)))
    now = time.monotonic()
    health.settle(Acted((UNIT,), {}, began, new=True), Settings(settle=0.05))
    assert time.monotonic() - now >= 0.04


def test_all_units_in_trouble_are_found(system: System):
    for name, state in (("a", "failed"), ("b", "active"), ("c", "inactive"), ("d", "failed")):
        unit(system, f"ut-{name}.service", ActiveState=state)
    names = tuple(f"ut-{name}.service" for name in "abcd")
    acted = Acted(names, {}, time.monotonic(), new=True)
    assert sorted(dict(health.failures(acted, Settings(settle=0.05)))) == ["ut-a.service", "ut-d.service"]


@pytest.mark.parametrize("properties", [{"ActiveState": "failed"}, {"NRestarts": "3"}])
def test_a_unit_in_trouble_ends_it_at_once(system: System, properties):
    before = {UNIT: unit(system)}
    system.programs.units[UNIT] |= properties
    system.programs.results["journalctl"] = lambda _words: (0, "the last line\n")
    with pytest.raises(ExternalFailure, match=f"{UNIT} does not run properly") as caught:
        health.settle(Acted((UNIT,), before, time.monotonic()), Settings())
    assert caught.value.details == ("the last line",)


def test_a_unit_that_takes_too_long(system: System):
    unit(system, ActiveState="activating")
    with pytest.raises(ExternalFailure, match="still activating"):
        health.settle(Acted((UNIT,), {}, time.monotonic() - 1), Settings(unit_timeout=0.01))


CHECK = "/usr/lib/apt-ostree/health.d/ut-check"


@pytest.fixture(params=["required", "wanted"])
def failing_check(request, system: System, monkeypatch) -> str:
    """There is one check, which fails; return of which kind it is."""

    def in_force(directories, _programs):
        return (CHECK,) if any(request.param in name for name in directories) else ()

    monkeypatch.setattr(rules, "checks_in_force", in_force)
    system.programs.results[CHECK] = lambda _words: (1, "not well\n")
    return request.param


def test_required_checks_undo_and_wanted_ones_warn(system: System, failing_check):
    with system.transaction() as tx:
        if failing_check == "required":
            with pytest.raises(ExternalFailure, match=f"pass the health check {CHECK}") as caught:
                health.run_checks(tx, Settings())
            assert caught.value.details == ("not well",)
        else:
            health.run_checks(tx, Settings())
            assert ["not well" in text for text in system.told("warning")] == [True]


def test_files_that_the_image_itself_has_otherwise_are_right(system: System):
    repo = system.repo
    system.programs.results["dpkg"] = lambda _words: (1, "missing   /usr/share/nowhere/ut\n")
    packages = PackageDiff(changed=(PackageChange("tool", "amd64", "1", "2"),))
    with system.transaction() as tx:
        health.verify_packages(tx, system.two, packages)  # the tree does not have it either
        health.verify_packages(tx, system.two, PackageDiff())
    assert system.told() == ["1 files are as the image has them, not as their packages have them"]
    assert [call for call in system.programs.calls if call[0] == "/usr/bin/dpkg"] == [
        ["/usr/bin/dpkg", "--verify", "--", "tool:amd64"]
    ]
    target = repos.write_commit(repo, {**repos.TWO, "usr/share/nowhere/ut": "x"}, ref="w")
    with system.transaction() as tx, pytest.raises(ExternalFailure) as caught:
        health.verify_packages(tx, target, packages)
    assert caught.value.details == ("/usr/share/nowhere/ut",)


@pytest.mark.parametrize(
    "line",
    [
        "missing   /var/lib/ut/data",
        "??5??????   /var/lib/ut/data",
        "??5?????? c /etc/ut.conf",
        "missing     /etc/ut/not-a-conffile",
        "missing     /boot/vmlinuz-1",
        "missing     /opt/ut/program",
        "missing     /srv/ut",
    ],
)
def test_what_is_not_the_trees_is_not_verified(system: System, line: str):
    system.programs.results["dpkg"] = lambda _words: (1, f"{line}\n")
    packages = PackageDiff(changed=(PackageChange("tool", "amd64", "1", "2"),))
    with system.transaction() as tx:
        health.verify_packages(tx, system.two, packages)
    assert system.told() == []


# --- a part of what is pending


class Builder:
    """Stands for the build: gives a commit for what is wanted."""

    def __init__(self, commit: str) -> None:
        self.commit, self.goals, self.labels = commit, [], []

    @contextmanager
    def open(self, tx, start, sources) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(tx=tx, start=start, sources=sources, resolver=None)

    def install(self, _session, goal, label, *, replaces, ask):
        assert not ask and not replaces
        self.goals.append(goal)
        self.labels.append(label)
        return SimpleNamespace(commit=self.commit, delta={})


STATUS = """\
Package: base
Status: install ok installed
Version: 1
Architecture: all

Package: tool
Status: install ok installed
Version: {version}
Architecture: amd64
Depends: {depends}

"""
EXTRA = "Package: extra\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n"


def tree_of(repo: Repo, ref: str, status: str, packages: str, **files: str) -> str:
    tree = {**repos.ONE, "usr/lib/sysimage/dpkg/status": status, **files}
    return repos.write_commit(repo, tree, ref=ref, packages=repos.PACKAGES[packages])


@pytest.fixture
def selecting(system: System, monkeypatch) -> Builder:
    """A system with a pending deployment in which tool 2.0 needs extra."""
    repo = system.repo
    old = tree_of(repo, "old", STATUS.format(version="1.0", depends="base"), "one")
    new = tree_of(repo, "new", STATUS.format(version="2.0", depends="base, extra") + EXTRA, "two")
    with system.open() as machine:
        machine.stage(old, Origin("old"), machine.deployments().all[0])
        system.booted = machine.deployments().all[0].checksum
    with system.open() as machine:
        machine.stage(new, Origin("new"), machine.deployments().all[0])
    built = tree_of(
        repo, "built", STATUS.format(version="2.0", depends="base, extra") + EXTRA, "two", **{"usr/z": "z"}
    )
    builder = Builder(built)
    monkeypatch.setattr(layering, "opened", builder.open)
    monkeypatch.setattr(layering, "install", builder.install)
    monkeypatch.setattr(choice, "absent", lambda _resolver, _packages: [])
    monkeypatch.setattr(choice, "satisfies", lambda *_words: True)
    return builder


def select(system: System, *packages: str, **options):
    selection = Selection(packages, **options)
    request = ApplyLive(selection=selection, live=LiveOptions())
    return system.run(apply_live.apply_live, request)


def test_a_selected_package_comes_with_what_it_needs(system: System, selecting: Builder):
    result = select(system, "tool")
    assert result.live
    (goal,) = selecting.goals
    assert goal.install == ("tool:amd64=2.0",)
    assert goal.along == ("extra:all=1",)
    assert any("extra 1 is also changed" in text for text in system.told())
    (label,) = selecting.labels
    assert label.metadata["apt-ostree.selection"] == "--packages=tool"
    assert label.metadata["apt-ostree.selected-from"] == system.order()[0]
    assert result.details["selection"]["packages"] == ("tool",)


def test_what_does_not_differ_is_no_change(system: System, selecting: Builder):
    with pytest.raises(UsageError, match="does not change base"):
        select(system, "base")
    result = select(system, excluded=("tool", "extra"))
    assert (result.changed, selecting.goals) == (False, [])
    assert "The selected packages do not differ from those of the running system." in system.told()


@pytest.mark.parametrize(
    ("packages", "options", "message"),
    [
        (("tool=9",), {}, "names a version, but the pending deployment decides it"),
        (("tool",), {"excluded": ("tool",)}, "cannot be selected and excepted"),
        ((), {"excluded": ("other", "nosuch")}, "no package is named nosuch, other"),
    ],
)
def test_selections_that_cannot_be(system: System, selecting: Builder, packages, options, message):
    with pytest.raises(UsageError, match=message):
        select(system, *packages, **options)


def test_a_build_that_is_not_shown_is_removed_again(system: System, selecting: Builder):
    repo = system.repo
    repo.set_ref("built", None)
    with system.transaction() as tx:
        source = Source(tx.deployments.all[0].checksum, "the source")
        tx.tidy_at_end()  # as layering does
        with subset.built(tx, Selection(("tool",)), source) as commit:
            assert commit == selecting.commit
    assert not repo.has_commit(commit)


def test_packages_are_not_removed_by_the_way(system: System, selecting: Builder):
    repo = system.repo
    selecting.commit = repos.write_commit(
        repo, {**repos.ONE, "usr/y": "y"}, ref="less", packages=repos.PACKAGES["two"][1:]
    )
    with pytest.raises(Refused, match="would remove packages") as caught:
        select(system, "tool")
    assert caught.value.details == ("base 1",)
