"""What docs/rpm-ostree.md says is the same: verbs for the base and the deployments, and what only shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system import livehost
from tests.system.livehost import WRITABLE_SYSROOT, Host, program, reboots

pytestmark = pytest.mark.extended

BRANCH, OTHER = "debian/13/amd64/minimal", "debian/13/amd64/other"
#: Another branch of the remote, of the version o1, and another remote with the same repository.
ADD_OTHERS = (
    f"cd /var/tmp && ostree commit --repo=base --branch={OTHER} --add-metadata-string=version=o1"
    f" --tree=ref={BRANCH}"
)
ADD_REMOTE = ("ostree", "remote", "add", "--no-gpg-verify", "mirror", "file:///var/tmp/base")
#: The branch gets a newer commit, which is years older.
ADD_OLDER = (
    f"ostree commit --repo=/var/tmp/base --branch={BRANCH} --add-metadata-string=version=15"
    f" --tree=ref={BRANCH} --timestamp=@1600000000"
)
AWAY, BACK = ("mv /var/tmp/base /var/tmp/away", "mv /var/tmp/away /var/tmp/base")


@pytest.fixture(scope="module")
def machine(disk: Path) -> Iterator[Host]:
    """A machine that follows a branch of a remote with one newer commit, of the version 14."""
    with livehost.booted(disk) as made:
        made.run(*WRITABLE_SYSROOT, *program("newer_base.sh", "--no-gpg-verify"))
        made.run(*WRITABLE_SYSROOT, *ADD_REMOTE)
        made.sh(ADD_OTHERS)
        yield made
        made.check_clean()


@pytest.fixture
def host(machine: Host) -> Iterator[Host]:
    """The machine, which gets back the booted deployment alone."""
    yield machine
    machine.undeploy()


def pending(host: Host) -> dict[str, Any]:
    return host.deployments()[0]


def at(entry: dict[str, Any]) -> tuple[str, str, bool]:
    """Return the branch and the version that a deployment is at, and whether it is locked."""
    return entry["origin"], entry["version"], "finalization-locked" in entry


def test_upgrade(host: Host):
    before = host.deployments()
    host.ao("upgrade", "--trigger-automatic-update-policy")  # there is none
    host.sh(AWAY)
    host.ao("upgrade", "--base-only", code=1)
    host.ao("upgrade", "--cache-only", "--base-only", "--unchanged-exit-77", code=77)
    host.sh(BACK)
    host.ao("upgrade", "--download-only")
    assert host.deployments() == before
    host.sh(AWAY)
    host.ao("upgrade", "-C", "--lock-finalization", "--install=fx-hello")
    entry = pending(host)
    assert at(entry) == (f"base:{BRANCH}", "14", True) and entry["packages"] == ["fx-hello"]
    host.ao("upgrade", "-C", "--upgrade-unchanged-exit-77", code=77)
    host.ao("upgrade", "-C", "--download-only", code=2)
    host.sh(BACK)
    host.undeploy()
    assert host.json("upgrade", "--preview") == host.json("upgrade", "--check-diff")
    assert host.deployments() == before
    assert reboots(host, "upgrade", "--bypass-driver", "-r")
    assert at(pending(host)) == (f"base:{BRANCH}", "14", False)
    host.ao("update", "--preview", code=77)


def test_deploy(host: Host):
    (booted,) = before = host.deployments()
    old = booted["version"]
    assert host.json("deploy", "14", "--preview")["changed"]
    host.ao("deploy", "14", "--download-only")
    assert host.deployments() == before
    host.ao("deploy", old, "--unchanged-exit-77", code=77)
    host.sh(AWAY)
    host.ao("deploy", "14", "--cache-only", "--lock-finalization", "--install=fx-hello")
    host.sh(BACK)
    entry = pending(host)
    assert at(entry) == (f"base:{BRANCH}", "14", True) and entry["packages"] == ["fx-hello"]
    host.ao("deploy", old, "--disallow-downgrade", code=3)
    host.ao("deploy", "14", "--disallow-downgrade", "--unchanged-exit-77", code=77)
    assert pending(host) == entry
    assert reboots(host, "deploy", f"VERSION={old}", "--uninstall=fx-hello", "--reboot")
    entry = pending(host)
    assert at(entry) == (f"base:{BRANCH}", old, False) and entry["packages"] == []


def test_rebase(host: Host):
    (booted,) = before = host.deployments()
    old = booted["version"]
    host.ao("rebase", "--branch", OTHER, "--download-only")
    assert host.deployments() == before
    host.sh(AWAY)
    host.ao("rebase", "-b", OTHER, code=1)
    host.ao("rebase", "--branch", OTHER, "-C", "--lock-finalization", "--skip-purge", "--disallow-downgrade")
    host.sh(BACK)
    assert at(pending(host)) == (f"base:{OTHER}", "o1", True)
    refs = host.sh("ostree refs").split()
    assert {f"base:{BRANCH}", f"base:{OTHER}"} <= {*refs}
    host.ao("rebase", f"base:{BRANCH}", old, "--disallow-downgrade", code=3)
    assert reboots(host, "rebase", "--remote", "mirror", "--bypass-driver", "-r")
    assert at(pending(host)) == (f"mirror:{OTHER}", "o1", False)
    assert f"base:{OTHER}" not in host.sh("ostree refs").split()
    host.ao("rebase", f"ostree://base:{BRANCH}")
    assert at(pending(host)) == (f"base:{BRANCH}", "14", False)


def test_a_branch_that_goes_back(host: Host):
    """It is refused also with what is here already, as in rpm-ostree."""
    host.sh(ADD_OLDER)
    host.ao("upgrade", "--base-only", code=3)
    host.run(*WRITABLE_SYSROOT, "ostree", "pull", f"base:{BRANCH}")
    host.ao("upgrade", "-C", "--base-only", code=3)
    host.ao("upgrade", "-C", "--base-only", "--allow-downgrade")
    assert at(pending(host)) == (f"base:{BRANCH}", "15", False)


def test_what_only_shows(host: Host):
    host.ao("install", "fx-hello")
    entry, booted = host.deployments()
    keys = ("base-checksum", "base-version", "base-timestamp")
    assert [entry[key] for key in keys] == [booted[key.removeprefix("base-")] for key in keys]
    assert (entry["gpg-enabled"], "remote-error" in entry) == (False, False)
    assert entry["layered-commit-meta"].keys() - entry["base-commit-meta"].keys()
    empty = ("requested-local-fileoverride-packages", "base-remote-replacements")
    assert [len(entry[key]) for key in empty] == [0, 0]
    assert [row["id"] for row in host.json("status", "-b")["deployments"]] == [booted["id"]]
    assert json.loads(host.ao("status", "-J", "$.deployments[*].serial").stdout) == [0, 0]
    assert host.json("status", "--advisories")["deployments"][0]["advisories"] == []

    diff = host.json("db", "diff")
    ends = (diff["ostree-commit-from"], diff["ostree-commit-to"])
    assert ends == (booted["checksum"], entry["checksum"])
    assert diff["pkgdiff"] == [["fx-hello", 0, {"NewPackage": ["fx-hello", "1.0", "all"]}]]
    assert json.loads(host.ao("db", "diff", "-F", "json", *ends).stdout) == diff
    lines = host.ao("rpm", "diff", "--format=diff", "--sysroot=/", *ends).stdout.splitlines()
    assert [line for line in lines if line.startswith(("+", "-", "!", "="))] == ["+fx-hello 1.0"]
    assert json.loads(host.ao("db", "diff", "--base", "--format=json").stdout)["pkgdiff"] == []
    changes = host.json("db", "diff", "-c", "-a", "--repo=/ostree/repo", *ends)
    assert (changes["changelogs"], changes["advisories"]) == ({}, [])  # of what is upgraded alone
    equal = host.ao("db", "diff", "booted", "booted").stdout.splitlines()
    assert [line.partition(":")[0] for line in equal] == ["ostree diff commit from", "ostree diff commit to"]
    host.ao("db", "diff", entry["checksum"], "no-such-ref", code=2)
    listed = host.ao("db", "list", "--repo=/ostree/repo", entry["checksum"], "fx-*").stdout.splitlines()
    assert len(listed) == 2 and "fx-hello" in listed[1]
    told = [host.ao("db", "version", "--repo=/ostree/repo", end).stdout.splitlines()[1] for end in ends]
    assert told[0] != told[1]
    host.sh("mv /etc/ostree/remotes.d/base.conf /etc/ostree/remotes.d/away")
    assert host.deployments()[0]["remote-error"]
    host.sh("mv /etc/ostree/remotes.d/away /etc/ostree/remotes.d/base.conf")


def test_each_command_has_help_and_is_quiet(host: Host):
    verbs = host.sh("apt-ostree --help | sed -n '/^Commands:/,$s/^  \\([a-z-]*\\) .*/\\1/p'").split()
    assert len(verbs) > 30
    host.sh(f"for verb in {' '.join(verbs)}; do apt-ostree $verb -h >/dev/null; done")
    assert len(host.run("apt-ostree", "--version").stdout.splitlines()) == 1
    assert host.ao("kargs", "--append=fx=1").stderr != host.ao("-q", "kargs", "--append=fx=2").stderr == ""
    host.ao("--quiet", "cleanup", "--pending", "--rollback", "--base", "--stateroot=debian")
    assert len(host.deployments()) == 1


def test_live_commands_by_their_first_names(host: Host):
    host.ao("pkg-add", "fx-hello")
    host.ao("ex", "livefs", "--assumeyes", "--dry-run")
    host.ao("ex", "apply-live", "--assumeyes")
    assert host.sh("fx-hello") == "hello 1.0\n"
    host.ao("ex", "apply-live", "--reset")
    host.ao("unlock", "--transient")
    assert host.deployments()[-1]["unlocked"] == "transient"


def test_the_next_boot(host: Host):
    host.ao("install", "fx-hello")
    staged = pending(host)["checksum"]
    host.ao("finalize-deployment", staged, code=3)
    assert reboots(host, "finalize-deployment", "--allow-unlocked", staged)
    host.reboot()
    assert [entry["checksum"] for entry in host.deployments()][:1] == [staged]
    assert reboots(host, "rollback", "--reboot")
    assert host.deployments()[0]["checksum"] != staged
