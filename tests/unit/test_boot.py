"""Boot, shutdown and deadlines: live state ends, overlays persist, /etc is given back."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from apt_ostree import boot as program
from apt_ostree.core import apply_live
from apt_ostree.core.boot import moments, overlays_at_boot, resume
from apt_ostree.core.live import confirmation, undo
from apt_ostree.core.overlays import stack, usroverlay
from apt_ostree.core.state import generations, overlay_store
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import layout
from apt_ostree.model.generation import Phase
from apt_ostree.model.history import Intent, Outcome
from apt_ostree.model.notes import Note
from apt_ostree.model.origin import Origin
from apt_ostree.model.overlay import EditAction, Persistence, Transition
from apt_ostree.model.overlay_edit import DefinitionEdit, PathEdit
from apt_ostree.model.requests.live import ApplyLive, Moment, Recover
from apt_ostree.model.requests.options import LiveOptions
from apt_ostree.model.requests.overlays import EditOverlay
from apt_ostree.system import failpoints, openfiles, running, statedb, usrview
from apt_ostree.system.ostree import damage, overlay_repo
from tests.unit import repos
from tests.unit.repos import System

REPLACING = LiveOptions(allow_replacement=True)


def recover(system: System, at: Moment = Moment.CALL) -> bool:
    return system.run(moments.recover, Recover(at=at)).changed


def apply(system: System, **options) -> None:
    live = LiveOptions(allow_replacement=True, **options)
    system.run(apply_live.apply_live, ApplyLive(target=system.two, live=live))


def conf(system: System) -> Path:
    return system.etc / "ut/tool.conf"


def outcomes(system: System) -> list[Outcome]:
    with statedb.read_only() as records:
        return [entry.outcome for entry in records.history()] if records else []


def add(
    system: System, tmp_path: Path, path: str = "/usr/share/ut/file", text: str = "mine", **options
) -> None:
    """Add a file to an overlay."""
    source = tmp_path / "source"
    source.write_text(text)
    with openfiles.opened(source) as file:
        owner = repos.ME if path.startswith("/etc/") else None
        edits = (PathEdit(action=EditAction.ADD, path=path, source=file, owner=owner),)
        system.run(usroverlay.usroverlay, EditOverlay(edits=edits, **options))


def boot(system: System, monkeypatch: pytest.MonkeyPatch, *, succeeds: bool = True) -> None:
    """Shut down and boot, up to where services have started."""
    recover(system, Moment.SHUTDOWN)
    recover(system, Moment.FINALIZED)
    power_cut(system, monkeypatch)
    if succeeds:
        recover(system, Moment.BOOTED)


def power_cut(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boot without a shutdown before."""
    system.reboot(monkeypatch)
    system.events.clear()
    recover(system, Moment.BOOT)


# --- without live state


@pytest.mark.parametrize(
    "moment", [moment for moment in Moment if moment not in (Moment.STATE, Moment.CONFIGURE)]
)
def test_where_nothing_was_live_there_is_nothing_to_recover(system: System, moment):
    assert recover(system, moment) is False
    assert system.told() == ["Nothing to recover."]
    assert not list(system.state.iterdir())


# --- the live state of a boot


def test_live_state_ends_with_its_boot(system: System, monkeypatch):
    apply(system)
    boot(system, monkeypatch)
    assert conf(system).read_text() == "one\n"
    assert outcomes(system) == [Outcome.ENDED]
    assert system.kernel.usr == []
    assert not statedb.MARKER.exists()
    assert not system.repo.refs("apt-ostree/live")
    with system.open() as machine:
        assert not any((machine.state_dir / "layers").iterdir())


def test_the_shutdown_gives_etc_back_for_the_merge(system: System):
    apply(system)
    recover(system, Moment.SHUTDOWN)
    assert conf(system).read_text() == "one\n"
    assert system.kernel.sources() == ["apt-ostree:1"]  # services still run on it


def test_an_edit_of_the_administrator_survives(system: System, monkeypatch):
    apply(system)
    conf(system).write_text("mine\n")
    boot(system, monkeypatch)
    assert conf(system).read_text() == "mine\n"


def test_after_a_power_cut_etc_is_given_back_at_boot(system: System, monkeypatch):
    apply(system)
    power_cut(system, monkeypatch)
    assert conf(system).read_text() == "one\n"
    assert outcomes(system) == [Outcome.ENDED]


def test_after_a_shutdown_what_was_edited_before_the_boot_is_left_alone(system: System, monkeypatch):
    apply(system)
    recover(system, Moment.SHUTDOWN)
    conf(system).write_text("two\n")  # by a rescue system, say
    power_cut(system, monkeypatch)
    assert conf(system).read_text() == "two\n"


def test_a_power_cut_in_the_middle_of_a_change(system: System, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(undo, "finish_undo", lambda *_: None)
        repos.fail_at(patch, "act.switched")
        with pytest.raises(ExternalFailure):
            apply(system)
    assert conf(system).read_text() == "two\n"
    power_cut(system, monkeypatch)
    assert conf(system).read_text() == "one\n"
    assert outcomes(system) == [Outcome.INTERRUPTED]


def test_another_deployment_may_have_been_booted_since(system: System, monkeypatch):
    apply(system)
    with system.open() as machine:
        machine.stage(system.two, Origin("two"), machine.deployments().all[0])
        old_etc = machine.directory(machine.deployments().all[1]) / "etc"
    repos.write_files(old_etc, {"ut/tool.conf": "two\n"})  # the disk's, which was changed live
    conf(system).write_text("of the new deployment\n")
    system.booted = system.two
    power_cut(system, monkeypatch)
    assert (old_etc / "ut/tool.conf").read_text() == "one\n"
    assert conf(system).read_text() == "of the new deployment\n"


def test_a_soft_reboot_keeps_the_mounts_and_ends_them(system: System):
    apply(system)
    recover(system, Moment.SHUTDOWN)
    recover(system, Moment.BOOT)  # the same boot id
    assert system.kernel.usr == []
    assert outcomes(system) == [Outcome.ENDED]
    assert any("soft-rebooted: its live changes end" in text for text in system.told())


def test_what_the_administrator_removed_stays_removed(system: System, monkeypatch):
    tree = {**repos.TWO, "usr/etc/ut/new.conf": "new\n"}
    commit = repos.write_commit(system.repo, tree, ref="three", packages=[])
    system.run(apply_live.apply_live, ApplyLive(target=commit, live=REPLACING))
    (system.etc / "ut/new.conf").unlink()
    recover(system, Moment.SHUTDOWN)
    with system.open() as machine:  # the merge brings it back into the next deployment
        machine.stage(commit, Origin("three"), machine.deployments().all[0])
        place = machine.directory(machine.deployments().all[0])
    assert (place / "etc/ut/new.conf").read_text() == "new\n"
    assert (place / "etc/ut/tool.conf").read_text() == "two\n"
    recover(system, Moment.FINALIZED)
    assert not (place / "etc/ut/new.conf").exists()
    assert (place / "etc/ut/tool.conf").exists()


# --- a deadline


@pytest.fixture
def clock(monkeypatch):
    """The clock that deadlines are told by; a test sets it forward."""
    began, ahead = time.monotonic(), [0.0]
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + ahead[0])
    assert time.monotonic() >= began
    return ahead


def test_an_unconfirmed_change_is_undone_in_time(system: System, clock):
    apply(system, confirm_within=60)
    assert recover(system, Moment.DEADLINE) is False  # too early: the timer is set again
    timers = [call for call in system.programs.calls if call[0] == "systemd-run"]
    assert len(timers) == 2
    clock[0] = 61
    assert recover(system, Moment.DEADLINE)
    assert outcomes(system) == [Outcome.UNCONFIRMED]
    assert conf(system).read_text() == "one\n"
    assert system.kernel.usr == []


def test_what_came_after_an_unconfirmed_change_goes_with_it(system: System, clock):
    third = repos.write_commit(system.repo, {**repos.TWO, "usr/x": "3"}, ref="three", packages=[])
    apply(system, confirm_within=60)
    system.run(apply_live.apply_live, ApplyLive(target=third, live=REPLACING))
    clock[0] = 61
    with system.transaction() as tx:
        assert confirmation.expire(tx)
    assert outcomes(system) == [Outcome.UNCONFIRMED, Outcome.UNCONFIRMED]


def test_the_pending_deployment_of_an_unconfirmed_change_goes_too(system: System, clock):
    apply(system, confirm_within=60)
    with system.open() as machine:
        machine.stage(system.two, Origin("two"), machine.deployments().all[0])
    clock[0] = 61
    recover(system, Moment.DEADLINE)
    assert system.order() == [system.one]
    assert any("pending deployment with the same content was dropped" in text for text in system.told())


def test_a_deadline_clears_up_what_was_interrupted(system: System):
    apply(system)
    with system.transaction() as tx:
        tx.records.set_phase(1, Phase.UNDOING)
    assert recover(system, Moment.DEADLINE)
    assert recover(system) is False


# --- overlays


def test_overlays_persist(system: System, tmp_path, monkeypatch):
    add(system, tmp_path, name="x", create=True)
    add(system, tmp_path, "/etc/ut/mine.conf", name="x")
    boot(system, monkeypatch)
    assert system.visible_overlays() == ["system/x"]
    assert (system.etc / "ut/mine.conf").read_text() == "mine"
    assert not any(words[:2] == ["systemctl", "stop"] for words in system.programs.calls)
    with system.transaction() as tx:
        assert tx.live.first == tx.live.numbers[0]
    boot(system, monkeypatch)
    assert system.visible_overlays() == ["system/x"]


def test_nothing_is_shown_twice(system: System, tmp_path, monkeypatch):
    add(system, tmp_path, name="x", create=True)
    boot(system, monkeypatch)
    with system.transaction() as tx:
        before = tx.live.numbers
        overlays_at_boot.show_overlays(tx)
        tx.reread()
        assert tx.live.numbers == before


def test_a_disabled_overlay_is_not_shown(system: System, tmp_path, monkeypatch):
    add(system, tmp_path, name="x", create=True)
    system.run(usroverlay.usroverlay, EditOverlay(name="x", enable=False))
    boot(system, monkeypatch)
    assert system.visible_overlays() == []
    assert system.overlay_states().keys() == {"system/x"}


def test_temporary_overlays_end_and_hybrid_ones_lose_their_temporary_paths(
    system: System, tmp_path, monkeypatch
):
    temporary = DefinitionEdit(persistence=Persistence.TEMPORARY)
    hybrid = DefinitionEdit(persistence=Persistence.HYBRID, persists=("/usr/share/ut/kept*",))
    add(system, tmp_path, "/usr/share/ut/t", name="temporary", create=True, definition=temporary)
    add(system, tmp_path, "/usr/share/ut/kept", name="hybrid", create=True, definition=hybrid)
    add(system, tmp_path, "/usr/share/ut/lost", name="hybrid")
    commit = system.overlay_states()["system/temporary"].commit
    boot(system, monkeypatch)
    assert system.overlay_states().keys() == {"system/hybrid"}
    nodes = overlay_repo.read(system.repo, system.overlay_states()["system/hybrid"].commit)
    assert {p for p, n in nodes.items() if n.kind == "file"} == {"share/ut/kept"}
    assert "Overlay system/temporary was temporary and is removed." in system.told()
    assert "Overlay system/hybrid loses its temporary paths." in system.told()
    assert overlay_store.is_overlay_commit(system.repo, commit)  # and can be had again
    boot(system, monkeypatch)
    assert not any("lost" in text for text in system.told())


def test_units_of_overlays_are_started_with_the_boot(system: System, tmp_path, monkeypatch):
    add(system, tmp_path, "/usr/lib/systemd/system/ut-mine.service", name="x", create=True)
    system.programs.calls.clear()
    boot(system, monkeypatch)
    assert system.programs.ran("systemctl", "start", "--no-block", "default.target")


def test_a_new_overlay_is_suspected_when_the_boot_fails(system: System, tmp_path, monkeypatch):
    add(system, tmp_path, name="proven", create=True)
    boot(system, monkeypatch)
    add(system, tmp_path, "/usr/share/ut/new", name="new", create=True)
    boot(system, monkeypatch, succeeds=False)
    assert system.visible_overlays() == ["system/new", "system/proven"]
    power_cut(system, monkeypatch)
    assert system.visible_overlays() == ["system/proven"]
    assert any("system/new is disabled: the last boot" in text for text in system.told("warning"))
    assert not system.overlay_states()["system/new"].enabled


def test_a_proven_overlay_is_suspected_after_three_failures(system: System, tmp_path, monkeypatch):
    add(system, tmp_path, name="x", create=True)
    boot(system, monkeypatch)
    for count in range(4):
        assert system.visible_overlays() == ["system/x"], count
        power_cut(system, monkeypatch)
    assert system.visible_overlays() == []


def test_an_overlay_that_cannot_be_shown_does_not_keep_the_others(system: System, tmp_path, monkeypatch):
    add(system, tmp_path, name="good", create=True)
    add(system, tmp_path, "/usr/share/ut/bad", "another text", name="bad", create=True)
    nodes = overlay_repo.read(system.repo, system.overlay_states()["system/bad"].commit)
    damage.discard(system.repo, [f"{nodes['share/ut/bad'].checksum}.file"])
    with system.transaction() as tx:  # else it is shown from its checkout
        generations.remove_layers_but(tx.sysroot, ())
    boot(system, monkeypatch)
    assert any("cannot be shown again" in text for text in system.told("warning"))
    assert system.visible_overlays() == ["system/good"]
    assert any("system/bad is disabled:" in text for text in system.told("warning"))


def test_what_the_last_boot_showed_is_not_checked_again(system: System, tmp_path, monkeypatch):
    for name in ("one", "two"):
        add(system, tmp_path, f"/usr/share/ut/{name}", name=name, create=True)
    boot(system, monkeypatch)
    checked: list[str] = []
    check = stack.refuse_breaches
    monkeypatch.setattr(
        stack, "refuse_breaches", lambda *given: (checked.append(given[1].name), check(*given))
    )
    boot(system, monkeypatch)
    assert system.visible_overlays() == ["system/one", "system/two"]
    assert checked == []
    with system.transaction() as tx:
        tx.records.move([Transition("system/one", system.overlay_states()["system/one"], None)])
    boot(system, monkeypatch)
    assert (system.visible_overlays(), checked) == (["system/two"], [])


def test_success_is_noted_with_what_was_shown(system: System, tmp_path):
    add(system, tmp_path, name="x", create=True)
    with system.transaction() as tx:
        overlays_at_boot.note_success(tx.records)
        state = system.overlay_states()["system/x"]
        assert json.loads(tx.records.note(Note.PROVEN) or "") == [[state.id, state.commit]]


# --- packages that the machine configures


def test_a_package_is_not_configured_where_it_was_or_where_its_files_are(system: System):
    tree = next(system.place.glob("ostree/deploy/*/deploy/*.0"))
    manifest = json.dumps({"here": ["/etc/pass*"], "done": ["/etc/ut/removed-by-its-owner"]})
    repos.write_files(tree, {layout.DEFERRED: manifest})
    record = system.etc / "apt-ostree/configured.json"
    repos.write_files(system.etc, {"apt-ostree/configured.json": json.dumps({"done": [], "earlier": ["/x"]})})
    assert recover(system, Moment.CONFIGURE) is False
    assert not system.programs.calls
    assert record.read_text() == manifest


# --- a boot that begins as the last one did


def shut_down(system: System, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Shut down, and come to where the next boot shows overlays."""
    recover(system, Moment.SHUTDOWN)
    system.reboot(monkeypatch)
    with system.open(writable=False) as machine:
        (booted,) = [d for d in machine.deployments().all if d.checksum == system.booted]
        monkeypatch.setattr(resume, "_ROOT", machine.directory(booted))
    monkeypatch.setattr(resume, "_SCRATCH", tmp_path)


def generations_of(system: System) -> list[tuple[int, Phase, bool]]:
    with statedb.read_only() as records:
        assert records
        return [(g.id, g.phase, g.boot_id == running.boot_id()) for g in records.generations()]


def test_the_next_boot_shows_the_same_again(system: System, tmp_path, monkeypatch):
    add(system, tmp_path, name="x", create=True)
    add(system, tmp_path, path="/usr/share/ut/other", name="x")
    before = system.kernel.usr[-1]
    for count in range(3):  # nothing but the first one is prepared by a shutdown of its own
        shut_down(system, monkeypatch, tmp_path)
        assert resume.resumed(), count
        assert system.kernel.usr[-1].lowers == before.lowers
        (number, phase, is_new) = generations_of(system)[-1]
        assert (phase, is_new, system.kernel.sources()) == (Phase.LIVE, True, [f"apt-ostree:{number}"])
        assert len(generations_of(system)) == 1
        recover(system, Moment.BOOTED)
    assert outcomes(system)[-4:] == [Outcome.ENDED, Outcome.ENDED, Outcome.ENDED, Outcome.LIVE]
    assert system.visible_overlays() == ["system/x"]
    system.run(usroverlay.usroverlay, EditOverlay(name="x", enable=False))  # the engine knows it
    assert system.visible_overlays() == []


def _disable(system: System) -> None:
    system.run(usroverlay.usroverlay, EditOverlay(name="x", enable=False))


def _make_temporary(system: System) -> None:
    temporary = DefinitionEdit(persistence=Persistence.TEMPORARY)
    system.run(usroverlay.usroverlay, EditOverlay(name="x", definition=temporary))


@pytest.mark.parametrize("change", [apply, _disable, _make_temporary])
@pytest.mark.parametrize("is_orderly", [True, False])
def test_a_boot_that_is_another_one_is_looked_at(system: System, tmp_path, monkeypatch, change, is_orderly):
    add(system, tmp_path, name="x", create=True)
    shut_down(system, monkeypatch, tmp_path)
    assert resume.resumed()
    recover(system, Moment.BOOTED)
    change(system)
    if is_orderly:
        shut_down(system, monkeypatch, tmp_path)
    else:
        system.reboot(monkeypatch)
    assert not resume.resumed()
    assert system.kernel.usr == []


@pytest.mark.parametrize("path", ["/etc/ut/mine.conf", "/usr/lib/systemd/system/x.service"])
def test_a_boot_with_more_to_do_than_to_mount_is_not_prepared(system: System, tmp_path, monkeypatch, path):
    add(system, tmp_path, path=path, text="[Service]\nExecStart=/bin/true\n", name="x", create=True)
    shut_down(system, monkeypatch, tmp_path)
    assert not resume.resumed()


def test_a_boot_after_one_that_failed_is_looked_at(system: System, tmp_path, monkeypatch):
    add(system, tmp_path, name="x", create=True)
    shut_down(system, monkeypatch, tmp_path)
    assert resume.resumed()
    system.reboot(monkeypatch)
    assert not resume.resumed()
    recover(system, Moment.BOOT)
    assert not system.overlay_states()["system/x"].enabled or system.visible_overlays() == ["system/x"]


@pytest.mark.parametrize("text", ["{", "[]", "[1]", '["x", []]', "[1, null]"])
def test_a_note_of_another_version_leaves_the_boot_to_the_others(system: System, monkeypatch, text):
    became: list[tuple[str, ...]] = []
    with system.transaction() as tx:
        tx.records.log(Intent("test", "root", system.one, system.one))
        tx.records.set_note(Note.PREPARED, text)
    monkeypatch.setattr(os, "execv", lambda _path, words: became.append(words))
    program.main()
    assert became == [("/usr/bin/apt-ostree", "recover", "--at=boot")]


def test_another_deployment_is_looked_at(system: System, tmp_path, monkeypatch):
    add(system, tmp_path, name="x", create=True)
    shut_down(system, monkeypatch, tmp_path)
    monkeypatch.setattr(resume, "_ROOT", tmp_path)
    assert not resume.resumed()


def test_a_view_that_cannot_be_mounted_leaves_the_boot_to_the_others(system: System, tmp_path, monkeypatch):
    add(system, tmp_path, name="x", create=True)
    shut_down(system, monkeypatch, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(usrview, "show", failing)
        assert not resume.resumed()
    assert (generations_of(system), system.kernel.usr) == ([], [])
    recover(system, Moment.BOOT)
    assert system.visible_overlays() == ["system/x"]


def failing(*_arguments: object, **_options: object) -> None:
    raise OSError("no")


class Killed(BaseException):
    """A process that ends at once."""


@pytest.mark.parametrize("place", ["resume.recorded", "switch.before", "switch.after", "resume.shown"])
@pytest.mark.parametrize("is_same_boot", [True, False])
def test_a_boot_that_is_killed_while_it_shows_the_same_again(
    system: System, tmp_path, monkeypatch, place, is_same_boot
):
    def kill(name: str) -> None:
        if name == place:
            raise Killed

    add(system, tmp_path, name="x", create=True)
    recover(system, Moment.BOOTED)  # else it is suspected
    shut_down(system, monkeypatch, tmp_path)
    with monkeypatch.context() as patch:
        repos.patch_everywhere(patch, failpoints.failpoint, kill)
        with pytest.raises(Killed):
            resume.resumed()
    if is_same_boot:  # systemd was told to start the unit again
        recover(system, Moment.BOOT)
    else:
        system.reboot(monkeypatch)
        assert not resume.resumed()
        recover(system, Moment.BOOT)
    assert system.visible_overlays() == ["system/x"]
    assert len(system.kernel.usr) == 1
    assert {phase for _number, phase, _is_new in generations_of(system)} == {Phase.LIVE}
    assert not [outcome for outcome in outcomes(system) if outcome is Outcome.ACTING]
