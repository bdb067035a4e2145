"""A small made-up tree is installed on loop devices, which are read as disk images are; nothing is booted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.integration.test_disk import KEY, REF, SOURCE, Image, uuid_of, write_tree

from apt_ostree.system.ostree import commit

SIZE = 6 << 30


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@contextmanager
def looped(file: Path, *options: str) -> Iterator[str]:
    """Yield a loop device of a file, until the end of the block."""
    command = ["losetup", "--find", "--show", *options, str(file)]
    device = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def install(device: str, *words: object, failpoint: str = "", code: int = 0, ask: bool = False):
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "APT_OSTREE_FAILPOINT": failpoint}
    command = [sys.executable, "-m", "apt_ostree", "install-to-disk", device, *map(str, words)]
    command += [] if ask else ["--assumeyes"]
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("install")
    write_tree(base / "repo", base / "tree")
    return base / "repo"


@pytest.fixture
def of(repo: Path) -> tuple[str, str]:
    return f"--repo={repo}", f"--ref={REF}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """What the disk has: nothing, or what a test puts there."""
    path = tmp_path / "disk"
    with path.open("wb") as new:
        new.truncate(SIZE)
    return path


@pytest.fixture
def attach() -> Iterator[Callable[..., str]]:
    """Makes loop devices, which go at the end of the test."""
    with ExitStack() as stack:
        yield lambda file, *options: stack.enter_context(looped(file, *options))


@pytest.fixture
def device(file: Path, attach: Callable[..., str]) -> str:
    return attach(file)


def dirty(file: Path) -> None:
    """Fill what the new file systems are to take with something else."""
    with file.open("r+b") as disk:
        for offset in range(0, 4 << 30, 64 << 20):
            os.pwrite(disk.fileno(), b"\xee" * (1 << 20), offset)


# --- what is installed


def test_a_disk_is_laid_out_like_an_image(repo: Path, file: Path, device: str, of, tmp_path: Path):
    dirty(file)
    (tmp_path / "key.pub").write_text(KEY)
    result = json.loads(
        install(device, *of, "--hostname=web1", "--user=me", f"--ssh-key={tmp_path}/key.pub", "--json").stdout
    )
    head = commit.head(repo, REF)
    assert result | {"size": 0} == {
        "changed": True, "device": device, "ref": REF, "commit": head, "size": 0
    }  # fmt: skip
    disk = Image(file, result)
    assert [*disk.parts] == ["bios", "esp", "boot", "root"]
    assert result["size"] <= SIZE
    for part in ("boot", "root"):
        name = f"{file}?offset={disk.start(part)}"
        done = subprocess.run(["e2fsck", "-f", "-n", name], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    with file.open("rb") as data:
        assert data.read(512)[510:] == b"\x55\xaa"
    subprocess.run(["mdir", "-i", f"{file}@@{disk.start('esp')}", "::/EFI/BOOT/BOOTX64.EFI"], check=True)
    etc = f"{disk.deployment}/etc"
    assert disk.read("root", f"{etc}/hostname") == "web1\n"
    assert disk.read("root", "/ostree/deploy/debian/var/home/me/.ssh/authorized_keys") == KEY
    assert f"refspec={REF}\n" in disk.read("root", f"{disk.deployment}.origin")
    assert disk.read("root", f"/ostree/repo/refs/heads/{REF}").strip() == head
    assert disk.stat(disk.deployment)["flags"] & 0x10


def test_each_disk_has_identifiers_of_its_own(file: Path, device: str, of):
    install(device, *of)
    first = Image(file, {})
    one = uuid_of(first, "root")
    install(device, *of, code=3)
    install(device, *of, "--wipe")
    second = Image(file, {})
    assert uuid_of(second, "root") != one
    assert second.table["id"] != first.table["id"]


def test_what_was_at_the_end_of_the_disk_goes(file: Path, device: str, of):
    subprocess.run(["sfdisk", "--quiet", device], input="label: gpt\n, 1G\n", text=True, check=True)
    install(device, *of, code=3)
    install(device, *of, "--wipe")
    with file.open("rb") as disk:
        disk.seek(SIZE - 512)
        assert not disk.read(512).startswith(b"EFI PART")


# --- what is refused


def first_mebibyte(file: Path) -> bytes:
    with file.open("rb") as disk:
        return disk.read(1 << 20)


def told(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr


def test_a_dry_run_shows_the_plan_and_touches_nothing(file: Path, device: str, of):
    subprocess.run(["mke2fs", "-q", "-F", "-L", "precious", device], check=True)
    before = first_mebibyte(file)
    assert "--wipe" in told(install(device, *of, "--dry-run", code=3))
    result = json.loads(install(device, *of, "--dry-run", "--wipe", "--json", ask=True).stdout)
    assert result["plan"]["path"] == device and result["plan"]["found"] == ["ext2"]
    assert first_mebibyte(file) == before


def test_it_does_nothing_unasked(device: str, of):
    assert "--assumeyes" in told(install(device, *of, code=2, ask=True))


def test_other_than_disks_are_refused(file: Path, attach: Callable[..., str], of, tmp_path: Path):
    install(str(file), *of, code=3)
    install(str(tmp_path / "none"), *of, code=2)
    subprocess.run(["sfdisk", "--quiet", file], input="label: gpt\n, 1G\n", text=True, check=True)
    assert "read-only" in told(install(attach(file, "--read-only"), *of, "--wipe", code=3))
    parted = attach(file, "--partscan")
    part = Path(f"{parted}p1")
    if part.is_block_device():  # udev may not be there to make it
        assert f"partition of {parted}" in told(install(str(part), *of, "--wipe", code=3))


def test_a_disk_that_is_too_small_is_refused(attach: Callable[..., str], of, tmp_path: Path):
    with (tmp_path / "small").open("wb") as new:
        new.truncate(500 << 20)
    assert "larger" in told(install(attach(tmp_path / "small"), *of, code=3))


def test_a_mounted_disk_is_refused_with_wipe_too(device: str, of, tmp_path: Path):
    subprocess.run(["mke2fs", "-q", "-F", device], check=True)
    place = tmp_path / "mnt"
    place.mkdir()
    subprocess.run(["mount", device, place], check=True)
    try:
        assert "in use" in told(install(device, *of, "--wipe", code=3))
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_disk_that_a_program_has_claimed_is_refused(device: str, of):
    fd = os.open(device, os.O_RDONLY | os.O_EXCL)
    try:
        assert "in use" in told(install(device, *of, code=3))
    finally:
        os.close(fd)


# --- what is interrupted


@pytest.mark.parametrize("name", ["disk.deployed", "disk.furnished", "disk.boot-written", "install.built"])
def test_before_the_disk_is_touched_a_failure_leaves_it(file: Path, device: str, of, name: str):
    subprocess.run(["mke2fs", "-q", "-F", "-L", "precious", device], check=True)
    install(device, *of, "--wipe", failpoint=f"{name}=error", code=1)
    shown = subprocess.run(["dumpe2fs", "-h", file], capture_output=True, text=True, check=True).stdout
    assert "precious" in shown


@pytest.mark.parametrize("name", ["install.emptied", "install.contents-written", "install.table-written"])
@pytest.mark.parametrize(("action", "code"), [("error", 5), ("kill", 1)])
def test_nothing_starts_from_what_is_written_in_part(file: Path, device: str, of, name, action, code):
    subprocess.run(["sfdisk", "--quiet", device], input="label: dos\n, 1G\n", text=True, check=True)
    install(device, *of, "--wipe", failpoint=f"{name}={action}", code=code)
    with file.open("rb") as disk:
        assert disk.read(512) == bytes(512)
    install(device, *of, "--wipe")
    assert Image(file, {}).deployment


def test_a_cancel_leaves_the_disk_as_it_was_or_one_that_starts_nothing(file: Path, device: str, of):
    """The failpoint stops it before the disk is touched; the signal is taken when it goes on."""
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "APT_OSTREE_FAILPOINT": "install.built=stop"}
    command = [sys.executable, "-m", "apt_ostree", "install-to-disk", device, *of, "-y", "--events"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        worker = wait_for_stopped_child(process.pid)
        process.send_signal(signal.SIGINT)
        os.kill(worker, signal.SIGCONT)
        assert process.wait(60) in (130, 5)
    finally:
        process.kill()
        process.communicate()
    with file.open("rb") as disk:
        assert disk.read(512) == bytes(512)


def wait_for_stopped_child(pid: int) -> int:
    """Return the pid of a child when it has stopped."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                return int(child)
        time.sleep(0.05)
    raise AssertionError("no child has stopped")
