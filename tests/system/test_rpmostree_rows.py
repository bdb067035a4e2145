"""What docs/rpm-ostree.md says is the same: changes of packages, the initramfs and kernel arguments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system import livehost
from tests.system.livehost import Host, reboots

pytestmark = pytest.mark.extended

#: Older versions of packages of the base.
ATTR, PING = "/var/tmp/attr_0.deb", "/var/tmp/iputils-ping_0.deb"
#: Of what dracut takes by itself nothing is left but what it needs: that is fast.
FAST = ("--arg=--modules", "--arg=base")


@pytest.fixture(scope="module")
def machine(disk: Path) -> Iterator[Host]:
    """A machine that has other versions of two packages of the base as files."""
    with livehost.booted(disk) as made:
        for path, name in ((ATTR, "attr"), (PING, "iputils-ping")):
            made.run_program("build_deb.sh", path, name, "0", "libc6", "mine")
        yield made
        made.check_clean()


@pytest.fixture
def host(machine: Host) -> Iterator[Host]:
    """The machine, which gets back the booted deployment alone."""
    yield machine
    machine.undeploy()


def pending(host: Host) -> dict[str, Any]:
    """Return the deployment that the next boot starts; what it has of the base is in two further keys."""
    entry = host.deployments()[0]
    return entry | {
        "removals": [package["name"] for package in entry["base-removals"]],
        "replacements": {row["name"]: row["new"] for row in entry["base-local-replacements"]},
    }


def is_locked(entry: dict[str, Any]) -> bool:
    return bool(entry.get("finalization-locked"))


def planned(plan: dict[str, Any], kind: str) -> list[str]:
    return [step["name"] for step in plan["transaction"][kind]]


def test_uninstall(host: Host):
    assert reboots(host, "pkg-add", "fx-hello", "fx-conf", "fx-var", "--reboot")
    before = host.deployments()
    assert planned(host.json("uninstall", "fx-hello", "--dry-run"), "remove") == ["fx-hello"]
    assert host.deployments() == before
    host.ao("uninstall", "fx-hello", "--lock-finalization", "--allow-inactive")
    entry = pending(host)
    assert entry["packages"] == ["fx-conf", "fx-var"] and is_locked(entry)
    assert reboots(host, "uninstall", "fx-conf", "--reboot")
    assert not reboots(host, "pkg-remove", "--idempotent", "fx-conf", "-r")
    entry = pending(host)
    assert entry["packages"] == ["fx-var"] and not is_locked(entry)


def test_overrides_are_made_and_reset(host: Host):
    assert planned(host.json("override", "remove", "nano", "-n"), "remove") == ["nano"]
    assert pending(host)["booted"]
    host.ao(
        "override", "remove", "nano", "-C", "--lock-finalization", "--install=fx-hello", f"--replace={ATTR}"
    )
    entry = pending(host)
    assert (entry["removals"], entry["requested-base-removals"]) == (["nano"], ["nano"])
    assert (entry["replacements"], entry["packages"]) == ({"attr": "0"}, ["fx-hello"])
    assert entry["requested-base-local-replacements"] == ["attr=0"] and is_locked(entry)
    assert entry["requested-local-packages"] == []
    assert reboots(host, "override", "remove", "iputils-ping", "-r", "--uninstall=fx-hello")
    entry = pending(host)
    assert (entry["removals"], entry["packages"]) == (["iputils-ping", "nano"], []) and not is_locked(entry)
    assert entry["replacements"] == {"attr": "0"}
    assert host.json("override", "reset", "nano", "-n")["changed"] and pending(host) == entry
    assert "Added:\n  nano " in host.ao("override", "reset", "nano", "-n").stdout
    host.ao("override", "reset", "nano", "-C", "--lock-finalization", "--install=fx-conf")
    entry = pending(host)
    assert (entry["removals"], entry["replacements"]) == (["iputils-ping"], {"attr": "0"})
    assert entry["packages"] == ["fx-conf"] and is_locked(entry)
    assert reboots(host, "override", "reset", "-a", "-r", "--uninstall=fx-conf")
    entry = pending(host)
    assert (entry["removals"], entry["replacements"], entry["packages"]) == ([], {}, [])


def test_replacements_and_resets_of_parts(host: Host):
    plan = host.json("override", "replace", ATTR, "-n", "--remove=nano")
    assert (planned(plan, "downgrade"), planned(plan, "remove")) == (["attr"], ["nano"])
    assert pending(host)["booted"]
    host.ao("override", "replace", ATTR, "-C", "--lock-finalization", "--remove=nano", "--install=fx-hello")
    entry = pending(host)
    assert (entry["replacements"], entry["removals"]) == ({"attr": "0"}, ["nano"])
    assert entry["packages"] == ["fx-hello"] and is_locked(entry)
    assert reboots(host, "override", "replace", PING, "-r", "--uninstall=fx-hello")
    assert pending(host)["replacements"] == {"attr": "0", "iputils-ping": "0"}

    host.ao("install", "fx-conf", "/var/lib/testbed/repo/pool/fx-var_1.0_all.deb")
    assert reboots(host, "initramfs-etc", "--track=/etc/hosts", "-r")
    host.ao("reset", "-l", "--lock-finalization")
    entry = pending(host)
    assert (entry["packages"], entry["requested-packages"]) == ([], []) and is_locked(entry)
    assert (sorted(entry["replacements"]), entry["removals"]) == (["attr", "iputils-ping"], ["nano"])
    assert entry["initramfs-etc"] == ["/etc/hosts"]
    host.ao("reset", "-o", "--install=fx-hello")
    entry = pending(host)
    assert (entry["replacements"], entry["removals"], entry["packages"]) == ({}, [], ["fx-hello"])
    assert entry["initramfs-etc"] == ["/etc/hosts"]
    assert reboots(host, "reset", "-i", "-r", "--uninstall=fx-hello")
    entry = pending(host)
    assert "initramfs-etc" not in entry and entry["packages"] == []


def test_the_initramfs_and_kernel_arguments(host: Host):
    host.ao("ex", "initramfs-etc", "--track=/etc/hosts")
    host.ao("initramfs-etc", "--untrack-all", "--track=/etc/passwd", "--lock-finalization")
    entry = pending(host)
    assert entry["initramfs-etc"] == ["/etc/passwd"] and is_locked(entry)
    assert reboots(host, "initramfs", "--enable", *FAST, "-r")
    assert pending(host)["regenerate-initramfs"] is True
    host.ao("initramfs", "--disable", "--lock-finalization")
    entry = pending(host)
    assert entry["regenerate-initramfs"] is False and is_locked(entry)
    assert entry["initramfs-etc"] == ["/etc/passwd"]

    before = host.ao("kargs").stdout.split()
    assert reboots(host, "kargs", "--append=fx=1", "--reboot")
    assert host.ao("kargs").stdout.split() == [*before, "fx=1"]
    running = host.ao("kargs", "--import-proc-cmdline").stdout.split()
    assert set(running) <= set(host.sh("cat /proc/cmdline").split()) and "fx=1" not in running
