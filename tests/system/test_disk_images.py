"""Composed disks start machines from the firmware on: UEFI and BIOS, the boot menu, a root that grows."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testbed_lib.common import CHECKOUT, ENVIRONMENT, run
from testbed_lib.image import mounted_disk
from testbed_lib.machine import Machine
from testbed_lib.qemu import _ARGUMENTS

from tests.system.firmware import FirmwareMachine
from tests.system.livehost import Host

pytestmark = pytest.mark.vm

TIMEOUT = 600  # seconds of one command; everything is emulated
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


@pytest.fixture
def options(new_machine: Callable[..., Machine]) -> Iterator[list[str]]:
    """The test bed's tree, and what makes a machine of it that the tests can reach."""
    source = new_machine()
    with mounted_disk(source._disk()) as mounted:
        repo = mounted / "ostree/repo"
        refs = run("ostree", "refs", f"--repo={repo}").split()
        (ref,) = (name for name in refs if name.startswith("debian/"))
        machine = ["--hostname=fx-disk", "--console=ttyS0"]
        yield [
            f"--repo={repo}",
            f"--ref={ref}",
            *machine,
            *(f"--karg={one}" for one in _ARGUMENTS.split()[1:]),
        ]


@pytest.fixture
def disk(options: list[str], tmp_path: Path) -> Path:
    """A raw image of the test bed's tree; the disk has become larger since."""
    output = tmp_path / "disk.raw"
    apt_ostree("compose", "disk", *options, f"--output={output}", f"--size={SIZE}")
    os.truncate(output, LATER)
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
