"""The rollback policy on a booted machine: judged boots, the way back, marks, and watched live changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed_lib.common import TestbedError, wait_until

from tests.system.livehost import Host
from tests.system.test_automatic import UNIT

CONFIG = "/etc/apt-ostree/apt-ostree.conf"
CHECK = "/etc/apt-ostree/health.d/no-update"
VERDICT = "apt-ostree-verdict.service"


def configure(host: Host, *lines: str) -> None:
    host.sh("mkdir -p /etc/apt-ostree/health.d")
    host.run("tee", CONFIG, input="\n".join([*lines, ""]))


def reboots_twice(host: Host) -> None:
    """Reboot, and wait until the machine has rebooted by itself, too. A command in it would hold that up."""
    machine = host.machine

    def boots() -> int:
        try:
            return int(machine._state()["boots"])
        except TestbedError:  # between two boots
            return 0

    before = boots()
    machine._ask("reboot", "booted")
    wait_until(lambda: boots() >= before + 2, seconds=120, what="a reboot from inside")
    machine.wait_settled()


def judged(host: Host) -> str:
    """Return what the unit of the verdict has logged in this boot, which has come to its end."""
    return host.sh(f"journalctl -b -u {VERDICT} -o cat")


@pytest.fixture
def host(own: Host) -> Iterator[Host]:
    """A machine whose first boot was good, so that this one costs a condition only."""
    assert own.unit_property(VERDICT, "ConditionResult") == "no"
    assert own.exists("/var/lib/apt-ostree/verdicts.json")
    yield own
    own.sh(f"rm -f {CHECK}")


def test_an_update_that_does_not_boot_goes_back(host: Host):
    configure(host, "[Rollback]", "Boot=rollback", "[Daemon]", "AutomaticUpdatePolicy=stage")
    host.ao("install", "fx-hello")
    host.reboot()
    assert "is good" in judged(host)
    host.sh(f"printf '#!/bin/sh\\nfx-hello | grep 1.0\\n' >{CHECK}; chmod +x {CHECK}")
    host.sh("testbed-fixtures stable security")
    host.sh(f"systemctl start {UNIT}")
    assert host.deployments()[0]["staged"]

    reboots_twice(host)
    assert host.run("fx-hello").stdout == "hello 1.0\n"
    assert "is booted again, because the boot of" in judged(host)
    booted, left = host.deployments()
    assert "no-update" in booted["rolled-back"]["reason"]
    assert [row["way"] for row in left["failed"]] == ["boot"]
    text = host.ao("status").stdout
    assert "RolledBack: on " in text
    assert "Failed: boot on " in text
    assert "Rollback: " in host.sh("cat /run/motd.d/apt-ostree-boot")

    # left alone
    host.sh(f"systemctl start {UNIT}")
    found = host.json("status")["automatic-updates"]
    assert found["outcome"] == "deferred"
    assert "it has failed before and is left" in found["reasons"][0]
    before = host.look()
    assert "have failed before" in host.failure("upgrade", code=3)
    assert "have failed before" in host.failure("rollback", code=3)
    assert "have failed before" in host.failure("upgrade", "-A", "-y", code=3)
    assert before.deployments == host.look().deployments
    assert "it is refused without --allow-failed" in host.ao("upgrade", "-n").stderr

    # told to
    host.sh(f"rm {CHECK}")
    host.ao("upgrade", "-A", "-y", "--allow-failed")
    host.reboot()
    assert "is good" in judged(host)
    assert host.run("fx-hello").stdout == "hello 1.1\n"
    assert [row["failed"] for row in host.deployments()] == [[], []]
    assert not host.exists("/var/lib/apt-ostree/unjudged")


@pytest.mark.extended
def test_by_default_it_is_told_and_a_good_boot_clears(host: Host):
    configure(host, "[Live]", "SettleSeconds=0.2", "[Rollback]", "LiveWatch=3s")
    unit = "systemd-tmpfiles-setup.service"  # well in the first boot
    drop_in = f"/etc/systemd/system/{unit}.d/fx.conf"
    fails = "[Service]\nExecStartPost=/bin/sh -c '! test -e /usr/bin/fx-hello'\n"
    host.sh(f"mkdir {Path(drop_in).parent}")
    host.run("tee", drop_in, input=fails)
    # A service that is new counts in no judgement of a boot.
    new = "[Service]\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n"
    host.run("tee", "/etc/systemd/system/fx-new.service", input=new)
    host.sh("systemctl enable -q fx-new; apt-ostree install fx-hello")
    host.reboot()
    assert f": {unit} has failed, not so in the last good boot" in judged(host)
    assert host.run("fx-hello").returncode == 0
    assert len(host.deployments()[0]["failed"]) == 1
    assert host.sh("journalctl -b APT_OSTREE_KIND=marked -o cat")
    host.sh(f"systemctl disable -q fx-new; rm /etc/systemd/system/fx-new.service {drop_in}")
    host.reboot()
    assert "is good" in judged(host)
    assert host.deployments()[0]["failed"] == []

    host.ao("install", "-A", "-y", "fx-service")
    host.sh("systemctl kill --signal=SEGV fx-service; sleep 1; systemctl is-failed fx-service")
    host.sh("timeout 30 sh -c 'while test -e /usr/libexec/fx-service; do sleep 0.1; done'")
    host.sh(
        "timeout 30 sh -c 'while systemctl -q is-active apt-ostree-unconfirmed-*.service; do sleep 0.1; done'"
    )
    assert host.json("history")[-2]["outcome"] == "unhealthy"
    assert "have failed before" in host.failure("install", "-A", "-y", "fx-service", code=3)
