"""rollback and cleanup on a booted machine: what boots next, and what is removed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system import livehost
from tests.system.livehost import Host

STORE = "/var/lib/apt-ostree/debs"
WORK = "/sysroot/ostree/apt-ostree"


@pytest.fixture
def host(disk: Path) -> Iterator[Host]:
    with livehost.booted(disk) as machine:
        yield machine
        machine.check_clean()


def deployments(host: Host) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(host.ao("status", "--json").stdout)["deployments"]
    return found


def names(host: Host) -> list[list[str]]:
    return [entry["requested-packages"] for entry in deployments(host)]


def test_rollback_there_and_back(host: Host):
    refused = host.look()
    host.ao("rollback", code=3)
    assert host.look().everything() == refused.everything()
    host.ao("install", "fx-hello")
    host.reboot()
    assert names(host) == [["fx-hello"], []]
    assert host.json("rollback")[-1]["next_boot"] is True
    assert names(host) == [[], ["fx-hello"]]
    host.ao("status", "--pending-exit-77", code=77)
    host.ao("rollback")
    assert names(host) == [["fx-hello"], []]
    host.ao("rollback")
    host.reboot()
    assert [entry["booted"] for entry in deployments(host)] == [True, False]
    assert not host.exists("/usr/share/fx-hello")


def test_rollback_drops_a_staged_deployment_and_says_so(host: Host):
    host.ao("install", "fx-hello")
    result = host.json("rollback")[-1]
    assert [row["reason"] for row in result["dropped"]] == ["staged"]
    assert result["next_boot"] is False
    assert names(host) == [[]]


def test_cleanup_wants_to_know_what(host: Host):
    before = host.look()
    host.ao("cleanup", code=2)
    host.ao("cleanup", "-p", "--os", "nosuch", code=2)
    assert host.look().everything() == before.everything()


def test_cleanup_of_a_pending_deployment_that_is_live(host: Host):
    host.ao("install", "-A", "-y", "fx-hello")
    live = deployments(host)[1]["live-replaced"]
    before = host.look()
    host.ao("cleanup", "-b", "-p", "-r")
    (booted,) = deployments(host)
    assert booted["live-replaced"] == live
    assert booted["live-generation"]["shown"]
    host.run("ostree", "show", live)
    assert host.run("fx-hello").stdout == "hello 1.0\n"
    after = host.look()
    assert (after.usr, after.mounts, after.live_refs) == (before.usr, before.mounts, before.live_refs)
    host.ao("apply-live", "--reset")
    host.ao("cleanup", "-b")
    assert not host.look().live_refs
    assert host.run("ostree", "show", live, check=False).returncode != 0


def test_cleanup_keeps_pinned_and_removes_the_rest(host: Host):
    host.ao("install", "fx-hello")
    host.reboot()
    host.run("ostree", "admin", "pin", "1")
    result = host.json("cleanup", "-r")[-1]
    assert [row["reason"] for row in result["kept"]] == ["pinned"]
    assert names(host) == [["fx-hello"], []]
    host.run("ostree", "admin", "pin", "--unpin", "1")
    host.ao("cleanup", "-r")
    assert names(host) == [["fx-hello"]]
    assert deployments(host)[0]["packages"] == ["fx-hello"], "the base's commit is still there"


def test_cleanup_keeps_the_files_of_local_packages_that_are_needed(host: Host):
    package = host.sh("ls /var/lib/testbed/repo/pool/fx-conf_1.0_all.deb").strip()
    host.ao("install", package)
    assert deployments(host)[0]["requested-local-packages"] == ["fx-conf=1.0"]
    (needed,) = host.sh(f"ls {STORE} 2>/dev/null || true").split()
    host.sh(f"cp {package} {STORE}/{'0' * 64}.deb")
    host.ao("cleanup", "-b")
    assert host.sh(f"ls {STORE} 2>/dev/null || true").split() == [needed]
    host.ao("cleanup", "-p")
    assert host.sh(f"ls {STORE} 2>/dev/null || true").split() == []


def test_cleanup_of_what_killed_programs_left(host: Host):
    host.ao("install", "fx-hello", code=1, failpoint="layering.after-install=kill")
    left = host.sh(f"ls {WORK}/work")
    assert left
    ref = "apt-ostree/live/77/target"
    host.sh(
        "unshare --mount sh -euc 'mount -o remount,rw /sysroot; "
        f"mkdir -p {WORK}/tree-x/y; ostree refs --create {ref} debian/13/amd64/minimal'"
    )
    host.ao("cleanup", "-b")
    assert host.sh(f"ls {WORK}/work; ls -d {WORK}/tree-* || true") == ""
    assert ref not in host.look().refs
