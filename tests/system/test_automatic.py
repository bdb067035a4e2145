"""Automatic updates on a booted machine: real runs of their unit, what they do, and what they tell."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.system.livehost import NOBODY, Host

UNIT = "apt-ostree-automatic.service"
DROP_IN = "/run/systemd/system/apt-ostree-automatic.service.d/test.conf"
PROMETHEUS = "/var/lib/prometheus/node-exporter"


def configure(host: Host, policy: str, *lines: str) -> None:
    text = "\n".join(["[Daemon]", f"AutomaticUpdatePolicy={policy}", "[Automatic]", *lines, ""])
    host.run("tee", "/etc/apt-ostree/apt-ostree.conf", input=text)


def environment(host: Host, *settings: str) -> None:
    """Have the unit run with these variables. Its reboot only leaves a mark, as the test bed makes it."""
    variables = ["PATH=/run/no-reboot:/usr/bin:/bin", *settings]
    lines = ["[Service]", *(f"Environment={one}" for one in variables), ""]
    host.run("tee", DROP_IN, input="\n".join(lines))
    host.sh("systemctl daemon-reload")


def run(host: Host, *, fails: bool = False) -> dict[str, Any]:
    """Run the unit as its timer does; return what `status` tells of it."""
    done = host.run("systemctl", "start", UNIT, check=False)
    assert (done.returncode != 0) is fails, host.sh(f"journalctl -u {UNIT} -o cat | tail -20")
    found: dict[str, Any] = host.json("status")["automatic-updates"]
    return found


def logged(host: Host) -> str:
    return host.sh(f"journalctl -u {UNIT} -o cat")


@pytest.fixture
def host(own: Host) -> Host:
    """A machine with a layered package and automatic updates, whose timer nobody has enabled."""
    own.ao("install", "-A", "-y", "fx-hello")
    own.sh(f"mkdir -p /etc/apt-ostree /run/no-reboot $(dirname {DROP_IN}); useradd alice")
    own.sh("printf '#!/bin/sh\\necho \"$@\" >> /run/rebooted\\n' > /run/no-reboot/systemctl")
    own.sh("chmod +x /run/no-reboot/systemctl")
    environment(own)
    return own


def test_real_empty_and_failing_updates(host: Host):
    assert (
        host.run("systemctl", "is-enabled", "apt-ostree-automatic.timer", check=False).stdout == "disabled\n"
    )
    configure(host, "check")
    assert (run(host)["outcome"], host.sh("ls /run/motd.d 2>/dev/null || true")) == ("current", "")

    # noted
    host.sh("testbed-fixtures stable security")
    before = host.deployments()
    assert run(host)["outcome"] == "noted"
    assert host.deployments() == before
    text = host.run(*NOBODY, "apt-ostree", "status").stdout
    assert "AutomaticUpdates: check; apt-ostree-automatic.timer: inactive, last run" in text
    assert "1 upgraded (fx-hello)" in text[text.index("AvailableUpdate:") :]
    assert "apt_ostree_update_available 1" in host.run(*NOBODY, "apt-ostree", "metrics").stdout

    # failing, as often as configured
    configure(host, "apply", "Attempts=2", "RetryPause=1s")
    environment(host, "APT_OSTREE_FAILPOINT=layering.before-commit=error")
    for number in (1, 2):
        found = run(host, fails=True)
        assert (found["outcome"], found["failed-attempts"]) == ("failed", number)
        host.sh(f"sleep {number}.1")  # the pause is over
    left = run(host)
    assert left["outcome"] == "deferred" and "[Attempts=2]" in left["reasons"][0]
    assert host.deployments() == before

    # real, but not while a user is logged in
    configure(host, "apply", "Attempts=3", "RetryPause=1s", "AfterReboot=/usr/bin/touch /run/was-told")
    environment(host)
    session = ("-p", "PAMName=login", "-p", "User=alice", "-p", "Environment=XDG_SESSION_CLASS=user")
    host.run("systemd-run", "-q", "--unit=session", *session, "sleep", "600")
    host.sh("timeout 20 sh -c 'until loginctl list-sessions | grep -q alice; do sleep 0.1; done'")
    assert "Updates: deferred: it failed 2 times" in host.sh("cat /run/motd.d/apt-ostree")
    found = run(host)
    assert (found["outcome"], found["failed-attempts"]) == ("deferred", 0)
    assert "users logged in (alice) [RebootWithUsers=no]" in found["reasons"][0]
    assert host.deployments()[0]["staged"] and found["prediction"]["live-possible"]
    assert "deferred: users logged in (alice)" in logged(host)
    assert "users logged in" in host.sh("cat /run/motd.d/apt-ostree")
    assert "deferred: users logged in (alice)" in host.ao("status").stdout
    assert host.sh("cat /run/rebooted 2>/dev/null || true") == ""
    host.sh("loginctl terminate-user alice")
    host.sh("timeout 20 sh -c 'while loginctl list-sessions | grep -q alice; do sleep 0.1; done'")

    assert run(host)["outcome"] == "reboot"
    assert host.sh("cat /run/rebooted") == "reboot\n"
    host.machine.reboot()
    assert host.run("fx-hello").stdout == "hello 1.1\n"
    host.sh("systemctl start apt-ostree-rebooted.service; test -e /run/was-told")
    assert host.run("systemctl", "is-failed", "apt-ostree-rebooted.service", check=False).returncode != 0
    assert run(host)["waiting-since"] is None

    metrics(host)
    live_updates_and_halts(host)


def metrics(host: Host) -> None:
    """The file for Prometheus is written if its directory is there."""
    host.sh("systemctl start apt-ostree-metrics.service")
    assert "skipped" in host.sh("journalctl -u apt-ostree-metrics.service -o cat")
    host.sh(f"mkdir -p {PROMETHEUS}; systemctl start apt-ostree-metrics.service")
    text = host.sh(f"cat {PROMETHEUS}/apt-ostree.prom")
    assert text == host.ao("metrics").stdout
    assert 'apt_ostree_automatic_outcome{outcome="current"} 1' in text
    assert host.sh(f"ls -A {PROMETHEUS}") == "apt-ostree.prom\n"


def live_updates_and_halts(host: Host) -> None:
    """A file halts updates; without that they can be live."""
    host.sh("testbed-fixtures stable updates")
    configure(host, "live", "Phases=0% 100%", "PhaseLength=1d")
    assert "it is for 0% of the machines so far" in run(host)["reasons"][0]
    assert host.run("fx-hello").stdout != "hello 2.0\n"
    host.sh("echo 'all # until Monday' > /srv/halt")
    configure(host, "live", "Halt=file:///srv/halt", "Phases=0% 100%", "PhaseLength=1s")
    halted = run(host)
    assert "updates are halted (all) [Halt=file:///srv/halt]" in halted["reasons"]
    host.sh("rm /srv/halt")
    assert "cannot be read" in run(host)["reasons"][0]
    host.sh("echo '# nothing' > /srv/halt")
    assert run(host)["outcome"] == "live"
    assert host.run("fx-hello").stdout == "hello 2.0\n"
    entry = json.loads(host.ao("history", "--json").stdout)[-1]
    assert entry["verb"] == "upgrade --trigger-automatic-update-policy"
