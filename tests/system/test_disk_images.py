"""Composed disks start machines from the firmware on: UEFI, Secure Boot, BIOS; menu, a root that grows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from testbed_lib.base import DEFAULT_TREEFILE
from testbed_lib.common import CHECKOUT, ENVIRONMENT, run
from testbed_lib.image import mounted_disk
from testbed_lib.images import Wanted, image
from testbed_lib.machine import Machine
from testbed_lib.qemu import _ARGUMENTS
from testbed_lib.store import make_scratch

from tests.system.firmware import KEY, FirmwareMachine
from tests.system.livehost import Host

pytestmark = pytest.mark.vm

TIMEOUT = 600  # seconds of one command; everything is emulated
LONG = 2400  # the same, of one that makes a tree
#: The sizes of the disk, in bytes, as it was made and as it is.
SIZE, LATER = 3_000_000_000, 5_000_000_000
#: The size of a disk that is larger than what is laid out on it.
BIG = 12_000_000_000


def apt_ostree(*words: str) -> None:
    """Run this checkout's program on this machine."""
    subprocess.run(
        ["/usr/bin/python3", "-m", "apt_ostree", *words],
        env={**ENVIRONMENT, "PYTHONPATH": str(CHECKOUT / "src")},
        check=True,
    )


#: Packages of the loaders that Secure Boot starts, and what a tree has of them.
SIGNED = ("shim-signed", "shim-helpers-amd64-signed", "grub-efi-amd64-signed")
SIGNED_FILES = ("usr/lib/shim/*.signed", "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed")


@contextmanager
def tree_of(source: Machine, extra: Path | None = None) -> Iterator[list[str]]:
    """Yield the options for a machine's tree that make one of it that the tests can reach.

    extra: a directory with further files for the tree.
    """
    with mounted_disk(source._disk()) as mounted:
        repo = mounted / "ostree/repo"
        refs = run("ostree", "refs", f"--repo={repo}").split()
        (ref,) = (name for name in refs if name.startswith("debian/"))
        if extra:
            add = [f"--tree=ref={ref}", f"--tree=dir={extra}", "--owner-uid=0", "--owner-gid=0"]
            run("ostree", "commit", f"--repo={repo}", f"--branch={ref}", "--subject=x", "--no-xattrs", *add)
        machine = ["--hostname=fx-disk", "--console=ttyS0"]
        yield [
            f"--repo={repo}",
            f"--ref={ref}",
            *machine,
            *(f"--karg={one}" for one in _ARGUMENTS.split()[1:]),
        ]


@pytest.fixture
def options(new_machine: Callable[..., Machine]) -> Iterator[list[str]]:
    """The options for the test bed's tree."""
    with tree_of(new_machine()) as found:
        yield found


@pytest.fixture
def disk(options: list[str], tmp_path: Path) -> Path:
    """A raw image of the test bed's tree; the disk has become larger since."""
    output = tmp_path / "disk.raw"
    apt_ostree("compose", "disk", *options, f"--output={output}", f"--size={SIZE}")
    os.truncate(output, LATER)
    return output


@pytest.fixture
def signed_disk(new_machine: Callable[..., Machine], tmp_path: Path) -> Path:
    """A raw image of that tree with Debian's signed loaders."""
    output, extra, unpacked = tmp_path / "disk.raw", tmp_path / "extra", tmp_path / "unpacked"
    packages = tmp_path / "packages"
    packages.mkdir(mode=0o755)
    subprocess.run(["apt-get", "download", *SIGNED], cwd=packages, env=ENVIRONMENT, check=True)
    for package in packages.glob("*.deb"):
        run("dpkg-deb", "--extract", str(package), str(unpacked))
    for path in (path for pattern in SIGNED_FILES for path in unpacked.glob(pattern)):
        place = extra / path.relative_to(unpacked)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    with tree_of(new_machine(), extra) as options:
        apt_ostree("compose", "disk", *options, f"--output={output}", f"--size={SIZE}")
    return output


@pytest.fixture
def installed(options: list[str], tmp_path: Path) -> Path:
    """A disk that was in use, and that the test bed's tree was installed on, as a raw image."""
    output = tmp_path / "installed.raw"
    with output.open("wb") as new:
        new.truncate(BIG)
    device = run("losetup", "--find", "--show", str(output)).strip()
    try:
        subprocess.run(["mke2fs", "-q", "-F", device], check=True)
        apt_ostree("install-to-disk", device, *options, "--wipe", "--assumeyes")
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    return output


def command_line(host: Host) -> list[str]:
    return host.sh("cat /proc/cmdline").split()


def mounts(host: Host) -> dict[str, str]:
    rows = host.sh("findmnt --list --noheadings --real --output TARGET,FSTYPE").splitlines()
    return dict(row.split() for row in rows)


def check_machine(host: Host) -> None:
    """What is so on any machine from this disk."""
    assert host.sh("hostname") == "fx-disk\n"
    found = mounts(host)
    assert (found["/sysroot"], found["/boot"], found["/boot/efi"]) == ("ext4", "ext4", "vfat")
    assert host.sh("ls /boot/efi/EFI/BOOT") == "BOOTX64.EFI\n"
    assert "i" in host.sh("lsattr -d /").split()[0]
    assert KEY in host.sh("cat /root/.ssh/authorized_keys")
    assert host.failed_units() == []


def test_a_disk_starts_by_uefi_grows_and_starts_what_is_deployed(disk: Path, tmp_path: Path):
    with FirmwareMachine(disk, tmp_path / "vm", uefi=True) as machine:
        host = Host(machine)
        check_machine(host)
        assert host.exists("/sys/firmware/efi")
        assert int(host.sh("df --block-size=1 --output=size /sysroot | tail -n 1")) > SIZE
        (only,) = host.deployments()
        assert only["booted"]

        host.ao("kargs", "--append=fx.disk=1", timeout=TIMEOUT)
        assert "quotes" in host.failure("kargs", '--append=fx="a b"', code=3)
        machine.reboot()
        assert "fx.disk=1" in command_line(host)
        assert [one["booted"] for one in host.deployments()] == [True, False]

        host.ao("rollback", timeout=TIMEOUT)
        machine.reboot()
        assert "fx.disk=1" not in command_line(host)
        check_machine(host)
        host.check_clean()


def with_another_kernel(place: Path) -> tuple[Path, str]:
    """Return the disk image of a tree that has Debian's kernel for clouds, and the tree's ref."""
    text = DEFAULT_TREEFILE.read_text().replace("linux-image-amd64", "linux-image-cloud-amd64")
    treefile = shutil.copytree(DEFAULT_TREEFILE.parent, place / "cloud") / DEFAULT_TREEFILE.name
    treefile.write_text(text.replace("/minimal", "/cloud"))
    repo, ref = place / "repo", "debian/13/amd64/cloud"
    together = place / "cloud.yaml"
    together.write_text(json.dumps({"include": [str(treefile), str(CHECKOUT / "tools/testbed-tree.yaml")]}))
    apt_ostree("compose", "tree", str(together), f"--repo={repo}")
    return image(Wanted(repo=repo, ref=ref)), ref


@contextmanager
def root_of(disk: Path) -> Iterator[Path]:
    """Mount the root file system of a composed disk."""
    shown = json.loads(run("sfdisk", "--json", disk))["partitiontable"]["partitions"]
    (start,) = (part["start"] for part in shown if part["name"] == "root")
    place = make_scratch()
    run("mount", "-o", f"loop,offset={start * 512}", disk, place)
    try:
        yield place
    finally:
        run("umount", place)
        place.rmdir()


@pytest.fixture
def stocked(new_machine: Callable[..., Machine], disk: Path, tmp_path: Path) -> Path:
    """That disk, with another base in its repository, and the packages of nginx in /var/fx."""
    source = new_machine()
    source.boot()
    Host(source).sh("apt-get -q update; cd /var; mkdir fx; cd fx; apt-get -q download nginx nginx-common")
    source.stop()
    other, ref = with_another_kernel(tmp_path)
    with root_of(disk) as root, mounted_disk(source._disk()) as used, mounted_disk(other) as new:
        run("ostree", "pull-local", f"--repo={root}/ostree/repo", f"{new}/ostree/repo", ref)
        run("cp", "-r", used / "ostree/deploy/debian/var/fx", root / "ostree/deploy/debian/var")
    return disk


def test_another_kernel_and_a_live_package_and_back_by_the_menu(stocked: Path, tmp_path: Path):
    with FirmwareMachine(stocked, tmp_path / "vm", uefi=True) as machine:
        host = Host(machine)
        first = host.sh("uname -r")
        host.ao("rebase", "-C", ":debian/13/amd64/cloud", timeout=LONG)
        machine.reboot()
        assert "cloud" in host.sh("uname -r") and "cloud" not in first
        check_machine(host)

        packages = host.sh("ls /var/fx/*.deb").split()
        host.ao("install", "-C", "-A", "-y", *packages, timeout=LONG)
        assert "nginx" in host.sh("curl --silent http://localhost/")
        assert host.is_active("nginx.service")
        host.check_clean()
        machine.reboot(entry=1)
        assert "cloud" in host.sh("uname -r") and not host.exists("/usr/sbin/nginx")
        assert [one["booted"] for one in host.deployments()] == [False, True]

        machine.reboot()
        assert host.is_active("nginx.service")
        host.ao("rollback", timeout=LONG)
        machine.reboot()
        assert not host.exists("/usr/sbin/nginx")
        check_machine(host)


def counter(host: Host) -> list[str]:
    return [line for line in host.sh("cat /boot/grub/grubenv").splitlines() if "boot_counter" in line]


def test_a_disk_starts_by_bios_and_leaves_what_does_not_boot(disk: Path, tmp_path: Path):
    with FirmwareMachine(disk, tmp_path / "vm", uefi=False) as machine:
        host = Host(machine)
        assert not host.exists("/sys/firmware/efi")
        check_machine(host)
        assert counter(host) == []

        # Without a first program, the kernel looks for a root file system that it cannot find, and panics.
        host.ao("kargs", "--append=rdinit=/fx-none", "--append=panic=1", timeout=TIMEOUT)
        assert counter(host) == ["boot_counter=3"]
        machine.reboot()

        assert machine.console().count("Kernel panic") == 3
        assert "rdinit=/fx-none" not in command_line(host)
        booted, left = host.deployments()
        assert booted["booted"] and "gave it up after 3 attempts" in booted["rolled-back"]["reason"]
        assert "gave it up after 3 attempts" in left["failed"][0]["reason"]
        assert counter(host) == []
        check_machine(host)

        machine.reboot()
        assert "apt-ostree.boot" not in host.sh("cat /proc/cmdline")
        assert host.deployments()[0]["booted"]


@pytest.mark.parametrize("uefi", [True, False], ids=["uefi", "bios"])
def test_a_disk_that_was_installed_on_starts_and_grows(installed: Path, tmp_path: Path, uefi: bool):
    with FirmwareMachine(installed, tmp_path / "vm", uefi=uefi) as machine:
        host = Host(machine)
        check_machine(host)
        assert host.exists("/sys/firmware/efi") == uefi
        assert int(host.sh("df --block-size=1 --output=size /sysroot | tail -n 1")) > BIG * 8 // 10
        (only,) = host.deployments()
        assert only["booted"]
        host.ao("kargs", "--append=fx.disk=1", timeout=TIMEOUT)
        machine.reboot()
        assert "fx.disk=1" in command_line(host)
        host.check_clean()


def actions(status: dict) -> dict[str, str]:
    return {row["path"].rpartition("/")[2]: row["action"] for row in status["loaders"]}


def test_a_disk_starts_with_secure_boot_and_its_loaders_are_updated(signed_disk: Path, tmp_path: Path):
    grub, record = "/boot/efi/EFI/BOOT/grubx64.efi", "/boot/efi/EFI/debian/apt-ostree.json"
    with FirmwareMachine(signed_disk, tmp_path / "vm", uefi=True, secure_boot=True) as machine:
        host = Host(machine)
        found = host.json("bootloader", "status")
        assert (found["firmware"], found["secure-boot"]) == ("uefi", True)
        assert actions(found) == dict.fromkeys(("grubx64.efi", "mmx64.efi", "BOOTX64.EFI"), "keep")
        assert found["bios"]["digest"]

        # The menu reads entries and counts, though linux is a command of this GRUB.
        host.ao("kargs", "--append=fx.disk=1", timeout=TIMEOUT)
        assert counter(host) == ["boot_counter=3"]
        machine.reboot()
        assert "fx.disk=1" in command_line(host) and "apt-ostree.boot=counted" in command_line(host)
        assert counter(host) == []
        host.ao("rollback", timeout=TIMEOUT)
        machine.reboot()
        assert "fx.disk=1" not in command_line(host)

        # A loader that nobody knows is not touched. One that is recorded is replaced, and the new one starts.
        before, _, _ = host.sh(f"sha256sum {grub}").partition(" ")
        host.sh(f"printf x >> {grub}")
        host.failure("bootloader", "update", "-y", code=3)
        changed, _, _ = host.sh(f"sha256sum {grub}").partition(" ")
        host.sh(f"sed -i s/{before}/{changed}/ {record}")
        host.ao("bootloader", "update", "-y", timeout=TIMEOUT)
        assert host.sh(f"sha256sum {grub}").startswith(before)
        assert host.json("bootloader", "status")["rollback-available"]
        machine.reboot()
        assert host.json("bootloader", "status")["secure-boot"] is True
        assert actions(host.json("bootloader", "rollback", "--dry-run"))["grubx64.efi"] == "replace"
        assert [row["outcome"] for row in host.json("history") if "bootloader" in row["verb"]][-1:] == [
            "done"
        ]
