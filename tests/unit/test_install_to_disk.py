"""`install-to-disk`: which disks are refused, what is copied in which order, and what the new system follows.

A file stands for the disk; what only a block device can do is replaced.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apt_ostree.cli import client, main, plans
from apt_ostree.core.compose.disk import installing, sources
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Cancelled, Incomplete, Refused, UsageError
from apt_ostree.model import blockdevice, diskimage
from apt_ostree.model.blockdevice import BlockDevice, of_lsblk
from apt_ostree.model.diskimage import MIB, Contents
from apt_ostree.model.events import PlanShown
from apt_ostree.model.installation import InstallPlan
from apt_ostree.model.origin import Origin
from apt_ostree.model.requests.images import InstallToDisk
from apt_ostree.system import blockdevice as devices
from apt_ostree.system import process, signals
from apt_ostree.system.blockdevice import Disk
from apt_ostree.system.ostree import remotes
from tests.unit.repos import System

GB = 10**9
PART = BlockDevice("/dev/sdb1", "part", 4 * GB, parent="/dev/sdb", content="ext4", label="old")
DISK = BlockDevice("/dev/sdb", "disk", 8 * GB, model="Fast", content="gpt", parts=(PART,))

# --- what lsblk tells


def row(**changed: Any) -> dict[str, Any]:
    names = blockdevice.COLUMNS.lower().split(",")
    fixed = {"path": "/dev/sdb", "type": "disk", "size": 8 * GB, "ro": False, "log-sec": 512}
    return {**dict.fromkeys(names), **fixed, "mountpoints": [None], **changed}


def test_a_device_is_read_with_what_is_made_of_it():
    part = row(path="/dev/sdb1", type="part", size=4 * GB, pkname="sdb", fstype="ext4", label="old")
    read = of_lsblk(row(model="Fast  ", pttype="gpt", children=[part]))
    assert read == DISK
    assert [one.path for one in read.all] == ["/dev/sdb", "/dev/sdb1"]


def test_the_program_knows_the_columns():
    shown = subprocess.run(["lsblk", "--help"], capture_output=True, text=True, check=True).stdout
    assert {*blockdevice.COLUMNS.split(",")} <= {*shown.split()}


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (PART, "partition of /dev/sdb"),
        (replace(DISK, type="lvm"), "no disk"),
        (replace(DISK, type="rom"), "no disk"),
        (replace(DISK, read_only=True), "read-only"),
        (replace(DISK, sector=4096), "4096"),
    ],
)
def test_what_is_no_disk_to_write_is_refused(device: BlockDevice, message: str):
    with pytest.raises(Refused, match=message):
        blockdevice.check_disk(device)
    blockdevice.check_disk(DISK)
    blockdevice.check_disk(replace(DISK, type="loop"))


@pytest.mark.parametrize(
    ("part", "use"),
    [
        (replace(PART, mount_points=("/", "/var")), "/dev/sdb1 is mounted on /"),
        (replace(PART, mount_points=("[SWAP]",)), "/dev/sdb1 is swap space"),
        (replace(PART, parts=(BlockDevice("/dev/mapper/v", "lvm", GB),)), "/dev/mapper/v (lvm) is made of"),
        (BlockDevice("/dev/md0", "raid1", GB), "/dev/md0 (raid1) is made of /dev/sdb"),
        (replace(PART, parts=(BlockDevice("/dev/mapper/c", "crypt", GB, mount_points=("/x",)),)), "/x"),
    ],
)
def test_a_disk_in_use_is_refused(part: BlockDevice, use: str):
    with pytest.raises(Refused) as caught:
        blockdevice.check_unused(replace(DISK, parts=(part,)))
    assert any(use in line for line in caught.value.details)


def test_the_uses_of_a_disk_are_all_named():
    with pytest.raises(Refused) as caught:
        blockdevice.check_unused(replace(DISK, mount_points=("/a", "/b")))
    assert len(caught.value.details) == 2
    blockdevice.check_unused(DISK)


def test_what_is_on_a_disk_goes_only_if_that_is_wanted():
    with pytest.raises(Refused, match="gpt, PMBR") as caught:
        blockdevice.check_empty(DISK, ("gpt", "PMBR"), wipe=False)
    assert "--wipe" in (caught.value.hint or "")
    assert any("old" in line for line in caught.value.details)
    blockdevice.check_empty(DISK, ("gpt", "PMBR"), wipe=True)
    blockdevice.check_empty(DISK, (), wipe=False)


def test_a_disk_that_is_too_small_is_refused():
    with pytest.raises(Refused, match=r"8\.0 GB"):
        blockdevice.check_size(DISK, DISK.size + 1)
    blockdevice.check_size(DISK, DISK.size)


def test_other_files_are_no_devices(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file", Path("/dev/null")):
        with pytest.raises(Refused, match="no block device"):
            devices.read(path)
    with pytest.raises(UsageError, match="no device"):
        devices.read(tmp_path / "none")


def test_signatures_are_those_that_wipefs_sees(tmp_path: Path):
    file = tmp_path / "disk"
    with file.open("wb") as new:
        new.truncate(8 * MIB)
    assert devices.signatures(str(file)) == ()
    subprocess.run(["mke2fs", "-q", "-F", file], check=True)
    assert devices.signatures(str(file)) == ("ext2",)


# --- what is written


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk that is full of something else."""

    def zero(disk: Disk, start: int, end: int, progress: Callable[[int], None]) -> None:
        os.pwrite(disk._fd, bytes(end - start), start)
        progress(end - start)

    monkeypatch.setattr(Disk, "_zero", zero)
    monkeypatch.setattr(signals, "ignore", lambda: None)
    file = tmp_path / "target"
    file.write_bytes(b"\xee" * 8 * MIB)
    return file


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk in a file: tables, a hole of 2 MiB, data."""
    file = tmp_path / "image"
    with file.open("wb") as new:
        new.truncate(6 * MIB)
        for offset in (0, 512, 4096, 3 * MIB, 6 * MIB - 512):
            os.pwrite(new.fileno(), offset.to_bytes(8, "big") + b"x" * 500, offset)
    return file


def test_spans_are_the_whole_file(image: Path):
    with image.open("rb") as file:
        found = list(devices.spans(file.fileno(), 0, 6 * MIB))
        assert list(devices.spans(file.fileno(), 5, 5)) == []
    assert [begin for begin, _end, _data in found] == [0, *(end for _begin, end, _data in found[:-1])]
    assert found[-1][1] == 6 * MIB
    for begin, end, is_data in found:
        assert is_data or not any(image.read_bytes()[begin:end])


@pytest.mark.parametrize(("start", "end"), [(0, 6 * MIB), (512, MIB), (MIB, 6 * MIB), (2 * MIB, 2 * MIB)])
def test_a_part_is_copied_with_its_holes_and_nothing_else(target: Path, image: Path, start: int, end: int):
    done: list[int] = []
    with devices.claimed(str(target)) as disk, image.open("rb") as file:
        disk.copy(file.fileno(), start, end, done.append)
        disk.sync()
    old, new = b"\xee" * 8 * MIB, image.read_bytes()
    assert target.read_bytes() == old[:start] + new[start:end] + old[end:]
    assert sum(done) == end - start


@pytest.fixture
def install(target: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs the file on the target."""
    device = BlockDevice(str(target), "disk", 8 * MIB)
    layout = replace(diskimage.plan(Contents(0, 0), None, "x"), size=6 * MIB)
    plan = InstallPlan(device, (), layout, "c" * 64, "13.1", "/repo", "vendor:x", "", grows=True)
    monkeypatch.setattr(devices, "read", lambda _path: device)
    monkeypatch.setattr(devices, "signatures", lambda _path: ())
    monkeypatch.setattr(process, "run", lambda *_args, **_options: None)  # wipefs

    def run(planned: InstallPlan = plan) -> None:
        tx = Transaction([].append, "install-to-disk")
        installing._install(tx, InstallToDisk(device=str(target)), planned, image)

    return run


@pytest.mark.parametrize("point", ["install.emptied", "install.contents-written", "install.table-written"])
def test_nothing_starts_from_a_disk_that_is_written_in_part(target, image, install, monkeypatch, point):
    monkeypatch.setenv("APT_OSTREE_FAILPOINT", f"{point}=error")
    with pytest.raises(Incomplete, match="nothing starts from it"):
        install()
    assert target.read_bytes()[:512] == bytes(512)
    monkeypatch.delenv("APT_OSTREE_FAILPOINT")
    install()
    assert target.read_bytes() == image.read_bytes() + b"\xee" * 2 * MIB


def test_the_first_sector_comes_last(target, image, install, monkeypatch):
    states = []
    monkeypatch.setattr(Disk, "sync", lambda _disk: states.append(target.read_bytes()))
    install()
    new = image.read_bytes()
    assert states[-1][: 6 * MIB] == new
    assert [state[:512] == new[:512] for state in states] == [False] * (len(states) - 1) + [True]
    assert states[-2][512 : 6 * MIB] == new[512:]


def test_a_disk_that_has_changed_since_the_plan_is_not_touched(target, install, image):
    layout = replace(diskimage.plan(Contents(0, 0), None, "x"), size=6 * MIB)
    other = InstallPlan(DISK, (), layout, "c" * 64, "", "/repo", "x", "", grows=True)
    with pytest.raises(Refused, match="not what it was"):
        install(other)
    assert target.read_bytes() == b"\xee" * 8 * MIB


# --- what the new system is


def test_the_base_is_installed_and_followed_without_what_is_layered(system: System, monkeypatch):
    repo = system.place / "ostree/repo"
    monkeypatch.setattr(installing, "_SYSTEM_REPO", repo)
    with (repo / "config").open("a") as config:
        config.write('\n[remote "vendor"]\nurl=https://example.org/repo\ngpg-verify=true\n')
    (repo / "vendor.trustedkeys.gpg").write_text("keys")
    opened = system.open(writable=False)
    present = opened.deployments()
    (booted,) = (one for one in present.all if one.booted)
    layered = Origin(refspec="vendor:a/b", requested=("x",), commands=(("true",),), unconfigured="no licence")
    shown = replace(present, all=(replace(booted, origin=layered),))
    monkeypatch.setattr(opened, "deployments", lambda: shown)
    source = installing._of_booted(opened)
    assert source.commit == opened.repo.base_of(booted.checksum)
    assert source.origin == Origin(refspec="vendor:a/b", unconfigured="no licence")
    assert source.remote == remotes.Remote(
        "vendor", {"url": "https://example.org/repo", "gpg-verify": "true"}, repo / "vendor.trustedkeys.gpg"
    )


def test_a_remote_is_copied_with_its_keys(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config").write_text("[core]\nmode=bare\n")
    (tmp_path / "keys.gpg").write_text("keys")
    remote = remotes.Remote("v", {"url": "https://x/y", "contenturl": "a;b"}, tmp_path / "keys.gpg")
    remote.write(tmp_path / "two")
    read = remotes.read(tmp_path / "two", "v")
    assert read and (read.rows, read.keyring, read.url) == (remote.rows, None, "https://x/y")
    assert (tmp_path / "two/keys.gpg").read_text() == "keys"
    assert remotes.read(tmp_path / "one", "v") is None


def test_without_a_deployment_there_is_nothing_to_install(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(installing, "is_booted_on_ostree", lambda: False)
    with pytest.raises(Refused, match="not booted"):
        installing._of_system()
    request = InstallToDisk(device="/dev/sdb", repo=str(tmp_path), ref="x")
    with pytest.raises(UsageError, match="no OSTree repository"):
        sources.of_request(Transaction([].append, request.title), request, tmp_path)


# --- the command line


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[InstallToDisk, bool]]:
    """The requests that the command line makes, and whether it answers questions."""
    found: list[tuple[InstallToDisk, bool]] = []

    def call(request, *_args, ask, **_options):
        found.append((request, ask))
        return client.Answer(
            {"changed": True, "device": "/dev/sdb", "ref": "v:x", "commit": "c" * 64}, next_boot=False
        )

    monkeypatch.setattr(client, "call", call)
    return found


def test_all_options_are_in_the_request(sent, capsys):
    words = ["--repo=r", "--ref=x", "--hostname=web1", "--user=me", "--ssh-key=k", "--console=ttyS0"]
    words += ["--karg=a", "--boot-attempts=5", "--wipe", "-y"]
    assert main.run(["install-to-disk", "/dev/sdb", *words]) == 0
    request = InstallToDisk(
        device="/dev/sdb", repo="r", ref="x", hostname="web1", user="me", ssh_key="k", consoles=("ttyS0",),
        kernel_arguments=("a",), boot_attempts=5, wipe=True,
    )  # fmt: skip
    assert sent == [(request, False)]
    assert capsys.readouterr().out == "/dev/sdb now starts v:x cccccccccccc\n"


def test_a_dry_run_needs_no_answer(sent):
    assert main.run(["install-to-disk", "/dev/sdb", "-n", "--json"]) == 0
    assert sent == [(InstallToDisk(device="/dev/sdb", dry_run=True), False)]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["/dev/sdb"],
        ["/dev/sdb", "--json"],
        ["/dev/sdb", "-y", "--repo=r"],
        ["/dev/sdb", "-y", "--ref=x"],
        ["/dev/sdb", "-y", "--image=oci:/x", "--repo=r", "--ref=x"],
        ["/dev/sdb", "-y", "--target-image=oci:/x"],
    ],
)
def test_mistakes_are_not_sent_and_nothing_is_done_unasked(sent, words):
    assert main.run(["install-to-disk", *words]) == 2
    assert sent == []


def test_a_repository_and_a_ref_go_together_and_an_image_alone():
    with pytest.raises(ValueError, match="one without the other"):
        InstallToDisk(device="/dev/sdb", ref="x")
    with pytest.raises(ValueError, match="not together"):
        InstallToDisk(device="/dev/sdb", repo="r", ref="x", image="oci:/x")
    with pytest.raises(ValueError, match="without image"):
        InstallToDisk(device="/dev/sdb", target_image="oci:/x")


def test_the_plan_says_what_goes_and_what_comes():
    layout = diskimage.plan(Contents(600 * MIB, 60 * MIB), None, "x")
    plan = InstallPlan(
        DISK, ("gpt",), layout, "c" * 64, "13.1", "/ostree/repo", "v:x", "https://example.org", grows=True
    )
    shown = list(plans.lines("install-to-disk", plan.to_json()))
    assert shown[:4] == [
        "Disk /dev/sdb (Fast), 8.0 GB",
        "What is on it goes:",
        "  gpt",
        '  /dev/sdb1: ext4 "old", 4.0 GB',
    ]
    assert shown[-3].endswith("and at the first boot the rest of the disk")
    assert shown[-2:] == [
        "Commit cccccccccccc (13.1) of /ostree/repo",
        "It follows v:x (https://example.org)",
    ]
    image = replace(plan, repo="", image="oci:/x", url="")
    assert list(plans.lines("install-to-disk", image.to_json()))[-2].endswith("(13.1) of oci:/x")
    bare = replace(plan, found=(), grows=False, follows="", url="", version="")
    shown = list(plans.lines("install-to-disk", bare.to_json()))
    assert "There is nothing on it" in shown
    assert shown[-1] == "It follows nothing"


def test_who_declines_is_told_that_nothing_was_done():
    events: list[Any] = []
    with pytest.raises(Cancelled):
        Transaction(events.append, "x", ask=lambda: False).agree(PlanShown("install-to-disk", {}))
    assert events == [PlanShown("install-to-disk", {}, confirm=True)]
    Transaction(events.append, "x", ask=lambda: True).agree(PlanShown("install-to-disk", {}))
    Transaction(events.append, "x").agree(PlanShown("install-to-disk", {}))
    assert events[-1].confirm is False
