"""status on a booted machine: what it tells in each state, to whom, and how quickly."""

from __future__ import annotations

import json
import statistics
from typing import Any

from tests.system.livehost import NOBODY, Host

ARRAYS = ("packages", "requested-packages", "requested-local-packages", "base-removals")


def status(host: Host, *options: str) -> dict[str, Any]:
    found = host.json("status", *options)
    assert (found["transaction"], found["cached-update"], found["update-driver"]) == (None, None, None)
    assert all(isinstance(entry[key], list) for entry in found["deployments"] for key in ARRAYS)
    return found


def test_a_plain_system(host: Host):
    (entry,) = status(host)["deployments"]
    assert (entry["booted"], entry["staged"], entry["unlocked"]) == (True, False, "none")
    assert entry["checksum"] in host.sh("ostree admin status")
    assert entry["version"] == entry["base-commit-meta"]["version"]
    assert "base-checksum" not in entry
    assert "live-replaced" not in entry
    assert host.ao("status", "--pending-exit-77").returncode == 0
    text = host.ao("status").stdout.splitlines()
    assert text[:2] == ["State: idle", "Deployments:"]
    assert text[2].startswith("● ")


def test_a_staged_deployment(host: Host):
    host.ao("install", "fx-hello")
    pending, booted = status(host)["deployments"]
    assert (pending["staged"], pending["booted"], booted["booted"]) == (True, False, True)
    assert pending["packages"] == pending["requested-packages"] == ["fx-hello"]
    assert pending["base-checksum"] == booted["checksum"]
    assert [package["name"] for package in pending["diff"]["added"]] == ["fx-hello"]
    assert [entry["booted"] for entry in status(host, "--booted")["deployments"]] == [True]
    host.ao("status", "--pending-exit-77", code=77)
    found = host.ao("status", "--jsonpath", "$.deployments[0].packages[*]").stdout
    assert json.loads(found) == ["fx-hello"]


def test_anyone_may_ask(host: Host):
    host.ao("install", "-A", "-y", "fx-hello")
    as_root = host.run("apt-ostree", "status", "-v").stdout
    assert host.run(*NOBODY, "apt-ostree", "status", "-v").stdout == as_root
    host.run(*NOBODY, "apt-ostree", "status", "--json")


def test_a_live_change_and_what_covers_it(host: Host):
    host.ao("install", "-A", "-y", "fx-hello")
    pending, booted = status(host)["deployments"]
    assert booted["live-replaced"] == pending["checksum"]
    assert booted["live-generation"]["shown"] is True
    assert [package["name"] for package in booted["live-diff"]["added"]] == ["fx-hello"]
    host.sh('mount --bind "/sysroot/ostree/deploy/debian/deploy/$(ostree admin status | '
            'sed -n "s/^[*] debian //p")/usr" /usr')  # fmt: skip
    try:
        (booted,) = status(host, "--booted")["deployments"]
        assert booted["live-generation"]["shown"] is False
    finally:
        host.run("umount", "--lazy", "/usr")


def test_an_interrupted_change(host: Host):
    host.ao("install", "fx-hello")
    host.ao("apply-live", "-y", code=1, failpoint="act.switched=kill")
    pending, booted = status(host)["deployments"]
    assert booted["live-inprogress"] == pending["checksum"]
    assert "InterruptedLiveCommit" in host.ao("status").stdout
    host.ao("recover")
    assert "live-inprogress" not in status(host)["deployments"][1]


def test_wrong_use(host: Host):
    host.ao("status", "--json", "--jsonpath", "$", code=2)
    host.ao("status", "--jsonpath", "deployments", code=2)
    host.ao("status", "--sysroot", "/nonexistent", code=1)


def test_another_system(host: Host):
    host.sh("mkdir /var/tmp/other; ostree admin init-fs --modern /var/tmp/other")
    assert status(host, "--sysroot", "/var/tmp/other")["deployments"] == []


def test_it_is_quick(host: Host):
    host.ao("install", "-A", "-y", "fx-hello")
    pairs = json.loads(host.run_program("status_times.py").stdout)
    imports, runs = (statistics.median(row) for row in zip(*pairs, strict=True))
    assert runs <= 3 * imports, f"{runs * 1000:.0f} ms, the import alone {imports * 1000:.0f} ms"
