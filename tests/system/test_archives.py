"""refresh-md, search and cleanup -m on a booted machine, with archives that are good and bad."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.livehost import NOBODY, WRITABLE_SYSROOT, Host, program

BAD = "/etc/apt/sources.list.d/bad.list"
KEY = "signed-by=/usr/share/keyrings/testbed.gpg"
#: A suite that gets another Label when RELABEL has been run.
RELABELLED = "/var/lib/testbed/repo/dists/relabelled"
RELABEL = f"mount --bind {RELABELLED}.later {RELABELLED}"


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


@pytest.mark.parametrize(
    ("suite", "exception", "reason"),
    [
        ("unsigned", "trusted=yes", "'Trusted: yes' is set for file:/var/lib/testbed/repo/dists/unsigned/"),
        ("badsig", "trusted=yes", "'Trusted: yes' is set for file:/var/lib/testbed/repo/dists/badsig/"),
        ("expired", f"check-valid-until=no {KEY}", "file:/var/lib/testbed/repo/dists/expired/ expired on "),
    ],
)
def test_what_an_exception_accepts_is_told_and_recorded(host: Host, suite: str, exception: str, reason: str):
    host.suites("stable")
    host.sh(f"echo 'deb [{exception}] file:/var/lib/testbed/repo {suite} main' >{BAD}")
    events = host.events("install", "fx-hello=9.0", "fx-conf")
    (warning,) = [e["text"] for e in events if e.get("level") == "warning" and "not verified" in e["text"]]
    assert warning.startswith("fx-hello=9.0 not verified: ") and reason in warning
    assert warning in host.sh("journalctl -o cat -t apt-ostree APT_OSTREE_UNVERIFIED=fx-hello=9.0")
    host.undeploy()


#: Where the archive of sign_suite.sh is served.
PORT = 18013


def test_an_older_release_file_is_not_taken_again(own: Host):
    own.sh(f"systemd-run -q --unit=archive python3 -m http.server -b 127.0.0.1 -d /var/tmp/archive {PORT}")
    own.suites("stable")
    own.run(*program("sign_suite.sh", "updates", "0"))
    own.sh(f"echo 'deb [signed-by=/var/tmp/archive.gpg] http://127.0.0.1:{PORT} own main' >{BAD}")
    own.ao("refresh-md")
    own.run(*program("sign_suite.sh", "stable", "10"))
    own.ao("refresh-md")
    (step,) = own.json("install", "fx-hello")["transaction"]["install"]
    assert step["new"] == "2.0"


@pytest.mark.extended
def test_an_archive_that_got_another_name_is_told_until_it_is_refreshed(own: Host):
    """It has fx-hello 9.0 in its older lists; the other archives are not held back, nor tried again."""
    own.ao("install", "fx-hello", "fx-conf")
    own.suites("stable", "updates", "relabelled")
    own.ao("refresh-md")
    own.sh(RELABEL)

    events = own.events("upgrade")
    warned = [event["text"] for event in events if event.get("level") == "warning"]
    assert "repo relabelled" in warned[0] and "changed its 'Label'" in warned[0]
    assert any("left out" in text and "fx-hello 9.0" in text for text in warned[1:])
    assert [(step["name"], step["new"]) for step in events[-1]["transaction"]["upgrade"]] == [
        ("fx-conf", "2.0"),
        ("fx-hello", "2.0"),
    ]

    own.sh(f"umount {RELABELLED}")  # what comes now would not notice if it tried again
    for argv in (["install", "fx-var"], ["search", "fx-hello"]):
        assert "repo relabelled are old" in own.ao(*argv).stderr
    assert own.json("refresh-md")["changed"] is True
    assert own.json("refresh-md")["changed"] is False
    assert "relabelled" not in own.ao("search", "fx-hello").stderr

    own.sh(f"{RELABEL}; mkdir -p /etc/apt-ostree")
    own.sh("printf '[Archives]\\nStrict=yes\\n' >/etc/apt-ostree/apt-ostree.conf")
    assert "repo relabelled" in own.failure("upgrade", code=1).splitlines()[0]
    own.sh(f"umount {RELABELLED}")


@pytest.mark.extended
def test_on_a_newer_base_what_is_in_use_does_not_become_older(own: Host):
    """The archive of fx-hello 9.0 fails, and another one has 1.0."""
    own.run(*WRITABLE_SYSROOT, *program("newer_base.sh", "--no-gpg-verify"))
    own.suites("stable", "relabelled")
    own.ao("install", "fx-hello", "fx-conf")
    own.sh(RELABEL)
    own.suites("stable", "updates", "relabelled")
    plan = own.json("upgrade")["transaction"]
    assert {(step["name"], step["new"], step["origin"]) for step in plan["install"]} == {
        ("fx-hello", "9.0", "present tree"),
        ("fx-conf", "2.0", "Testbed:updates/main"),
    }
    own.sh(f"umount {RELABELLED}")


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
