"""Who did what: a story on a machine is found in the history and in the journal, after a reboot, too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apt_ostree.model.audit import MESSAGE_IDS, Kind
from tests.system.livehost import NOBODY, Host

#: As systemd-logind writes it (sd_session_get_remote_host(3)) when somebody has logged in by ssh.
SESSION = "UID=0\nUSER=root\nACTIVE=1\nSTATE=active\nREMOTE=1\nTYPE=tty\nCLASS=user\nREMOTE_HOST=192.0.2.7\n"
CHANGE_RECORD = (
    "import sqlite3; db = sqlite3.connect('/var/lib/apt-ostree/audit/records.db');"
    "db.execute(\"UPDATE record SET text = replace(text, 'nobody', 'root') WHERE number = {}\"); db.commit()"
)


def entries(host: Host, kind: Kind) -> list[dict[str, Any]]:
    """Return root's entries of a kind in the systemd journal."""
    text = host.sh(f"journalctl --output=json MESSAGE_ID={MESSAGE_IDS[kind]} _UID=0")
    return [json.loads(line) for line in text.splitlines()]


def outcomes(host: Host) -> list[tuple[str, str, str]]:
    return [(row["verb"], row["caller"], row["outcome"]) for row in host.json("history")]


@pytest.fixture
def story(own: Host) -> Host:
    """A machine on which everything has happened, from its first command on."""
    own.suites("stable", "updates")
    own.ao("install", "-y", "fx-conf=1.0")
    assert own.run(*NOBODY, "apt-ostree", "uninstall", "fx-conf", check=False).returncode == 4
    own.ao("install", "no-such-package", code=2)
    own.ao("apply-live", "-y", failpoint="journal.after=error", code=1)
    done = own.run("timeout", "--signal=INT", "3", "apt-ostree", "run", "sleep", "30", check=False)
    assert done.returncode == 124
    own.ao("apply-live", "-y", "--confirm-within=10m")
    own.ao("confirm")
    own.run("apt-ostree", "rollback", "--live", check=False, env={"APT_OSTREE_FAILPOINT": "undo.etc=kill"})
    own.ao("recover")
    own.run("tee", "/run/systemd/sessions/99", input=SESSION)
    scope = ("systemd-run", "--quiet", "--scope", "--unit=session-99.scope")
    own.run(*scope, "apt-ostree", "kargs", "--append=audit-test=1")
    return own


EXPECTED = [
    ("install", "root", "staged"),
    ("uninstall", "nobody", "denied"),
    ("install", "root", "refused"),
    ("apply-live", "root", "failed"),
    ("run sleep 30", "root", "cancelled"),
    ("apply-live", "root", "rolled back"),
    ("confirm", "root", "done"),
    ("rollback --live 0", "root", "done"),  # it was killed, and completed by the next command
    ("recover", "root", "done"),
    ("kargs", "root", "staged"),
]


def test_a_story_is_told(story: Host):
    assert outcomes(story) == EXPECTED
    seen = {kind: entries(story, kind) for kind in Kind}
    elsewhere = {Kind.SECURITY, Kind.PRUNED, Kind.MARKED, Kind.RETURNED}
    assert {kind for kind, rows in seen.items() if not rows} == elsewhere
    (denied,) = seen[Kind.DENIED]
    assert (denied["APT_OSTREE_CALLER"], denied["APT_OSTREE_VERB"]) == ("nobody", "uninstall")
    assert json.loads(denied["APT_OSTREE_ARGUMENTS"]) == {"packages": ["fx-conf"]}
    (refused,) = seen[Kind.REFUSED]
    assert "no-such-package" in refused["APT_OSTREE_REASON"] and refused["APT_OSTREE_EXIT_CODE"] == "2"
    assert len({row["APT_OSTREE_DIGEST"] for rows in seen.values() for row in rows}) == sum(
        map(len, seen.values())
    )
    staged = next(row for row in seen[Kind.DONE] if row["APT_OSTREE_TITLE"] == "install")
    assert staged["APT_OSTREE_BEFORE"] != staged["APT_OSTREE_AFTER"] == story.commit_of_pending()
    assert len(staged["APT_OSTREE_PLAN_DIGEST"]) == len(staged["APT_OSTREE_REQUEST_DIGEST"]) == 64
    remote = next(row for row in seen[Kind.DONE] if row["APT_OSTREE_TITLE"] == "kargs")
    assert (remote["APT_OSTREE_SESSION"], remote["APT_OSTREE_REMOTE_HOST"]) == ("99", "192.0.2.7")
    for kind, rows in seen.items():
        text = story.sh(f"journalctl -x MESSAGE_ID={MESSAGE_IDS[kind]}")
        assert text.count("Defined-By: apt-ostree") == len(rows), kind
        assert "@APT_OSTREE_" not in text, kind
    shown = story.ao("history", "show", "2").stdout
    assert "by nobody" in shown and "uid 65534" in shown and "polkit refused" in shown
    assert [event["kind"] for event in story.json("history", "show", "4")["events"]] == ["undone"]
    over_the_bus = (
        "org.debian.aptostree1",
        "/org/debian/aptostree1/History",
        "org.debian.aptostree1.History",
    )
    listed = story.sh(f"busctl --json=short call {' '.join(over_the_bus)} List u 3")
    assert [row["verb"]["data"] for row in json.loads(listed)["data"][0]] == [row[0] for row in EXPECTED[-3:]]

    story.reboot()
    assert outcomes(story) == EXPECTED
    verified = story.json("history", "verify")
    assert verified["ok"] and verified["journal"] == verified["records"] >= 20
    story.ao("kargs", "--delete=audit-test=1")
    assert story.json("history")[-1]["number"] == len(EXPECTED) + 1
    number = int(denied["APT_OSTREE_RECORD"])
    story.run("/usr/bin/python3", "-c", CHANGE_RECORD.format(number))
    found = story.json("history", "verify", code=1)
    assert [(p["fault"], p["number"]) for p in found["problems"]] == [("changed", number)]
    assert f"record {number} was changed" in story.ao("history", "verify", code=1).stdout
    story.sh("rm /var/lib/apt-ostree/audit/*")
    assert story.json("history", "verify", code=1)["problems"][0]["fault"] == "truncated"
    story.ao("status")
