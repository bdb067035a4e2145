"""The loaders on the EFI system partition: whose they are, updates, the way back, and failures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from apt_ostree.cli import main, options, plans
from apt_ostree.core import bootloader as core
from apt_ostree.errors import ExternalFailure, Incomplete, NotAuthorized, Refused
from apt_ostree.model import bootloader as model
from apt_ostree.model import sbat
from apt_ostree.model.bootloader import OLD, RECORD, SOURCES, Component
from apt_ostree.model.queries import BootloaderStatus
from apt_ostree.model.requests.deployments import BootloaderRollback, BootloaderUpdate
from apt_ostree.model.sizes import Space
from apt_ostree.system import bios_boot, efi, space
from apt_ostree.system.efi import Esp
from tests.fixtures.efi_program import grub, program, shim
from tests.unit.repos import System

SHIM, GRUB, MOK = "EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/grubx64.efi", "EFI/BOOT/mmx64.efi"
OLD_SET = {SHIM: shim("15.8"), GRUB: grub("2.12-9"), MOK: shim("15.8", name="mm")}
NEW_SET = {SHIM: shim("16.1"), GRUB: grub("2.12-9+deb13u4"), MOK: shim("16.1", name="mm")}
WINDOWS = "EFI/Microsoft/Boot/bootmgfw.efi"


class Machine:
    """A system whose EFI system partition is a directory."""

    def __init__(self, system: System, esp: Path) -> None:
        self.system, self.esp = system, esp

    def ship(self, files: dict[str, bytes]) -> None:
        """Have the booted deployment ship these loaders."""
        with self.system.open() as machine:
            deployments = machine.deployments()
            tree = machine.directory(deployments.booted)
        for path, component in model.INSTALLED.items():
            source = tree / SOURCES[component]
            source.parent.mkdir(parents=True, exist_ok=True)
            source.unlink(missing_ok=True)
            if path in files:
                source.write_bytes(files[path])

    def write(self, files: dict[str, bytes], *, recorded: bool = True) -> None:
        for path, data in files.items():
            (self.esp / path).parent.mkdir(parents=True, exist_ok=True)
            (self.esp / path).write_bytes(data)
        if recorded:
            loaders = {
                path: model.read_loader(path, model.PLACES[path], data) for path, data in files.items()
            }
            record = {path: model.Entry(loader.digest) for path, loader in loaders.items()}
            (self.esp / RECORD).parent.mkdir(parents=True, exist_ok=True)
            (self.esp / RECORD).write_text(model.format_record(record))

    def read(self, suffix: str = "") -> dict[str, bytes]:
        """Return the loaders that are there."""
        paths = {path: self.esp / (path + suffix) for path in model.INSTALLED}
        return {path: place.read_bytes() for path, place in paths.items() if place.exists()}

    def files(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.esp)): p.read_bytes() for p in self.esp.rglob("*") if p.is_file()}

    def update(self, **given):
        return self.system.run(core.update, BootloaderUpdate(**given))

    def rollback(self, **given):
        return self.system.run(core.roll_back, BootloaderRollback(**given))

    def status(self) -> dict:
        return core.status(BootloaderStatus())


@pytest.fixture
def machine(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with old loaders that are ours, whose booted deployment ships new ones."""
    esp = tmp_path / "esp"
    esp.mkdir()
    monkeypatch.setattr(efi, "find", lambda: Esp(esp))
    monkeypatch.setattr(efi, "_FIRMWARE", tmp_path / "firmware")
    monkeypatch.setattr(bios_boot, "find", lambda: None)
    found = Machine(system, esp)
    found.write(OLD_SET)
    found.ship(NEW_SET)
    return found


def set_firmware(tmp_path: Path, *, secure_boot: bool, level: str = "") -> None:
    variables = tmp_path / "firmware/efivars"
    variables.mkdir(parents=True)
    (variables / efi._SECURE_BOOT).write_bytes(b"\x06\0\0\0" + bytes([secure_boot]))
    (variables / efi._LEVEL).write_bytes(b"\x06\0\0\0" + level.encode())


def steps(result_or_status) -> dict[str, str]:
    rows = getattr(result_or_status, "details", result_or_status)["loaders"]
    return {row["path"]: row["action"] for row in rows}


# --- values


def test_a_program_tells_its_generations_and_version():
    found = sbat.read_program(grub("2.12-9+deb13u4", 7))
    assert (found.version, found.generations["grub"]) == ("2.12-9+deb13u4", 7)
    assert found.below({"grub": 8, "shim": 9}) == ["grub is of generation 7, 8 is needed"]
    assert found.below({"grub": 7}) == []


@pytest.mark.parametrize("data", [b"", b"MZ", b"MZ" + b"\xff" * 80, b"#!/bin/sh\n", program("")[:70]])
def test_what_is_no_program_tells_nothing(data: bytes):
    assert sbat.read_program(data) is None


def test_the_level_of_the_firmware_is_read():
    assert sbat.read_level("sbat,1,2024010900\nshim,4\ngrub,3\ngrub.debian,4\n") == {
        "sbat": 1, "shim": 4, "grub": 3, "grub.debian": 4
    }  # fmt: skip
    assert sbat.read_level("") == {}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"loaders": {"x": {}}}', '{"loaders": 7}', "\0"])
def test_a_damaged_record_knows_nothing(text: str):
    assert model.read_record(text) == {}


def test_a_record_is_read_as_it_was_written():
    record = {"EFI/BOOT/grubx64.efi": model.Entry("1", "2"), "a": model.Entry("3")}
    assert model.read_record(model.format_record(record)) == record


# --- status


def test_status_tells_what_is_there_and_what_an_update_would_do(machine: Machine):
    found = machine.status()
    assert steps(found) == dict.fromkeys((GRUB, MOK, SHIM), "replace")
    rows = {row["path"]: row for row in found["loaders"]}
    assert (rows[GRUB]["version"], rows[GRUB]["new-version"]) == ("2.12-9", "2.12-9+deb13u4")
    assert (rows[SHIM]["component"], rows[SHIM]["owner"]) == ("shim", "recorded")
    assert (found["update-available"], found["rollback-available"]) == (True, False)
    assert (found["firmware"], found["secure-boot"], found["bios"]) == ("bios", None, None)
    assert {row["path"] for row in found["shipped"]} == {
        f"/{SOURCES[part]}" for part in model.INSTALLED.values()
    }


def test_status_tells_of_the_firmware_and_the_bios(machine: Machine, tmp_path: Path, monkeypatch):
    set_firmware(tmp_path, secure_boot=True, level="sbat,1,2024010900\nshim,4\n")
    monkeypatch.setattr(bios_boot, "find", lambda: bios_boot.Core("/dev/vda1", "ab" * 32))
    found = machine.status()
    assert (found["firmware"], found["secure-boot"], found["sbat-level"]["shim"]) == ("uefi", True, 4)
    assert (found["bios"]["device"], found["bios"]["digest"]) == ("/dev/vda1", "ab" * 32)
    assert "power cut" in found["bios"]["reason"]


def test_status_without_a_partition(machine: Machine, monkeypatch):
    monkeypatch.setattr(efi, "find", lambda: None)
    found = machine.status()
    assert (found["esp"], found["loaders"], found["update-available"]) == (None, [], False)


def test_who_may_not_look_is_told_who_may(machine: Machine, monkeypatch):
    def refuse(_esp):
        raise PermissionError

    monkeypatch.setattr(efi, "require_readable", refuse)
    with pytest.raises(NotAuthorized, match="only root may look"):
        machine.status()


def test_the_command_prints_it(machine: Machine, tmp_path: Path, monkeypatch, capsys):
    set_firmware(tmp_path, secure_boot=True, level="shim,4\n")
    monkeypatch.setattr(options, "answer_json", lambda _query: machine.status())
    assert main.run(["bootloader", "status"]) == 0
    text = capsys.readouterr().out
    assert "Secure Boot on" in text and f"replace {GRUB}: grub 2.12-9 (" in text
    assert main.run(["bootloader", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["update-available"]


# --- update and the way back


def test_an_update_replaces_grub_first_and_keeps_the_ones_before(machine: Machine):
    (machine.esp / WINDOWS).parent.mkdir(parents=True)
    (machine.esp / WINDOWS).write_bytes(b"not ours")
    result = machine.update()
    assert result.changed
    assert list(steps(result)) == [GRUB, MOK, SHIM]
    assert (machine.read(), machine.read(OLD)) == (NEW_SET, OLD_SET)
    assert (machine.esp / WINDOWS).read_bytes() == b"not ours"
    assert not machine.update().changed
    assert (machine.read(), machine.read(OLD)) == (NEW_SET, OLD_SET)
    assert machine.status()["rollback-available"]


def test_the_way_back_and_forth(machine: Machine):
    with pytest.raises(Refused, match="no loader to go back to"):
        machine.rollback()
    machine.update()
    assert list(steps(machine.rollback())) == [SHIM, MOK, GRUB]
    assert (machine.read(), machine.read(OLD)) == (OLD_SET, NEW_SET)
    assert list(steps(machine.rollback())) == [GRUB, MOK, SHIM]
    assert (machine.read(), machine.read(OLD)) == (NEW_SET, OLD_SET)


@pytest.mark.parametrize("verb", ["update", "rollback"])
def test_a_dry_run_writes_nothing(machine: Machine, verb: str):
    if verb == "rollback":
        machine.update()
    before = machine.files()
    assert getattr(machine, verb)(dry_run=True).changed
    assert machine.files() == before
    plan = machine.system.plans("bootloader")[-1]
    assert "replace EFI/BOOT/BOOTX64.EFI" in "\n".join(plans.lines("bootloader", plan))


def test_what_a_deployment_ships_is_adopted(machine: Machine):
    (machine.esp / RECORD).unlink()
    machine.ship(OLD_SET)
    assert {row["owner"] for row in machine.status()["loaders"]} == {"shipped"}
    assert not machine.update().changed


def refused(machine: Machine) -> Refused:
    before = machine.files()
    with pytest.raises(Refused) as caught:
        machine.update()
    assert machine.files() == before
    return caught.value


def test_what_something_else_owns_is_not_touched(machine: Machine):
    (machine.esp / GRUB).write_bytes(grub("2.06"))
    error = refused(machine)
    assert error.exit_code == 3 and "what has installed them" in error.hint
    assert any(line.startswith(GRUB) and "something else owns it" in line for line in error.details)
    assert any(line.startswith(SHIM) and "belongs together" in line for line in error.details)


def test_another_directory_is_left_while_ours_is_updated(machine: Machine):
    others = {"EFI/debian/grubx64.efi": grub("2.06"), "EFI/debian/shimx64.efi": shim("15.4")}
    machine.write(others, recorded=False)
    result = steps(machine.update())
    assert {path for path, action in result.items() if action == "leave"} == set(others)
    assert machine.read() == NEW_SET
    assert {path: (machine.esp / path).read_bytes() for path in others} == others


def test_a_composed_grub_is_explained(machine: Machine):
    (machine.esp / GRUB).unlink()
    (machine.esp / MOK).unlink()
    (machine.esp / RECORD).unlink()
    (machine.esp / SHIM).write_bytes(b"MZ..configfile ($root)/grub/grub.cfg\n..")
    (row,) = machine.status()["loaders"]
    assert (row["component"], row["owner"], row["action"]) == ("composed-grub", "composed", "leave")
    assert "grub-efi-amd64-signed and shim-signed" in refused(machine).hint


def test_an_empty_partition_is_refused(machine: Machine):
    for path in (*OLD_SET, RECORD):
        (machine.esp / path).unlink()
    assert "no loader" in refused(machine).message


def test_older_loaders_stay_away(machine: Machine):
    machine.update()
    machine.ship(OLD_SET)
    result = machine.update()
    assert not result.changed
    assert all("an older one" in row["reason"] for row in result.details["loaders"])


def test_what_the_tree_lacks_stays(machine: Machine):
    machine.ship({GRUB: NEW_SET[GRUB]})
    assert steps(machine.update()) == {GRUB: "replace", MOK: "keep", SHIM: "keep"}
    assert machine.read() == {**OLD_SET, GRUB: NEW_SET[GRUB]}


@pytest.mark.parametrize("on", [True, False])
def test_what_secure_boot_would_not_start_is_not_put_there(machine: Machine, tmp_path: Path, on: bool):
    machine.update()
    set_firmware(tmp_path, secure_boot=on, level="sbat,1,2026\nshim,4\ngrub,6\n")
    if not on:
        assert machine.rollback().changed
        return
    # An old GRUB would not start; the old shim would, and starts the new GRUB.
    assert steps(machine.rollback()) == {SHIM: "replace", MOK: "replace", GRUB: "keep"}
    assert machine.read()[GRUB] == NEW_SET[GRUB]


def test_no_partition_and_no_room_are_refused(machine: Machine, monkeypatch):
    monkeypatch.setattr(space, "of", lambda _path: Space(1000, 1000, None))
    assert "too little space" in refused(machine).message
    monkeypatch.setattr(efi, "find", lambda: Esp(machine.esp, is_writable=False))
    assert "read-only" in refused(machine).message
    monkeypatch.setattr(efi, "find", lambda: None)
    assert "no EFI system partition" in refused(machine).message


# --- failures


def fail_from(monkeypatch: pytest.MonkeyPatch, number: int, *, once: bool) -> list[str]:
    """Have the disk fail at the Nth failpoint, and, unless once, at all later ones; return those passed."""
    passed: list[str] = []

    def failpoint(name: str) -> None:
        passed.append(name)
        if len(passed) == number or (len(passed) > number and not once):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(efi, "failpoint", failpoint)
    monkeypatch.setattr(core, "failpoint", failpoint)
    return passed


def points(machine: Machine, monkeypatch: pytest.MonkeyPatch, verb: str) -> Iterator[int]:
    """Yield the number of each failpoint that a verb passes; the machine is as before each time."""
    if verb == "rollback":
        machine.update()
    before = machine.files()
    with monkeypatch.context() as patch:
        passed = fail_from(patch, 0, once=True)
        getattr(machine, verb)()
    assert len(passed) == 1 + 3 * 7
    for number in range(1, len(passed) + 1):
        for path in machine.files():
            (machine.esp / path).unlink()
        for path, data in before.items():
            (machine.esp / path).write_bytes(data)
        yield number


def check_it_starts(machine: Machine) -> None:
    """Each loader is whole, and no new shim would have to start an old GRUB."""
    there = machine.read()
    assert all(there[path] in (OLD_SET[path], NEW_SET[path]) for path in OLD_SET)
    assert not (there[SHIM] == NEW_SET[SHIM] and there[GRUB] == OLD_SET[GRUB])


@pytest.mark.parametrize("verb", ["update", "rollback"])
def test_a_failure_is_undone(machine: Machine, monkeypatch, verb: str):
    for number in points(machine, monkeypatch, verb):
        before = machine.read()
        with monkeypatch.context() as patch, pytest.raises((ExternalFailure, OSError)):
            fail_from(patch, number, once=True)
            getattr(machine, verb)()
        assert machine.read() == before
        assert not [path for path in machine.files() if path.endswith(".new")]
        machine.update()
        assert machine.read() == NEW_SET


@pytest.mark.parametrize("verb", ["update", "rollback"])
def test_wherever_it_ends_the_machine_starts_and_the_next_update_completes_it(
    machine: Machine, monkeypatch, verb: str
):
    """The disk fails for good, as after a kill or a power cut: nothing is undone."""
    for number in points(machine, monkeypatch, verb):
        with monkeypatch.context() as patch, pytest.raises((ExternalFailure, Incomplete, OSError)):
            fail_from(patch, number, once=False)
            getattr(machine, verb)()
        check_it_starts(machine)
        assert all(row["owner"] != "other" for row in machine.status()["loaders"])
        machine.update()
        assert machine.read() == NEW_SET


def test_a_cancel_is_undone(machine: Machine, monkeypatch):
    real, calls = efi.put, []

    def put(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(efi, "put", put)
    with pytest.raises(KeyboardInterrupt):
        machine.update()
    assert machine.read() == OLD_SET


# --- facts


def test_the_partition_is_found_where_it_is_mounted(monkeypatch):
    line = "40 1 254:2 / /boot/efi rw,nosuid - vfat /dev/vda2 {}"
    for flags, is_writable in (("rw", True), ("ro", False)):
        mounts = efi.mountinfo.parse(line.format(flags))
        monkeypatch.setattr(efi.mountinfo, "read", lambda mounts=mounts: mounts)
        assert efi.find() == Esp(Path("/boot/efi"), is_writable)
    others = efi.mountinfo.parse(line.format("rw").replace("vfat", "ext4"))
    monkeypatch.setattr(efi.mountinfo, "read", lambda: others)
    assert efi.find() is None


def test_the_core_image_of_a_bios_is_found(tmp_path: Path, monkeypatch):
    disk, udev = tmp_path / "vda", tmp_path / "udev"
    for number, kind in ((1, bios_boot._UUID), (2, "other")):
        (disk / f"vda{number}").mkdir(parents=True)
        (disk / f"vda{number}/partition").write_text(f"{number}\n")
        (disk / f"vda{number}/dev").write_text(f"254:{number}\n")
        udev.mkdir(exist_ok=True)
        (udev / f"b254:{number}").write_text(f"N:vda{number}\nE:ID_PART_ENTRY_TYPE={kind}\n")
    monkeypatch.setattr(bios_boot, "_UDEV", udev)
    monkeypatch.setattr(bios_boot, "_disk_of", lambda _path: disk)
    assert list(bios_boot._partitions()) == ["/dev/vda1"]
    assert bios_boot.find() in (None, bios_boot.Core("/dev/vda1", "")) or bios_boot.find().digest
    core_image = bytearray(512 * 4)
    core_image[0x1FC] = 2
    (tmp_path / "part").write_bytes(core_image)
    monkeypatch.setattr(bios_boot, "_partitions", lambda: iter([str(tmp_path / "part")]))
    assert bios_boot.find().digest == model.hashlib.sha256(core_image[: 512 * 3]).hexdigest()
    monkeypatch.setattr(bios_boot, "_partitions", lambda: iter([]))
    assert bios_boot.find() is None


def test_what_compose_disk_installs_has_a_place_and_a_source():
    assert all(model.PLACES[path] is component for path, component in model.INSTALLED.items())
    assert Component.FALLBACK not in model.INSTALLED.values()
    assert set(model.PLACES.values()) == set(SOURCES)


def test_the_needed_space_is_for_backups_and_one_file():
    loader = model.read_loader(GRUB, Component.GRUB, OLD_SET[GRUB])
    new = replace(loader, size=700, digest="0")
    step = model.Step(replace(loader, size=500), model.Owner.RECORDED, model.Action.REPLACE, "", new)
    assert model.Plan((step, step)).needed == 500 + 500 + 700
