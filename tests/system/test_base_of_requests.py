"""Requests on bases that gain and lose their packages, and other things that rpm-ostree's own tests show."""

from __future__ import annotations

from typing import Any

import pytest

from tests.system.livehost import WRITABLE_SYSROOT, Host

pytestmark = pytest.mark.extended

BRANCH, WITH, WITHOUT = "test/base", "test/with", "test/without"
#: Packages as files: name, version, what it depends on.
FILES = (
    ("own", "1", ""),
    ("own", "2", ""),
    ("own-more", "1", "own (= 1)"),
    ("own-more", "2", "own (= 2)"),
    ("own-needs", "1", "own"),
)
REMOVES_ALL = """cd /var/tmp && mkdir -p rm/DEBIAN && cat >rm/DEBIAN/control <<END
Package: own-rm
Version: 1
Architecture: all
Maintainer: x <x@x.invalid>
Description: x
END
printf '#!/bin/sh\\nrm --no-preserve-root -rf / 2>/dev/null || true\\n' >rm/DEBIAN/postinst
chmod 755 rm/DEBIAN/postinst && dpkg-deb --root-owner-group --build rm"""


def file(name: str, version: str = "1") -> str:
    return f"/var/tmp/{name}_{version}.deb"


def follow(host: Host, ref: str, version: str, *metadata: str) -> None:
    """Add a commit with the tree of a ref to the branch that the machine follows."""
    words = [f"--add-metadata-string={word}" for word in (f"version={version}", *metadata)]
    host.run(
        *(*WRITABLE_SYSROOT, "ostree", "commit", f"--branch={BRANCH}", f"--tree=ref={ref}", "--bootable"),
        *words,
    )


@pytest.fixture
def host(own: Host) -> Host:
    """The machine follows a branch; the tree WITH has the packages own and own-more, WITHOUT has neither."""
    for name, version, depends in FILES:
        own.run_program("build_deb.sh", file(name, version), name, version, depends or "bash", version)
    own.create_ref(WITHOUT, own.commit_of_booted())
    own.ao("install", file("own"), file("own-more"))
    own.create_ref(WITH, own.commit_of_pending())
    own.ao("cleanup", "--pending")
    follow(own, WITH, "1")
    own.ao("rebase", f":{BRANCH}")
    own.reboot()
    return own


def upgrade(host: Host, ref: str, version: str) -> dict[str, Any]:
    """Upgrade to a commit with the tree of a ref; return the pending deployment."""
    follow(host, ref, version)
    host.ao("upgrade", "--base-only")
    return host.deployments()[0]


def removals(entry: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return which removals from the base are requested, and which it has."""
    return entry["requested-base-removals"], [row["name"] for row in entry["base-removals"]]


def replacements(entry: dict[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Return which replacements of the base are requested, which it has, and the local packages."""
    active = [row["name"] for row in entry["base-local-replacements"]]
    return entry["requested-base-local-replacements"], active, entry["requested-local-packages"]


def test_overrides_are_inactive_while_the_base_lacks_the_package(host: Host):
    both = ["own", "own-more"]
    assert "own-more" in host.failure("override", "remove", "own", code=3)
    host.ao("override", "remove", *both)
    assert removals(upgrade(host, WITHOUT, "2")) == (both, [])
    assert removals(upgrade(host, WITH, "3")) == (both, both)
    assert "override reset own" in host.failure("install", file("own"), code=2)
    upgrade(host, WITHOUT, "4")
    host.ao("override", "reset", *both)
    assert removals(host.deployments()[0]) == ([], [])
    host.ao("cleanup", "--pending")

    files, labels = (file("own", "2"), file("own-more", "2")), ["own=2", "own-more=2"]
    assert "own-more" in host.failure("override", "replace", files[0], code=3)
    host.ao("override", "replace", *files)
    assert replacements(upgrade(host, WITH, "5")) == (labels, both, [])
    assert replacements(upgrade(host, WITHOUT, "6")) == (labels, [], [])
    assert "InactiveBaseReplacements: own=2 own-more=2" in host.ao("status").stdout
    host.reboot()
    assert not host.exists("/usr/share/own") and replacements(host.deployments()[0])[0] == labels
    assert replacements(upgrade(host, WITH, "7")) == (labels, both, [])
    host.ao("override", "reset", "own", "own-more=2")
    assert replacements(host.deployments()[0]) == ([], [], [])
    host.reboot()
    assert host.sh("cat /usr/share/own/content") == "1\n"
    host.check_clean()


def test_requests_are_inactive_while_the_base_has_the_package(host: Host):
    assert "part of the base" in host.failure("install", file("own"), code=2)
    host.ao("install", file("own"), "--idempotent", "--unchanged-exit-77", code=77)
    upgrade(host, WITHOUT, "2")
    host.ao("install", file("own"), file("own-needs"))
    entry = upgrade(host, WITH, "3")
    assert entry["requested-local-packages"] == ["own=1", "own-needs=1"]
    assert "needs" in host.failure("override", "remove", "own", "own-more", code=3)
    upgrade(host, WITHOUT, "4")
    host.reboot()
    assert host.sh("cat /usr/share/own/content /usr/share/own-needs/content") == "1\n1\n"
    host.ao("uninstall", "own=1", "own-needs=1")
    assert host.deployments()[0]["requested-local-packages"] == []


def test_a_branch_that_ends_or_cannot_be_followed_yet(host: Host):
    follow(host, WITH, "2", "ostree.endoflife=follow debian/14")
    host.ao("upgrade", "--base-only", "--install=fx-hello")
    assert host.deployments()[0]["endoflife"] == "follow debian/14"
    assert "EndOfLife: follow debian/14" in host.ao("status").stdout
    host.ao("cleanup", "--pending")
    edit = "sed -i '/^.origin.$/a unconfigured-state=it needs a subscription'"
    host.run(*WRITABLE_SYSROOT, "sh", "-c", f"{edit} /ostree/deploy/*/deploy/*.origin")
    assert "it needs a subscription" in host.failure("upgrade", code=3)
    host.ao("install", "fx-hello")
    assert "it needs a subscription" in host.failure("upgrade", code=3)
    host.ao("rebase", f":{WITHOUT}")
    host.ao("upgrade", "--base-only", "--unchanged-exit-77", code=77)


def test_a_script_that_removes_everything(host: Host):
    host.sh(f"mkdir -p /home/me && echo mine >/home/me/file && touch /tmp/mine /var/tmp/mine; {REMOVES_ALL}")
    before = host.look()
    host.ao("install", "/var/tmp/rm.deb", code=1)
    host.ao("install", "-A", "-y", "/var/tmp/rm.deb", code=1)
    assert host.look().everything() == before.everything()
    assert host.sh("cat /home/me/file; ls /tmp/mine /var/tmp/mine") == "mine\n/tmp/mine\n/var/tmp/mine\n"


def test_a_reboot_that_is_inhibited_and_a_tree_that_vanishes(host: Host):
    """Nothing is finalized if the reboot that follows cannot be; status tells what was not finalized."""
    host.ao("install", "--lock-finalization", "fx-hello")
    staged = host.commit_of_pending()
    host.sh("systemd-run --quiet --unit=burner systemd-inhibit --what=shutdown --who=burner sleep infinity")
    host.sh("until systemd-inhibit --list | grep -q burner; do sleep 0.1; done")
    assert "burner" in host.failure("finalize-deployment", staged, code=3)
    assert host.deployments()[0]["finalization-locked"]
    host.sh("systemctl stop burner; until ! systemd-inhibit --list | grep -q burner; do sleep 0.1; done")
    host.ao("install", "fx-conf")
    staged = host.commit_of_pending()
    path = f"/ostree/deploy/debian/deploy/{staged}.0"
    host.run(*WRITABLE_SYSROOT, "sh", "-c", f"chattr -i {path} && rm -r {path}")
    host.reboot()
    assert host.json("status")["uncompleted-deployment"]["checksum"] == staged
    assert "did not complete" in host.ao("status").stdout
    host.ao("install", "fx-user")
    assert host.json("status")["uncompleted-deployment"] is None
