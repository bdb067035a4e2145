"""The service on the system bus: any user may read."""

from __future__ import annotations

import json

import pytest

from tests.system.livehost import NOBODY, Host

QUERIES = (
    ("history",),
    ("history", "show", "1"),
    ("history", "diff", "0", "1"),
    ("usroverlay", "--list"),
    ("usroverlay", "--list", "--name=one"),
    ("usroverlay", "--diff"),
    ("usroverlay", "--history", "--name=one"),
)
UNIT = "apt-ostreed.service"


@pytest.fixture
def changed(own: Host) -> Host:
    own.ao("install", "-A", "-y", "fx-hello")
    own.ao("usroverlay", "--create", "--name=one", "--add=/usr/share/fx", "--from=/etc/issue")
    return own


def test_any_user_may_read(changed: Host):
    for words in QUERIES:
        for more in ((), ("--json",)):
            answers = [changed.run(*who, "apt-ostree", *words, *more).stdout for who in ((), NOBODY)]
            assert answers[0] == answers[1] != "", words
    assert changed.failed_units() == []
    memory = changed.sh(f"systemctl show -P MainPID {UNIT} | xargs -I % cat /proc/%/status")
    rows = dict(line.split(":", 1) for line in memory.splitlines())
    assert int(rows["VmRSS"].split()[0]) < 60_000  # kB
    changed.check_clean()


def test_errors_are_the_same_for_any_user(changed: Host):
    for words in (("history", "show", "99"), ("usroverlay", "--list", "--name=none")):
        done = [changed.run(*who, "apt-ostree", *words, check=False) for who in ((), NOBODY)]
        assert done[0].returncode == done[1].returncode == 2
        assert done[0].stderr == done[1].stderr != ""


def test_changes_need_rights(changed: Host):
    for words in (
        ("install", "fx-conf"),
        ("apply-live", "--reset"),
        ("usroverlay", "--remove", "--name=one"),
    ):
        done = changed.run(*NOBODY, "apt-ostree", *words, check=False)
        assert done.returncode == 4 and "sudo" in done.stderr


def test_a_client_of_the_description(changed: Host):
    call = ("busctl", "--json=short", "call", "org.debian.aptostree1", "/org/debian/aptostree1")
    done = changed.run(*NOBODY, *call, "org.debian.aptostree1.Queries", "Query", "ss", "history", "{}")
    (answer,) = json.loads(done.stdout)["data"]
    assert json.loads(answer)[0]["verb"] == "install -A"
    wrong = changed.run(
        *NOBODY, *call, "org.debian.aptostree1.Queries", "Query", "ss", "install", "{}", check=False
    )
    assert wrong.returncode and "there is no query 'install'" in wrong.stderr


def test_the_service_ends_when_nobody_calls_and_comes_again(changed: Host):
    directory = f"/run/systemd/system/{UNIT}.d"
    program = "import apt_ostree.daemon.service as s; s._IDLE = 1.0; s.serve()"
    lines = ("[Service]", "ExecStart=", f"ExecStart=/usr/bin/python3 -I -c '{program}'")
    changed.sh(
        f"mkdir -p {directory}; cat >{directory}/idle.conf <<'END'\n" + "\n".join(lines) + "\nEND\n"
        f"systemctl daemon-reload; systemctl stop {UNIT}"
    )
    changed.run(*NOBODY, "apt-ostree", "history")
    assert changed.is_active(UNIT)
    changed.sh(f"for i in $(seq 50); do systemctl is-active -q {UNIT} || exit 0; sleep 0.1; done; exit 1")
    assert changed.failed_units() == []
    changed.run(*NOBODY, "apt-ostree", "history")
    changed.sh(f"kill -KILL $(systemctl show -P MainPID {UNIT})")
    changed.run(*NOBODY, "apt-ostree", "history")
