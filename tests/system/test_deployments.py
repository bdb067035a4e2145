"""rollback and cleanup on a booted machine: what boots next, and what is removed."""

from __future__ import annotations

import pytest

from tests.system.livehost import WRITABLE_SYSROOT, Host

STORE = "/var/lib/apt-ostree/debs"
WORK = "/sysroot/ostree/apt-ostree"


def names(host: Host) -> list[list[str]]:
    return [entry["requested-packages"] for entry in host.deployments()]


def test_rollback_there_and_back(own: Host):
    refused = own.look()
    own.ao("rollback", code=3)
    assert own.look().everything() == refused.everything()
    own.ao("install", "fx-hello")
    own.reboot()
    assert names(own) == [["fx-hello"], []]
    assert own.json("rollback")["next_boot"] is True
    assert names(own) == [[], ["fx-hello"]]
    own.ao("status", "--pending-exit-77", code=77)
    own.ao("rollback")
    assert names(own) == [["fx-hello"], []]
    own.ao("rollback")
    own.reboot()
    assert [entry["booted"] for entry in own.deployments()] == [True, False]
    assert not own.exists("/usr/share/fx-hello")


def test_rollback_refuses_while_a_deployment_is_staged(own: Host):
    own.ao("install", "fx-hello")
    own.reboot()
    own.ao("install", "fx-service")
    before = own.look()
    refused = own.failure("rollback", code=3)
    assert "is staged" in refused and "cleanup --pending" in refused
    own.ao("rollback", "--dry-run", code=3)
    assert own.look().everything() == before.everything()
    own.ao("cleanup", "--pending")
    assert own.json("rollback")["next_boot"] is True
    assert names(own) == [[], ["fx-hello"]]


def test_cleanup_wants_to_know_what(own: Host):
    before = own.look()
    own.ao("cleanup", code=2)
    own.ao("cleanup", "-p", "--os", "nosuch", code=2)
    assert own.look().everything() == before.everything()


@pytest.mark.extended
def test_cleanup_of_a_pending_deployment_that_is_live(own: Host):
    own.ao("install", "-A", "-y", "fx-hello")
    live = own.deployments()[1]["live-replaced"]
    before = own.look()
    own.ao("cleanup", "-b", "-p", "-r")
    (booted,) = own.deployments()
    assert booted["live-replaced"] == live
    assert booted["live-generation"]["shown"]
    own.run("ostree", "show", live)
    assert own.run("fx-hello").stdout == "hello 1.0\n"
    after = own.look()
    assert (after.usr, after.mounts, after.live_refs) == (before.usr, before.mounts, before.live_refs)
    own.ao("apply-live", "--reset")
    own.ao("cleanup", "-b")
    assert not own.look().live_refs
    assert own.run("ostree", "show", live, check=False).returncode != 0


def test_what_comes_from_a_pinned_deployment_is_not_pinned(own: Host):
    own.ao("pin", "booted")
    own.ao("install", "fx-hello")
    assert [row["pinned"] for row in own.deployments()] == [False, True]
    own.reboot()
    own.ao("kargs", "--append=fx=1")
    assert [row["pinned"] for row in own.deployments()] == [False, False, True]


def test_cleanup_keeps_pinned_and_removes_the_rest(own: Host):
    own.ao("install", "fx-hello")
    own.reboot()
    own.run("ostree", "admin", "pin", "1")
    result = own.json("cleanup", "-r")
    assert [row["reason"] for row in result["kept"]] == ["pinned"]
    assert names(own) == [["fx-hello"], []]
    own.run("ostree", "admin", "pin", "--unpin", "1")
    own.ao("cleanup", "-r")
    assert names(own) == [["fx-hello"]]
    assert own.deployments()[0]["packages"] == ["fx-hello"], "the base's commit is still there"


@pytest.mark.extended
def test_cleanup_keeps_the_files_of_local_packages_that_are_needed(own: Host):
    package = own.sh("ls /var/lib/testbed/repo/pool/fx-conf_1.0_all.deb").strip()
    own.ao("install", package)
    assert own.deployments()[0]["requested-local-packages"] == ["fx-conf=1.0"]
    (needed,) = own.sh(f"ls {STORE} 2>/dev/null || true").split()
    own.sh(f"cp {package} {STORE}/{'0' * 64}.deb")
    own.ao("cleanup", "-b")
    assert own.sh(f"ls {STORE} 2>/dev/null || true").split() == [needed]
    own.ao("cleanup", "-p")
    assert own.sh(f"ls {STORE} 2>/dev/null || true").split() == []


def test_cleanup_of_what_killed_programs_left(own: Host):
    own.ao("install", "fx-hello", code=1, failpoint="layering.after-install=kill")
    left = own.sh(f"ls {WORK}/work")
    assert left
    ref = "apt-ostree/live/77/target"
    own.run(*WRITABLE_SYSROOT, "mkdir", "-p", f"{WORK}/work/tree-x/y")
    own.create_ref(ref, "debian/13/amd64/minimal")
    own.ao("cleanup", "-b")
    assert own.sh(f"ls {WORK}/work") == ""
    assert ref not in own.look().refs


def test_a_locked_deployment_waits_until_it_is_finalized(own: Host):
    own.ao("install", "--lock-finalization", "fx-hello")
    assert own.deployments()[0]["finalization-locked"] is True
    assert "locked" in own.ao("status").stdout
    own.reboot()
    assert names(own) == [[]]
    assert "was staged, but the shutdown did not complete it" in own.ao("status").stdout
    own.ao("install", "--lock-finalization", "fx-hello")
    staged = own.deployments()[0]["checksum"]
    own.ao("finalize-deployment", code=2)
    own.ao("finalize-deployment", "0" * 64, code=3)
    own.ao("finalize-deployment", staged, code=1, failpoint="finalize.before-unlock=error")
    assert own.deployments()[0]["finalization-locked"] is True
    own.sh("mkdir -p /run/no-reboot; ln -s /bin/true /run/no-reboot/systemctl")  # the test bed reboots it
    own.sh(f"PATH=/run/no-reboot:$PATH apt-ostree finalize-deployment {staged}")
    own.reboot()
    assert names(own) == [["fx-hello"], []]
    own.ao("finalize-deployment", "--allow-missing-checksum", code=3)


@pytest.mark.extended
def test_a_locked_deployment_can_be_replaced_and_dropped(own: Host):
    own.ao("install", "--lock-finalization", "fx-hello")
    own.ao("install", "fx-conf")
    assert "finalization-locked" not in own.deployments()[0]
    own.ao("finalize-deployment", "--allow-missing-checksum", code=3)
    own.ao("cleanup", "-p")
    own.ao("install", "-A", "-y", "--lock-finalization", "fx-hello")
    own.ao("cleanup", "-p")
    assert not own.exists("/run/ostree/staged-deployment-locked")


@pytest.mark.extended
def test_pinned_deployments_stay(own: Host):
    own.ao("install", "fx-hello")
    own.ao("pin", "pending", code=3)
    own.reboot()
    own.ao("pin", "rollback", "booted")
    assert [row["pinned"] for row in own.deployments()] == [True, True]
    own.ao("install", "fx-conf")
    own.reboot()
    assert names(own) == [["fx-conf", "fx-hello"], ["fx-hello"], []]
    own.ao("unpin", "1", "2")
    own.ao("cleanup", "-r")
    own.ao("pin", "nosuch", code=2)
