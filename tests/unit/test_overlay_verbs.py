"""Overlay verbs on a system: what they make of the record, of refs, of what is shown, and how it is told."""

from __future__ import annotations

import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from apt_ostree.core import apply_live
from apt_ostree.core.overlays import keeping, listing, repair, session, unlock, usroverlay
from apt_ostree.core.state import overlay_store
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, NotAuthorized, Refused, UsageError
from apt_ostree.model.notes import Note
from apt_ostree.model.origin import Origin
from apt_ostree.model.overlay import EditAction, Scope, UnlockMode
from apt_ostree.model.overlay_edit import DefinitionEdit, PathEdit
from apt_ostree.model.queries import (
    OverlayContents,
    OverlayHistory,
    OverlayNames,
    OverlayPaths,
    Overlays,
)
from apt_ostree.model.requests.live import ApplyLive, RollbackLive
from apt_ostree.model.requests.options import LiveOptions
from apt_ostree.model.requests.overlays import (
    EditOverlay,
    OverlayBackup,
    OverlayCheck,
    OverlayCleanup,
    OverlayRestore,
    Unlock,
    UnlockDiscard,
    UnlockSave,
)
from apt_ostree.system import openfiles, running
from apt_ostree.system.ostree import damage, overlay_repo
from tests.unit import repos
from tests.unit.repos import System

CONF, FILE = "/etc/ut/mine.conf", "/usr/share/ut/file"


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "source"
    path.write_text("mine")
    return path


def edit(system: System, source: Path | None = None, path: str = FILE, **options):
    """Run the verb usroverlay, with a file that is added if there is a source."""
    if source is None:
        return system.run(usroverlay.usroverlay, EditOverlay(**options))
    with openfiles.opened(source) as file:
        edits = (PathEdit(action=EditAction.ADD, path=path, source=file, owner=repos.ME),)
        return system.run(usroverlay.usroverlay, EditOverlay(edits=edits, **options))


@pytest.fixture
def one(system: System, source: Path) -> System:
    """An overlay x with one file shows."""
    edit(system, source, name="x", create=True)
    return system


def upper(system: System) -> Path:
    """Return the upper directory of the view that is shown."""
    view = system.kernel.usr[-1]
    assert view.upper
    return Path(view.upper[0])


# --- usroverlay


def test_a_new_overlay_shows_at_once(one: System):
    (state,) = one.overlay_states().values()
    assert (state.id, state.enabled, state.boot_id) == ("system/x", True, running.boot_id())
    assert one.visible_overlays() == ["system/x"]
    assert one.kernel.sources() == ["apt-ostree:1"]
    layer = Path(one.kernel.usr[0].lowers[0])
    assert (layer / "share/ut/file").read_text() == "mine"
    assert set(one.repo.refs(overlay_store.REFS)) == {"apt-ostree/overlay/system/x"}


def test_a_file_of_etc_is_written_and_given_back(system: System, source: Path):
    edit(system, source, CONF, name="x", create=True)
    assert (system.etc / "ut/mine.conf").read_text() == "mine"
    edit(system, name="x", enable=False)
    assert not (system.etc / "ut/mine.conf").exists()
    assert (system.etc / "ut/tool.conf").exists()
    assert system.visible_overlays() == []


def test_an_overlay_grows_and_shrinks(one: System, source: Path):
    edit(one, source, "/usr/share/ut/more")
    first = one.overlay_states()["system/x"].commit
    second = one.repo.ancestry(first)[1]
    assert first != second
    assert one.told()[0] == "Detection:"
    assert "Working on overlay system/x." in one.told()
    drop = PathEdit(action=EditAction.DROP, path=FILE)
    one.run(usroverlay.usroverlay, EditOverlay(name="x", edits=(drop,)))
    nodes = overlay_repo.read(one.repo, one.overlay_states()["system/x"].commit)
    assert {p for p, n in nodes.items() if n.kind == "file"} == {"share/ut/more"}


def test_the_same_again_is_no_change(one: System, source: Path):
    before = one.overlay_states()
    result = edit(one, source, name="x")
    assert not result.changed
    assert one.told()[-1] == "No change."
    assert one.overlay_states() == before


def test_a_dry_run_changes_nothing(system: System, source: Path):
    result = edit(system, source, name="x", create=True, dry_run=True)
    assert (result.changed, result.live) == (True, False)
    assert system.overlay_states() == {}
    assert system.kernel.usr == []
    assert len(system.plans()) == 1


def test_an_empty_overlay_changes_the_record_alone(system: System):
    result = edit(system, name="x", create=True)
    assert (result.changed, result.live) == (True, False)
    assert system.told() == ["Overlay system/x was made."]
    assert system.kernel.usr == []
    edit(system, name="x", definition=DefinitionEdit(priority=7))
    assert system.told()[-1] == "Overlay system/x was changed."
    edit(system, name="x", remove=True)
    assert system.told()[-1] == "Overlay system/x was removed."
    assert system.overlay_states() == {}


def test_an_overlay_is_removed_and_can_be_had_again(one: System):
    commit = one.overlay_states()["system/x"].commit
    edit(one, name="x", remove=True)
    assert one.overlay_states() == {}
    assert one.visible_overlays() == []
    one.run(keeping.restore, OverlayRestore(commit=commit))
    assert one.visible_overlays() == ["system/x"]


def test_an_overlay_gets_another_name(one: System):
    edit(one, name="x", rename="y")
    assert one.overlay_states().keys() == {"system/y"}
    assert one.visible_overlays() == ["system/y"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "nosuch"}, UsageError, "there is no overlay 'nosuch'"),
        ({"name": "x", "create": True}, UsageError, "there is an overlay system/x already"),
        ({"name": "Bad Name", "create": True}, UsageError, "cannot be the name"),
        (
            {"name": "y", "create": True, "definition": DefinitionEdit(scope=Scope.GLOBAL)},
            UsageError,
            "are part of the image",
        ),
        (
            {
                "name": "y",
                "create": True,
                "definition": DefinitionEdit(scope=Scope.USER, user="no-such-user"),
            },
            UsageError,
            "no user 'no-such-user'",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(one: System, options, error, message):
    before = one.overlay_states()
    with pytest.raises(error, match=message):
        edit(one, **options)
    assert one.overlay_states() == before


def test_a_step_back_takes_the_overlay_with_it(one: System):
    commit = one.overlay_states()["system/x"].commit
    one.run(apply_live.rollback_live, RollbackLive())
    assert one.overlay_states() == {}
    assert one.repo.refs(overlay_store.UNDONE) == {"apt-ostree/undone/system/x": commit}


def test_overlays_stay_over_another_base(one: System):
    one.run(apply_live.apply_live, ApplyLive(target=one.two, live=LiveOptions(allow_replacement=True)))
    assert one.visible_overlays() == ["system/x"]
    with one.transaction() as tx:
        assert tx.live.base == one.two
        assert tx.live.commit not in (one.one, one.two)
    one.run(apply_live.apply_live, ApplyLive(reset=True))
    with one.transaction() as tx:
        assert tx.live.base == one.one
        assert [applied.id for applied in tx.live.goal.overlays] == ["system/x"]


def test_a_failure_leaves_no_overlay(system: System, source: Path, monkeypatch):
    repos.fail_at(monkeypatch, "act.switched")
    with pytest.raises(ExternalFailure):
        edit(system, source, name="x", create=True)
    assert system.overlay_states() == {}
    assert system.repo.refs(overlay_store.REFS) == {}
    assert system.kernel.usr == []


def test_overlays_have_room_together(system: System, source: Path):
    system.settings = replace(system.settings, overlay_quota=10)
    edit(system, source, name="x", create=True)
    source.write_text("x" * 11)
    with pytest.raises(Refused, match="Quota= of apt-ostree") as caught:
        edit(system, source, "/usr/share/ut/large", name="x")
    assert "--cleanup" in str(caught.value.hint)
    edit(system, name="x", remove=True)
    assert system.overlay_states() == {}


def test_the_scanner_has_the_last_word(system: System, source: Path):
    system.settings = replace(system.settings, overlay_scanner=("ut-scanner", "--strict"))
    system.programs.results["ut-scanner"] = lambda _words: (1, "a virus\n")
    with pytest.raises(Refused, match="the scanner ut-scanner does not accept overlay system/x") as caught:
        edit(system, source, name="x", create=True)
    assert caught.value.details == ("a virus",)
    assert system.kernel.usr == []
    system.programs.results["ut-scanner"] = lambda words: (0, "") if Path(words[-1]).is_dir() else (1, "")
    edit(system, source, name="x", create=True)
    system.programs.calls.clear()
    edit(system, source, "/usr/share/ut/y", name="y", create=True)
    scanned = [call for call in system.programs.calls if call[0] == "ut-scanner"]
    assert len(scanned) == 1  # what is shown already has been scanned


def test_an_overlay_of_the_image_is_switched_and_not_changed(system: System, source: Path):
    files = {"usr/lib/apt-ostree/overlays/web/usr/share/ut/page": "page"}
    commit = repos.write_commit(system.repo, {**repos.ONE, **files}, ref="shipped", packages=[])
    with system.open() as machine:
        machine.stage(commit, Origin("shipped"), machine.deployments().all[0])
        system.booted = machine.deployments().all[0].checksum
    with pytest.raises(Refused, match="belongs to the image") as caught:
        edit(system, source, name="web")
    assert "inherits" in str(caught.value.hint)
    edit(system, name="web", enable=True)
    assert system.visible_overlays() == ["global/web"]


# --- the session


def test_the_last_overlay_is_remembered(one: System, source: Path):
    with one.transaction() as tx:
        assert tx.records.note(Note.LAST_OVERLAY) == "system/x"
    edit(one, name="x", remove=True)
    with one.transaction() as tx:
        assert tx.records.note(Note.LAST_OVERLAY) is None


def test_refs_that_a_killed_call_did_not_write_are_written(one: System):
    repo = one.repo
    repo.set_ref("apt-ostree/overlay/system/x", None)
    with session.opened(Transaction(one.events.append, "test"), "test") as opened:
        assert opened.overlays.keys() == {"system/x"}
    assert repo.refs(overlay_store.REFS)


# --- keeping


def test_a_backup_brings_an_overlay_back_with_its_history(one: System, source: Path):
    edit(one, source, "/usr/share/ut/more", name="x")
    history = one.repo.ancestry(one.overlay_states()["system/x"].commit)
    result = one.run(keeping.backup, OverlayBackup())
    assert result.details["overlays"] == ["system/x"]
    assert not result.changed
    edit(one, name="x", remove=True)
    one.run(apply_live.apply_live, ApplyLive(reset=True))
    for ref in one.repo.refs("apt-ostree"):
        one.repo.set_ref(ref, None)
    with one.open() as machine:
        machine.cleanup(thorough=True)
    assert not one.repo.has_commit(history[0])
    with openfiles.opened(keeping.BACKUP_DIRECTORY) as place:
        one.run(keeping.restore, OverlayRestore(backup=place))  # our own place needs no signature
    assert one.visible_overlays() == ["system/x"]
    assert one.repo.ancestry(one.overlay_states()["system/x"].commit)[1:] == history


def test_a_backup_in_a_file_is_not_trusted_unless_told_so(one: System, tmp_path):
    with openfiles.created(tmp_path / "all.ovl") as file:
        one.run(keeping.backup, OverlayBackup(name="x", destination=file))
        openfiles.put(file)
    edit(one, name="x", remove=True)
    with openfiles.opened(tmp_path / "all.ovl") as file:
        with pytest.raises(Refused, match="no valid signature") as caught:
            one.run(keeping.restore, OverlayRestore(backup=file))
        assert "--allow-unsigned" in str(caught.value.hint)
        with pytest.raises(UsageError, match="has no overlay other") as unknown:
            one.run(keeping.restore, OverlayRestore(backup=file, name="other", allow_unsigned=True))
        assert unknown.value.hint == "it has system/x"
        one.run(keeping.restore, OverlayRestore(backup=file, name="x", allow_unsigned=True))
    assert one.visible_overlays() == ["system/x"]


def test_a_backup_in_a_directory(one: System, tmp_path):
    place = tmp_path / "backup"
    place.mkdir()
    with openfiles.opened(place) as directory:
        one.run(keeping.backup, OverlayBackup(destination=directory))
    assert (place / "objects").is_dir()


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    """Write a tar file with members of these names and types."""
    with tarfile.open(path, "w") as archive:
        for name, kind in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    return path


@pytest.mark.parametrize(
    "member",
    [
        ("repo/link", tarfile.SYMTYPE),
        ("repo/link", tarfile.LNKTYPE),
        ("repo/device", tarfile.CHRTYPE),
        ("/tmp/ut-outside", tarfile.REGTYPE),
        ("repo/../../ut-outside", tarfile.REGTYPE),
    ],
)
def test_a_hostile_backup_is_not_unpacked(one: System, tmp_path, member):
    path = tar(tmp_path / "hostile", ("repo", tarfile.DIRTYPE), member)
    with openfiles.opened(path) as file, pytest.raises(Refused, match="holds more than files"):
        one.run(keeping.restore, OverlayRestore(backup=file, allow_unsigned=True))
    assert not Path("/tmp/ut-outside").exists()


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.write_text("no backup")])
def test_what_is_no_backup_is_a_mistake(one: System, tmp_path, make):
    place = tmp_path / "strange"
    make(place)
    with openfiles.opened(place) as file, pytest.raises(UsageError, match="backup"):
        one.run(keeping.restore, OverlayRestore(backup=file, allow_unsigned=True))


def test_there_is_nothing_to_back_up(system: System):
    with pytest.raises(Refused, match="there are no overlays"):
        system.run(keeping.backup, OverlayBackup())
    with pytest.raises(UsageError, match="no overlay 'x'"):
        system.run(keeping.backup, OverlayBackup(name="x"))


def test_a_strangers_commit_is_not_restored(one: System):
    with pytest.raises(UsageError, match="is not of an overlay of this machine"):
        one.run(keeping.restore, OverlayRestore(commit=one.two))
    with pytest.raises(UsageError, match="no commit or ref"):
        one.run(keeping.restore, OverlayRestore(commit="nosuch"))


def test_an_earlier_commit_is_restored_under_another_name(one: System, source: Path):
    first = one.overlay_states()["system/x"].commit
    edit(one, source, "/usr/share/ut/more", name="x")
    one.run(keeping.restore, OverlayRestore(commit=first, name="old"))
    found = overlay_repo.read(one.repo, one.overlay_states()["system/old"].commit)
    assert "share/ut/more" not in found
    assert one.overlay_states().keys() == {"system/x", "system/old"}


def test_cleanup_removes_what_is_not_enabled_and_condemned(one: System, source: Path):
    edit(one, source, "/usr/share/ut/y", name="y", create=True)
    edit(one, name="y", enable=False)
    nothing = one.run(keeping.cleanup, OverlayCleanup())
    assert (nothing.changed, nothing.details) == (False, {"overlays": []})
    dry = one.run(keeping.cleanup, OverlayCleanup(keep=0, dry_run=True))
    assert dry.details == {"overlays": ["system/y"]}
    assert one.told()[-1] == "Overlay system/y would be removed."
    result = one.run(keeping.cleanup, OverlayCleanup(larger_than=3, archive=True))
    assert result.details == {"overlays": ["system/y"]}
    assert one.overlay_states().keys() == {"system/x"}
    assert not one.repo.refs(overlay_store.UNDONE)
    assert (keeping.BACKUP_DIRECTORY / "objects").is_dir()  # archived first


# --- listing


def test_overlays_are_listed_from_the_topmost_on(one: System, source: Path):
    edit(one, source, "/usr/share/ut/y", name="y", create=True, definition=DefinitionEdit(priority=90))
    edit(one, name="x", enable=False)
    first, second = listing.overlays(Overlays())
    assert (first["id"], first["shown"], first["last"], first["files"]) == ("system/y", True, False, 1)
    assert (second["id"], second["enabled"], second["shown"], second["last"]) == (
        "system/x",
        False,
        False,
        True,
    )
    assert second["bytes"] == 4
    assert listing.overlay_names(OverlayNames()) == ["x", "y"]


def test_the_paths_of_an_overlay_are_told(one: System, source: Path):
    edit(one, source, "/usr/share/old", name="x")
    hide = PathEdit(action=EditAction.REMOVE_FILE, path="/usr/bin/tool", when="true")
    one.run(usroverlay.usroverlay, EditOverlay(name="x", edits=(hide,), live=LiveOptions(force=True)))
    found = listing.overlay_contents(OverlayContents(name="x"))
    assert {row["path"]: row["kind"] for row in found["paths"]} == {
        "/usr/bin/tool": "removed",
        "/usr/share/old": "modified",
        "/usr/share/ut": "added",
        FILE: "added",
    }
    assert next(row["when"] for row in found["paths"] if row["path"] == "/usr/bin/tool") == "true"
    rows = {row["path"]: row for row in listing.overlay_paths(OverlayPaths())}
    assert rows["/usr/share/old"]["hides"] == ["the base"]
    assert rows[FILE] == {"path": FILE, "overlay": "system/x", "kind": "added", "hides": []}


def test_who_hides_whom_is_told(one: System, source: Path):
    edit(one, source, FILE, name="top", create=True, definition=DefinitionEdit(priority=90))
    (row,) = listing.overlay_paths(OverlayPaths())
    assert (row["overlay"], row["hides"], row["kind"]) == ("system/top", ["system/x"], "modified")


def test_the_history_of_an_overlay_has_what_was_undone(one: System, source: Path):
    edit(one, source, "/usr/share/ut/more", name="x")
    undone = one.overlay_states()["system/x"].commit
    one.run(apply_live.rollback_live, RollbackLive())
    first, second = listing.overlay_history(OverlayHistory(name="x"))
    assert (second["commit"], second["note"]) == (undone, "undone")
    assert first["note"] == ""
    assert "add /usr/share/ut/file" in first["subject"]


def test_without_overlays_there_is_nothing_to_tell(system: System):
    assert listing.overlays(Overlays()) == []
    assert listing.overlay_paths(OverlayPaths()) == []
    assert listing.overlay_names(OverlayNames()) == []
    with pytest.raises(UsageError, match="which overlay is meant"):
        listing.overlay_contents(OverlayContents())


def test_overlays_are_roots_alone_but_for_their_names(system: System, monkeypatch):
    def refuse(what: str) -> None:
        raise NotAuthorized(f"cannot {what}")

    monkeypatch.setattr(listing, "require_root", refuse)
    with pytest.raises(NotAuthorized, match="cannot read the overlays"):
        listing.overlays(Overlays())
    assert listing.overlay_names(OverlayNames()) == []


def test_a_damaged_overlay_is_listed_without_what_cannot_be_known(one: System):
    damage.discard(one.repo, [f"{one.overlay_states()['system/x'].commit}.commit"])
    (row,) = listing.overlays(Overlays())
    assert (row["id"], row["files"], row["bytes"]) == ("system/x", None, None)


# --- repair


def objects(system: System) -> dict[str, str]:
    """Return the file object of the overlay's file, and its commit."""
    commit = system.overlay_states()["system/x"].commit
    node = overlay_repo.read(system.repo, commit)["share/ut/file"]
    return {"file": f"{node.checksum}.file", "commit": f"{commit}.commit"}


def test_sound_overlays_are_left_alone(one: System):
    result = one.run(repair.check, OverlayCheck())
    assert (result.changed, result.details) == (False, {"damaged": {}, "view": []})
    assert "1 overlays are undamaged." in one.told()


def test_a_dry_check_tells_and_repairs_nothing(one: System):
    lost = objects(one)["file"]
    damage.discard(one.repo, [lost])
    result = one.run(repair.check, OverlayCheck(dry_run=True))
    assert result.changed
    assert result.details == {"damaged": {"system/x": [lost]}, "view": [lost]}
    assert not damage.is_sound(one.repo, lost)
    assert any("1 objects are missing or damaged" in text for text in one.told("warning"))


@pytest.mark.parametrize("kind", ["file", "commit"])
def test_damage_is_repaired_from_the_backup(one: System, kind):
    one.run(keeping.backup, OverlayBackup())
    lost = objects(one)[kind]
    damage.discard(one.repo, [lost])
    one.run(repair.check, OverlayCheck())
    assert damage.is_sound(one.repo, lost)
    assert one.visible_overlays() == ["system/x"]
    assert not one.run(repair.check, OverlayCheck()).details["damaged"]


def test_a_file_is_repaired_from_the_layer_that_is_checked_out(one: System):
    lost = objects(one)["file"]
    damage.discard(one.repo, [lost])
    result = one.run(repair.check, OverlayCheck())
    # Without root, the repository keeps owners beside the files, which the layer does not have.
    assert result.details["repaired"] == (["system/x"] if repos.IS_ROOT else [])
    assert one.overlay_states()["system/x"].enabled == repos.IS_ROOT
    assert damage.is_sound(one.repo, lost) == repos.IS_ROOT


def test_what_cannot_be_repaired_is_disabled(one: System):
    lost = objects(one)["commit"]
    damage.discard(one.repo, [lost])
    result = one.run(repair.check, OverlayCheck())
    assert result.details["damaged"] == {"system/x": [lost]}
    assert result.details["repaired"] == []
    assert not one.overlay_states()["system/x"].enabled
    assert one.visible_overlays() == []


# --- unlock


def test_usr_is_writable_and_what_was_written_is_kept_as_an_overlay(system: System):
    result = system.run(unlock.unlock, Unlock())
    assert result.details["unlocked"] == "development"
    place = upper(system)
    (place / "share/ut").mkdir(parents=True)
    (place / "share/ut/file").write_text("tried out")
    (place / "share/ut/__pycache__").mkdir()
    os.mknod(place / "share/old", 0o020000, 0)  # removed
    with pytest.raises(Refused, match="unlocked already"):
        system.run(unlock.unlock, Unlock())
    system.run(unlock.save, UnlockSave(name="tried", live=LiveOptions(force=True)))
    assert system.visible_overlays() == ["system/tried"]
    nodes = overlay_repo.read(system.repo, system.overlay_states()["system/tried"].commit)
    assert {p: n.kind for p, n in nodes.items() if n.kind != "directory"} == {
        "share/ut/file": "file",
        "share/old": "whiteout",
    }
    assert system.kernel.usr[-1].upper is None
    with system.transaction() as tx:
        assert tx.live.booted.unlocked == "none"


def test_what_was_tried_is_thrown_away(system: System):
    system.run(unlock.unlock, Unlock(mode=UnlockMode.TRANSIENT))
    assert system.kernel.usr[-1].read_only  # writable in a namespace of one's own
    (upper(system) / "new").write_text("x")
    system.run(unlock.discard, UnlockDiscard())
    assert system.kernel.usr[-1].upper is None
    assert system.overlay_states() == {}


def test_there_is_nothing_to_save(system: System):
    with pytest.raises(UsageError, match="/usr is not unlocked"):
        system.run(unlock.save, UnlockSave(name="x"))
    system.run(unlock.unlock, Unlock())
    with pytest.raises(Refused, match="nothing was changed in /usr"):
        system.run(unlock.save, UnlockSave(name="x"))
    with pytest.raises(UsageError, match="cannot be the name"):
        system.run(unlock.save, UnlockSave(name="No Name"))


def test_defaults_of_etc_are_left_out(system: System):
    system.run(unlock.unlock, Unlock())
    (upper(system) / "etc/ut").mkdir(parents=True)
    (upper(system) / "etc/ut/tool.conf").write_text("x")
    (upper(system) / "new").write_text("x")
    system.run(unlock.save, UnlockSave(name="x"))
    assert any("is left out: defaults of /etc" in text for text in system.told("warning"))
    assert {*overlay_repo.read(system.repo, system.overlay_states()["system/x"].commit)} == {"new"}


def test_a_hotfix_changes_the_deployment_itself(system: System, monkeypatch):
    hotfixed = []
    monkeypatch.setattr(repos.Machine, "unlock_hotfix", lambda _self, d: hotfixed.append(d.checksum))
    monkeypatch.setattr("apt_ostree.system.usrview.show_hotfix", lambda: None)
    dry = system.run(unlock.unlock, Unlock(mode=UnlockMode.HOTFIX, dry_run=True))
    assert (dry.changed, hotfixed) == (True, [])
    system.run(unlock.unlock, Unlock(mode=UnlockMode.HOTFIX))
    assert hotfixed == [system.one]


def test_a_hotfix_does_not_go_with_live_changes(one: System):
    with pytest.raises(Refused, match="shows live changes"):
        one.run(unlock.unlock, Unlock(mode=UnlockMode.HOTFIX))


def test_a_dry_unlock_changes_nothing(system: System):
    assert system.run(unlock.unlock, Unlock(dry_run=True)).changed
    assert system.kernel.usr == []
