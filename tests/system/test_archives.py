"""refresh-md, search and cleanup -m on a booted machine, with archives that are good and bad."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system import livehost
from tests.system.livehost import Host

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
BAD = "/etc/apt/sources.list.d/bad.list"


@pytest.fixture(scope="module")
def machine() -> Iterator[Host]:
    with livehost.prepared_disk() as disk, livehost.booted(disk) as host:
        yield host


@pytest.fixture
def host(machine: Host) -> Iterator[Host]:
    machine.suites("stable")
    yield machine
    machine.run("rm", "-f", BAD)


def failure(host: Host, *argv: str) -> str:
    """Run a command that has to fail in the outside world; return its error as one text."""
    event = host.json(*argv, code=1)[-1]
    assert (event["event"], event["error"]) == ("error", "ExternalFailure")
    assert event["hint"]
    return "\n".join([event["message"], *event["details"]])


def test_lists_are_refreshed_when_they_are_old(host: Host):
    host.ao("refresh-md", "--force")
    assert host.json("refresh-md")[-1]["changed"] is False
    result = host.json("makecache", "-f")[-1]
    assert result["changed"] is True
    assert [(source["suite"], source["signed"]) for source in result["sources"]] == [("stable", True)]
    host.suites("stable", "updates")
    assert host.json("refresh-md")[-1]["changed"] is True


def test_refreshing_needs_root(host: Host):
    assert host.run(*NOBODY, "apt-ostree", "refresh-md", check=False).returncode == 4


@pytest.mark.parametrize("suite", ["unsigned", "badsig", "nosuch"])
def test_the_archive_that_is_not_to_be_trusted_is_named(host: Host, suite: str):
    host.suites("stable", suite)
    assert f"/var/lib/testbed/repo {suite}" in failure(host, "refresh-md").splitlines()[0]


def test_the_archive_that_cannot_be_reached_is_named_without_its_password(host: Host):
    host.sh(f"echo 'deb http://user:secret@127.0.0.1:9/debian trixie main' >{BAD}")
    text = failure(host, "refresh-md")
    assert "http://127.0.0.1:9/debian trixie" in text.splitlines()[0]
    assert "secret" not in text


def test_a_broken_configuration_is_named(host: Host):
    host.sh(f"echo 'deb nonsense' >{BAD}")
    assert BAD in failure(host, "refresh-md")


def test_search(host: Host):
    host.ao("refresh-md", "-f")
    matches = host.json("search", "FX-hello")[-1]["matches"]
    assert [(match["name"], match["installed"]) for match in matches] == [("fx-hello", "")]
    assert host.ao("search", "fx-hello").stdout.startswith("===== ")
    assert host.json("search", "no-such-package-anywhere")[-1]["matches"] == []
    assert any(match["installed"] for match in host.json("search", "systemd")[-1]["matches"])
    as_root = host.run("apt-ostree", "search", "fx").stdout
    assert host.run(*NOBODY, "apt-ostree", "search", "fx").stdout == as_root
    host.ao("search", "", code=2)
    host.ao("search", code=2)


def test_downloads_are_removed_and_come_again(host: Host):
    host.ao("refresh-md", "-f")
    assert host.json("cleanup", "-m")[-1]["downloads"] > 0
    assert host.sh("find /var/lib/apt/lists /var/cache/apt -type f -not -name lock") == ""
    assert "refresh-md" in host.ao("search", "fx-hello").stderr
    assert host.json("refresh-md")[-1]["changed"] is True
    host.ao("install", "--dry-run", "fx-hello")
