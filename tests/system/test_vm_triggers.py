"""What a boot gives to the kernel, in a virtual machine: modules, sysctl, binary formats, AppArmor."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.system.livehost import Host

TIMEOUT = 600  # seconds of one command; everything is emulated
PROFILES = "/sys/kernel/security/apparmor/profiles"


def confinement(host: Host) -> str:
    pid = host.unit_property("fx-kernel.service", "MainPID")
    return host.sh(f"cat /proc/{pid}/attr/current").strip()


def kernel(host: Host) -> dict[str, list[str]]:
    """Return the settings of the kernel that fx-kernel is about."""
    return {
        "profiles": host.sh(f"sed -n 's/^\\(fx-[^ ]*\\) .*/\\1/p' {PROFILES}").split(),
        "keys": host.sh("cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/net/ipv4/igmp_max_msf").split(),
        "formats": host.sh("cd /proc/sys/fs/binfmt_misc; ls | grep fx- || true").split(),
    }


@pytest.mark.vm
def test_the_kernel_gets_what_a_boot_gives_it_and_gives_it_back(new_vm: Callable[..., Host]):
    def prepare(host: Host) -> None:
        host.ao("install", "-A", "-y", "apparmor", timeout=TIMEOUT)
        host.sh("find /etc/apparmor.d -maxdepth 1 -type f -delete")  # a hundred, which take minutes here
        host.ao("install", "--download-only", "fx-kernel", timeout=TIMEOUT)

    host = new_vm(prepare)
    assert host.sh("cat /sys/module/apparmor/parameters/enabled") == "Y\n"
    before = kernel(host)
    assert before["profiles"] == before["formats"] == []

    host.ao("install", "-A", "-y", "-C", "fx-kernel", timeout=TIMEOUT)
    assert kernel(host) == {"profiles": ["fx-kernel"], "keys": ["77", "21"], "formats": ["fx-one"]}
    assert confinement(host) == "fx-kernel (enforce)"
    assert host.exists("/sys/module/dummy")
    host.sh("systemctl restart fx-kernel")
    assert confinement(host) == "fx-kernel (enforce)"

    host.suites("stable", "updates")
    host.ao("upgrade", "-A", "-y", "--packages-only", "--restart-services", timeout=TIMEOUT)
    upgraded = {"profiles": ["fx-kernel"], "keys": ["77", before["keys"][1]], "formats": ["fx-two"]}
    assert kernel(host) == upgraded
    assert confinement(host) == "fx-kernel (complain)"

    host.ao("rollback", "--live", timeout=TIMEOUT)
    assert kernel(host) == {"profiles": ["fx-kernel"], "keys": ["77", "21"], "formats": ["fx-one"]}
    assert confinement(host) == "fx-kernel (enforce)"
    host.ao("apply-live", "--reset", timeout=TIMEOUT)
    assert kernel(host) == before
    assert not host.is_active("fx-kernel.service")

    # The profile of the pending deployment is older, by its time, than what was compiled last.
    host.reboot()
    assert kernel(host) == upgraded
    assert confinement(host) == "fx-kernel (complain)"
