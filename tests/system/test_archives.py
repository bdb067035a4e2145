"""refresh-md, search and cleanup -m on a booted machine, with archives that are good and bad."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.livehost import NOBODY, Host

BAD = "/etc/apt/sources.list.d/bad.list"


@pytest.fixture
def host(host: Host) -> Iterator[Host]:
    """The module's machine, without the archive that a test may have added."""
    yield host
    host.run("rm", "-f", BAD)


def test_lists_are_refreshed_when_they_are_old(host: Host):
    host.ao("refresh-md", "--force")
    assert host.json("refresh-md")["changed"] is False
    result = host.json("makecache", "-f")
    assert result["changed"] is True
    assert [(source["suite"], source["signed"]) for source in result["sources"]] == [("stable", True)]
    host.suites("stable", "updates")
    assert host.json("refresh-md")["changed"] is True


def test_refreshing_needs_root(host: Host):
    assert host.run(*NOBODY, "apt-ostree", "refresh-md", check=False).returncode == 4


@pytest.mark.parametrize("suite", ["unsigned", "badsig", "nosuch"])
def test_the_archive_that_is_not_to_be_trusted_is_named(host: Host, suite: str):
    host.suites("stable", suite)
    assert host.json("refresh-md", code=1)["hint"]
    assert f"/var/lib/testbed/repo {suite}" in host.failure("refresh-md", code=1).splitlines()[0]


def test_the_archive_that_cannot_be_reached_is_named_without_its_password(host: Host):
    host.sh(f"echo 'deb http://user:secret@127.0.0.1:9/debian trixie main' >{BAD}")
    text = host.failure("refresh-md", code=1)
    assert "http://127.0.0.1:9/debian trixie" in text.splitlines()[0]
    assert "secret" not in text


def test_a_broken_configuration_is_named(host: Host):
    host.sh(f"echo 'deb nonsense' >{BAD}")
    assert BAD in host.failure("refresh-md", code=1)


def test_search(host: Host):
    host.ao("refresh-md", "-f")
    matches = host.json("search", "FX-hello")["matches"]
    assert [(match["name"], match["installed"]) for match in matches] == [("fx-hello", "")]
    assert host.ao("search", "fx-hello").stdout.startswith("===== ")
    assert host.json("search", "no-such-package-anywhere")["matches"] == []
    assert any(match["installed"] for match in host.json("search", "systemd")["matches"])
    as_root = host.run("apt-ostree", "search", "fx").stdout
    assert host.run(*NOBODY, "apt-ostree", "search", "fx").stdout == as_root
    host.ao("search", "", code=2)
    host.ao("search", code=2)


def test_downloads_are_removed_and_come_again(host: Host):
    host.ao("refresh-md", "-f")
    assert host.json("cleanup", "-m")["downloads"] > 0
    assert host.sh("find /var/lib/apt/lists /var/cache/apt -type f -not -name lock") == ""
    assert "refresh-md" in host.ao("search", "fx-hello").stderr
    assert host.json("refresh-md")["changed"] is True
    host.ao("install", "--dry-run", "fx-hello")
