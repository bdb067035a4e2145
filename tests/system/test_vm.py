"""A live install in a virtual machine: a real kernel, initramfs and reboot, nothing of a container."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from testbed_lib.images import Wanted

from tests.system.livehost import Host, wait_for

DEBIAN_12 = Path(__file__).resolve().parents[2] / "examples/debian-12-release-only.yaml"
TIMEOUT = 600  # seconds of one command; everything is emulated


@pytest.fixture
def host(new_vm: Callable[..., Host]) -> Host:
    """A virtual machine that has the package lists and archives already."""
    return new_vm(lambda host: download(host, "nginx-light", "fx-hello"))


def download(host: Host, *packages: str) -> None:
    host.ao("install", "--download-only", *packages, timeout=TIMEOUT)


def install(host: Host, *packages: str) -> None:
    host.ao("install", "-A", "-y", "-C", *packages, timeout=TIMEOUT)


def usr_mounts(host: Host) -> list[str]:
    return host.sh("awk '$5 == \"/usr\" {print $1}' /proc/1/mountinfo").splitlines()


def answers(host: Host) -> bool:
    return "nginx" in host.run("curl", "--silent", "--fail", "http://localhost/", check=False).stdout


def check_modules(host: Host) -> None:
    host.sh("test -d /usr/lib/modules/$(uname -r)/kernel; modprobe -n -v dummy | grep -q dummy.ko")


def check_no_live_trace(host: Host) -> None:
    assert host.sh("ostree refs --list apt-ostree/live") == ""
    assert host.sh("ls -A /ostree/apt-ostree/layers 2>/dev/null || true") == ""
    assert not host.exists("/var/lib/apt-ostree/live")
    assert host.sh("findmnt -no FSTYPE /usr") == "ext4\n"
    assert host.look().records == []


@pytest.mark.vm
def test_live_install_and_reboot(host: Host):
    before = len(usr_mounts(host))
    install(host, "nginx-light")
    assert answers(host)
    check_modules(host)
    assert len(usr_mounts(host)) == before + 1
    install(host, "fx-hello")
    assert host.run("fx-hello").stdout == "hello 1.0\n"
    assert len(usr_mounts(host)) == before + 1  # slipped beneath the first view, which then went
    assert answers(host)

    host.reboot()

    assert answers(host)
    assert host.run("fx-hello").stdout == "hello 1.0\n"
    check_modules(host)
    check_no_live_trace(host)
    host.check_clean()
    host.run("ostree", "fsck", "--quiet", timeout=TIMEOUT)


@pytest.mark.vm
def test_debian_12_stacks_and_resets(new_vm: Callable[..., Host]):
    """Linux 6.1 has neither MOVE_MOUNT_BENEATH nor lowerdir+: views are stacked, and popped."""
    host = new_vm(lambda host: download(host, "fx-hello", "fx-service"), Wanted(treefile=DEBIAN_12))
    assert host.sh("uname -r").startswith("6.1.")
    before, mounts = host.contents_of_usr(), len(usr_mounts(host))

    install(host, "fx-hello")
    install(host, "fx-service")

    assert len(usr_mounts(host)) == mounts + 2
    assert host.run("fx-hello").stdout == "hello 1.0\n"
    assert host.is_active("fx-service")
    check_modules(host)
    host.ao("rollback", "--live")
    assert not host.is_active("fx-service")
    assert host.run("fx-hello").stdout == "hello 1.0\n"
    host.ao("apply-live", "--reset")
    assert len(usr_mounts(host)) == mounts
    assert host.contents_of_usr() == before
    host.check_clean()


@pytest.mark.vm
def test_soft_reboot_ends_live_state(host: Host):
    install(host, "fx-hello")
    host.run("systemctl", "soft-reboot", check=False)
    wait_for(host, "systemctl show -p SoftRebootsCount --value | grep -q 1", 300)
    host.run("systemctl", "is-system-running", "--wait", check=False, timeout=TIMEOUT)

    check_no_live_trace(host)
    assert not host.succeeds("command -v fx-hello")
    host.check_clean()


@pytest.mark.vm
def test_a_hotfix_stays_until_another_deployment(host: Host):
    host.ao("usroverlay", "--hotfix", timeout=TIMEOUT)
    host.sh("echo fixed >/usr/share/fx-fixed; sync")
    host.reboot()
    assert (
        host.sh("cat /usr/share/fx-fixed; ostree admin status | grep Unlocked")
        == "fixed\n    Unlocked: hotfix\n"
    )
    host.sh("echo again >/usr/share/fx-fixed; sync")
    host.ao("rollback", timeout=TIMEOUT)
    host.reboot()
    assert not host.exists("/usr/share/fx-fixed")
    host.check_clean()


@pytest.mark.vm
def test_the_kernel_unpacks_files_of_etc_that_follow_the_initramfs(new_vm: Callable[..., Host]):
    host = new_vm(lambda host: host.run_program("track_in_initramfs.sh"))
    assert host.sh("cat /run/fx-seen /etc/fx-marker") == "inside\n640 0\noutside\n"
    host.check_clean()
