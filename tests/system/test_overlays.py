"""usroverlay on a booted machine: what overlays show, what they give back, what a boot makes of them."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator

import pytest

from tests.system.livehost import Host, same
from tests.system.overlayhost import Model, Overlays, texts
from tests.system.sweep import SEED, TORTURE

LICENSE = "/usr/share/common-licenses/GPL-3"  # a file of the base
ISSUE = "/etc/issue"  # the same, in /etc
RECOVER = "apt-ostree-recover.service"


# --- the examples of the product's description


@pytest.fixture
def nginx(host: Host) -> Iterator[str]:
    """The administrator's own configuration of a web server."""
    host.sh("mkdir -m 0750 /etc/nginx; echo mine >/etc/nginx/nginx.conf; chmod 0640 /etc/nginx/nginx.conf")
    yield "/etc/nginx/nginx.conf"
    host.sh("rm -r /etc/nginx")


def test_the_examples_work_as_written(host: Host, overlays: Overlays, nginx: str):
    before = host.shown()
    host.ao("usroverlay", "--create")
    host.ao("usroverlay", f"--add={nginx}")
    host.ao("usroverlay", "--create", "--name=my-overlay")
    host.ao("usroverlay", "--create", "--scope=system", "--name=system-overlay")
    host.ao("usroverlay", "--list")
    found = overlays.list()
    assert {name: (row["id"], row["files"], row["shown"], row["last"]) for name, row in found.items()} == {
        "my-overlay": ("system/my-overlay", 0, False, False),
        "overlay": ("system/overlay", 1, True, False),
        "system-overlay": ("system/system-overlay", 0, False, True),
    }
    same({"etc": before["etc"]}, host.shown())
    host.ao("usroverlay", "--remove")
    assert set(overlays.list()) == {"my-overlay", "overlay"}
    host.ao("usroverlay", "--remove", code=2)  # which one is not clear
    host.ao("usroverlay", "--name=overlay", "--remove")
    same(before, host.shown())
    host.ao("usroverlay", "--remove")
    assert overlays.list() == {}


@pytest.mark.extended
def test_the_administrators_file_that_was_added_as_it_is_stays(host: Host, overlays: Overlays, nginx: str):
    before = host.shown()
    overlays("--create", "--name=web", f"--add={nginx}", f"--add={LICENSE}")
    same({"etc": before["etc"]}, host.shown())
    overlays("--disable=web")
    same(before, host.shown())
    overlays("--enable=web")
    host.sh("echo other >/run/other")
    overlays(f"--modify={nginx}", "--from=/run/other")
    assert host.sh(f"cat {nginx}; stat -c %a {nginx} /etc/nginx") == "other\n640\n750\n"
    overlays("--remove")
    same(before, host.shown())


# --- files come and go


def test_disable_gives_everything_back_and_enable_shows_it_again(host: Host, overlays: Overlays):
    host.sh(f"cp -a {ISSUE} /run/issue; echo mine >>{ISSUE}; chmod 0600 {ISSUE}; mkdir -m 0700 /etc/fx-mine")
    before = host.shown()
    files = {"/usr/bin/fx-web": "#!/bin/sh\necho web\n", ISSUE: "theirs\n"}
    files |= {"/etc/fx-web/sub/web.conf": "key=1\n", "/etc/fx-mine/new": "x\n"}
    overlays.new("web", files, f"--remove-file={LICENSE}", "--remove-file=/etc/inputrc")
    assert texts(host, [*files, LICENSE, "/etc/inputrc"]) == {
        **files, LICENSE: None, "/etc/inputrc": None
    }  # fmt: skip
    assert host.sh(f"stat -c '%a %U' {ISSUE}") == "600 root\n"
    shown = host.shown()
    overlays("--disable=web")
    same(before, host.shown())
    overlays("--enable=web")
    same(shown, host.shown())
    overlays("--remove")
    same(before, host.shown())
    host.ao("rollback", "--live")
    same(shown, host.shown())
    assert overlays.list()["web"]["shown"]
    host.ao("rollback", "--live", "0")
    same(before, host.shown())
    assert overlays.list() == {}
    host.sh(f"cp -a /run/issue {ISSUE}; rmdir /etc/fx-mine")


def test_modify_and_drop(host: Host, overlays: Overlays):
    before = host.shown()
    host.sh("mkdir -p /run/tree/sub; echo a >/run/tree/a; echo b >/run/tree/sub/b; ln -sfn a /run/tree/link;"
            "echo text >/run/text")  # fmt: skip
    overlays("--create", "--name=web", "--add=/usr/share/fx-tree", "--from=/run/tree")
    assert host.sh("cd /usr/share/fx-tree; cat a sub/b link") == "a\nb\na\n"
    overlays(f"--modify={LICENSE}", "--from=/run/text", "--mode=0600", "--owner=root:root")
    assert host.sh(f"cat {LICENSE}; stat -c %a {LICENSE}") == "text\n600\n"
    overlays("--remove-file=/usr/share/fx-tree/sub/b")
    assert host.sh("find /usr/share/fx-tree ! -type d | sort") == (
        "/usr/share/fx-tree/a\n/usr/share/fx-tree/link\n"
    )
    assert overlays.origin(LICENSE) == ("system/web", "modified", ["the base"])
    overlays("--drop=/usr/share/fx-tree", f"--drop={LICENSE}")
    same(before, host.shown())
    assert overlays.list()["web"]["files"] == 0
    overlays(f"--drop={LICENSE}", code=2)
    overlays("--remove-file=/usr/share/fx-tree", code=2)
    overlays("--modify=/usr/share/fx-nothing", "--from=/run/text", code=2)


@pytest.mark.extended
def test_edits_while_an_overlay_shows_are_kept_and_told(host: Host, overlays: Overlays):
    host.sh(f"cp -a {ISSUE} /run/issue")
    overlays.new("web", {ISSUE: "theirs\n", "/etc/fx-web.conf": "theirs\n"})
    host.sh(f"echo mine | tee -a {ISSUE} >>/etc/fx-web.conf")
    plan = overlays.put("web", {ISSUE: "theirs again\n", "/usr/share/fx-web": "x\n"})["plan"]
    assert [(step["path"], step["action"]) for step in plan["etc"]] == [("issue", "keep")]
    plan = overlays("--disable=web")["plan"]
    assert {step["path"]: step["action"] for step in plan["etc"]} == {
        "fx-web.conf": "keep", "issue": "keep"
    }  # fmt: skip
    assert host.sh(f"cat {ISSUE} /etc/fx-web.conf") == "theirs\nmine\n" * 2
    # What was edited since the overlay was made is not covered by it, either.
    plan = overlays("--enable=web")["plan"]
    assert {step["path"]: step["action"] for step in plan["etc"]} == {
        "fx-web.conf": "keep", "issue": "keep"
    }  # fmt: skip
    assert host.sh(f"cat {ISSUE}") == "theirs\nmine\n"
    overlays("--remove")
    assert host.sh(f"cat {ISSUE} /etc/fx-web.conf") == "theirs\nmine\n" * 2
    host.sh(f"cp -a /run/issue {ISSUE}; rm /etc/fx-web.conf")


@pytest.mark.extended
@pytest.mark.variants
@pytest.mark.parametrize("how", ["rollback", "reboot", "power-cut"])
def test_what_was_removed_by_hand_stays_removed(own: Host, how: str):
    """Also a file that an overlay removed before, and gave back: it is now as it was in between."""
    overlays = Overlays(own)
    overlays("--create", "--name=web", "--remove-file=/etc/inputrc", f"--remove-file={ISSUE}")
    overlays("--disable=web")
    own.sh("rm /etc/inputrc; echo mine >>/etc/issue; sync")
    before = own.shown()
    if how == "rollback":
        planned = own.json("rollback", "--live", "0", "--dry-run")
        kept = {step["path"] for step in planned["plan"]["etc"] if step["action"] == "keep"}
        assert kept == {"inputrc", "issue"}
        own.ao("rollback", "--live", "0")
    else:
        own.reboot() if how == "reboot" else own.power_cut()
    same(before, own.shown())
    assert not own.exists("/etc/inputrc")


@pytest.mark.extended
def test_whatever_shows_can_be_removed(host: Host, overlays: Overlays):
    """Also what another overlay shows, or the administrator has put into /etc."""
    host.sh("echo mine >/etc/fx-mine.conf")
    before = host.shown()
    overlays.new("below", {"/usr/share/fx-one": "1\n", "/usr/share/fx-two": "2\n"}, "--priority=10")
    overlays.new("above", {"/usr/share/fx-two": "3\n"})
    gone = ("/usr/share/fx-one", "/usr/share/fx-two", "/etc/fx-mine.conf")
    overlays("--name=above", *(f"--remove-file={path}" for path in gone))
    assert texts(host, gone) == dict.fromkeys(gone)
    overlays("--disable=above")
    assert texts(host, gone) == dict(zip(gone, ("1\n", "2\n", "mine\n"), strict=True))
    overlays("--disable=below")
    same(before, host.shown())
    host.ao("rollback", "--live", "0")
    host.sh("rm /etc/fx-mine.conf")


@pytest.mark.variants
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["--add=/usr/share/fx-x"], ["--add=/usr/share/fx-x/y"]),
        (["--add=/usr/share/fx-x/y"], ["--add=/usr/share/fx-x"]),
        (["--remove-file=/usr/share/common-licenses"], ["--add=/usr/share/common-licenses/mine"]),
    ],
    ids=["below-a-file", "over-a-directory", "below-what-is-removed"],
)
def test_paths_that_exclude_each_other(host: Host, overlays: Overlays, first: list[str], second: list[str]):
    """A path below one that is no directory is refused, and nothing changes."""
    host.sh("echo text >/run/text")
    source = ["--from=/run/text"]
    overlays("--create", "--name=web", *first, *(source if "--add" in first[0] else []))
    before = host.look()
    assert overlays(*second, *source, code=2)["error"] == "UsageError"
    same(before.everything(), host.look().everything())


@pytest.mark.extended
def test_a_file_over_anothers_directory(host: Host, overlays: Overlays):
    for top in ("/usr/share/fx-x", "/etc/fx-x"):
        before = host.shown()
        overlays.new("file", {top: "file\n"})
        overlays.new("tree", {f"{top}/sub": "sub\n"}, "--priority=60")
        assert texts(host, [top, f"{top}/sub"]) == {top: None, f"{top}/sub": "sub\n"}
        overlays("--name=file", "--set-priority=70")
        assert texts(host, [top, f"{top}/sub"]) == {top: "file\n", f"{top}/sub": None}
        overlays("--disable=file")
        assert texts(host, [top, f"{top}/sub"]) == {top: None, f"{top}/sub": "sub\n"}
        overlays("--disable=tree")
        same(before, host.shown())
        overlays.clear()


def test_a_reset_leaves_overlays_as_they_are(host: Host, overlays: Overlays):
    """It ends live changes of packages; an overlay ends when somebody says so."""
    overlays.new("shown", {"/usr/share/fx-one": "1\n"})
    overlays.new("other", {"/usr/share/fx-two": "2\n"})
    overlays("--disable=other")
    host.ao("install", "-A", "-y", "fx-hello")
    host.ao("apply-live", "--reset")
    assert not host.exists("/usr/bin/fx-hello") and host.exists("/usr/share/fx-one")
    overlays("--disable=shown")
    host.ao("apply-live", "--reset")
    assert {name: row["enabled"] for name, row in overlays.list().items()} == {"other": False, "shown": False}
    assert not host.exists("/usr/share/fx-one")


# --- priorities


def test_priorities(host: Host, overlays: Overlays):
    paths = ("/usr/share/fx-both", "/etc/fx-both.conf")
    for name in ("bbb", "aaa"):
        overlays.new(name, dict.fromkeys(paths, f"{name}\n"))
    assert list(overlays.list()) == ["aaa", "bbb"]

    def show(name: str, hides: list[str], kind: str = "modified") -> None:
        assert set(texts(host, paths).values()) == {f"{name}\n"}
        for path in paths:
            assert overlays.origin(path) == (f"system/{name}", kind, hides)

    show("aaa", ["system/bbb"])  # by name, as long as the priority is the same
    overlays("--name=bbb", "--set-priority=51")
    show("bbb", ["system/aaa"])
    overlays("--disable=bbb")
    show("aaa", [], "added")
    overlays("--enable=bbb")
    overlays("--create", "--name=top", "--priority=999", f"--remove-file={LICENSE}")
    overlays.put("aaa", {LICENSE: "aaa\n"})
    assert overlays.origin(LICENSE) == ("system/top", "removed", ["system/aaa", "the base"])
    assert not host.exists(LICENSE)
    overlays("--name=top", "--set-priority=0")
    assert overlays.origin(LICENSE) == ("system/aaa", "modified", ["system/top", "the base"])
    assert list(overlays.list()) == ["bbb", "aaa", "top"]
    show("bbb", ["system/aaa"])


# --- boots


SERVICE = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=cp /etc/fx-stays.conf /usr/share/fx-stays -t /run/fx-stays
RuntimeDirectory=fx-stays
[Install]
WantedBy=multi-user.target
"""
BOOT_PATHS = ("/usr/share/fx-stays", "/etc/fx-stays.conf", "/usr/share/fx-goes", "/etc/fx-goes.conf",
              "/usr/share/fx-part", "/etc/fx-part.conf")  # fmt: skip


def _make_all_kinds(host: Host, overlays: Overlays) -> None:
    unit = "/usr/lib/systemd/system"
    stays = {"/usr/share/fx-stays": "stays\n", "/etc/fx-stays.conf": "conf\n"}
    if "stays" not in overlays.list():
        host.sh(f"mkdir -p /run/u/multi-user.target.wants; echo '{SERVICE}' >/run/u/fx-stays.service;"
                "ln -sfn ../fx-stays.service /run/u/multi-user.target.wants/fx-stays.service")  # fmt: skip
        overlays.new("stays", {**stays, ISSUE: "stays\n"})
        overlays(f"--add={unit}", "--from=/run/u")
    overlays.new("goes", {"/usr/share/fx-goes": "x\n", "/etc/fx-goes.conf": "x\n", ISSUE: "goes\n"},
                 "--persistence=temporary", "--priority=60")  # fmt: skip
    part = {"/usr/share/fx-part": "x\n", "/etc/fx-part.conf": "x\n"}
    if "part" in overlays.list():
        overlays.put("part", part)
    else:
        overlays.new("part", part, "--persistence=hybrid", "--persist=/etc/*")


@pytest.mark.variants
@pytest.mark.parametrize("how", ["reboot", "power-cut"])
def test_what_a_boot_makes_of_overlays(host: Host, overlays: Overlays, how: str):
    host.sh(f"cp -a {ISSUE} /var/tmp/issue; echo mine >>{ISSUE}")
    before = host.shown()
    _make_all_kinds(host, overlays)
    assert None not in texts(host, BOOT_PATHS).values()
    assert host.sh(f"cat {ISSUE}") == "goes\n"
    host.sh("sync")
    for _time in range(2):  # what was shown at boot stays, and the temporary ones can be made again
        host.reboot() if how == "reboot" else host.power_cut()
        found = texts(host, BOOT_PATHS)
        assert {path for path, text in found.items() if text} == {
            "/usr/share/fx-stays", "/etc/fx-stays.conf", "/etc/fx-part.conf"
        }  # fmt: skip
        assert host.sh(f"cat {ISSUE}") == "stays\n"
        assert set(overlays.list()) == {"stays", "part"}
        assert host.sh("cat /run/fx-stays/*") == "stays\nconf\n"
        assert _moment(host, RECOVER, "ExecMainExit") < _moment(host, "fx-stays", "ExecMainStart")
        assert _moment(host, RECOVER, "ExecMainExit") < _moment(host, "sysinit.target", "ActiveEnter")
        assert host.failed_units() == []
        host.ao("rollback", "--live", code=3)  # nothing was changed since the boot
        _make_all_kinds(host, overlays)
        host.ao("rollback", "--live", "0")  # how the boot began: with what persists
        assert texts(host, BOOT_PATHS) == found
        _make_all_kinds(host, overlays)
    overlays.clear()
    same(before, host.shown())
    host.ao("apply-live", "--reset")
    assert overlays.list() == {}
    host.sh(f"cp -a /var/tmp/issue {ISSUE}")


def _moment(host: Host, unit: str, event: str) -> int:
    return int(host.unit_property(unit, f"{event}TimestampMonotonic"))


@pytest.mark.extended
def test_nothing_of_an_overlay_gets_into_a_new_deployment(own: Host):
    overlays = Overlays(own)
    own.sh(f"echo mine >>{ISSUE}")
    before = own.look()
    old = own.sh("readlink -f $(ls -d /ostree/deploy/*/deploy/*.0)/etc").strip()
    overlays.new("web", {ISSUE: "theirs\n", "/etc/fx-web/conf": "x\n", "/usr/share/fx-web": "x\n"},
                 "--remove-file=/etc/inputrc")  # fmt: skip
    own.ao("install", "fx-hello")
    own.reboot()
    assert own.sh("cat /usr/share/fx-web /etc/fx-web/conf; fx-hello") == "x\nx\nhello 1.0\n"
    assert not own.exists("/etc/inputrc")
    # The deployment that was left has its /etc back ...
    assert own.sh(f"tail -n 1 {old}/issue; ls {old}/inputrc") == f"mine\n{old}/inputrc\n"
    assert not own.exists(f"{old}/fx-web")
    # ... and in the new one only the overlay keeps its files there.
    overlays("--disable=web")
    after = own.look()
    changed = {p for p in before.etc.keys() | after.etc.keys() if before.etc.get(p) != after.etc.get(p)}
    assert not {path for path in changed if "ostree" not in path and "ld.so" not in path}
    overlays("--enable=web")
    own.power_cut()
    assert own.sh("cat /usr/share/fx-web /etc/fx-web/conf") == "x\nx\n"
    overlays("--remove")
    same({"etc": after.etc, "usr": after.usr}, own.shown())


FAILING = "[Service]\\nType=oneshot\\nExecStart=/bin/false\\n"


def test_an_overlay_that_keeps_a_boot_from_succeeding_is_disabled(own: Host):
    overlays = Overlays(own)
    overlays.new("good", {"/etc/fx-good.conf": "good\n"})
    own.reboot()
    own.sh("mkdir -p /run/u/boot-complete.target.requires;"
           f"printf '{FAILING}' >/run/u/fx-fails.service;"
           "ln -s ../fx-fails.service /run/u/boot-complete.target.requires/fx-fails.service")  # fmt: skip
    overlays("--create", "--name=bad", "--add=/usr/lib/systemd/system", "--from=/run/u")
    own.reboot()
    assert overlays.list()["bad"]["shown"]
    assert not own.is_active("boot-complete.target")
    own.reboot()
    found = overlays.list()
    assert {name: (row["enabled"], row["shown"]) for name, row in found.items()} == {
        "bad": (False, False), "good": (True, True)
    }  # fmt: skip
    assert own.is_active("boot-complete.target") and own.exists("/etc/fx-good.conf")
    assert not own.exists("/usr/lib/systemd/system/fx-fails.service")
    entries = own.json("history")
    said = [
        entry["message"] for entry in entries if entry["verb"] == "boot" and "system/bad" in entry["message"]
    ]
    assert said and "did not succeed" in said[0]
    assert "system/bad is disabled" in own.sh(f"journalctl -b -u {RECOVER}")
    own.reboot()  # the one that has proven itself stays for good
    assert overlays.list()["good"]["shown"]
    overlays("--enable=bad")
    own.power_cut()
    assert overlays.list()["bad"]["shown"], "enabled again, it gets its chance"
    own.power_cut()
    assert {name: row["enabled"] for name, row in overlays.list().items()} == {"bad": False, "good": True}


# --- a base that changes


CHANGED = {  # overlay -> paths that 2.0 of the fixture packages changed, removed or added, and another one
    "keep": ("/etc/fx-conf/main.conf", "/usr/share/fx-keep"),
    "drop": ("/etc/fx-conf/old.conf", "/usr/share/fx-hello/greeting", "/usr/share/fx-drop"),
    "disable": ("/etc/fx-conf/new.conf", "/usr/share/fx-disable"),
}


@pytest.mark.extended
def test_a_base_that_changes_what_overlays_have(own: Host):
    overlays = Overlays(own)
    own.ao("install", "fx-conf", "fx-hello")
    own.reboot()
    for name, paths in CHANGED.items():
        overlays.new(name, dict.fromkeys(paths, f"{name}\n"), f"--on-conflict={name}")
    every = [path for paths in CHANGED.values() for path in paths]
    before = texts(own, every)
    assert before == {path: f"{name}\n" for name, paths in CHANGED.items() for path in paths}

    def check(told: str) -> None:
        assert texts(own, every) == {
            **before,
            "/etc/fx-conf/old.conf": None,
            "/usr/share/fx-hello/greeting": "hello 2.0\n",
            "/etc/fx-conf/new.conf": "only=in-2.0\n",
            "/usr/share/fx-disable": None,
        }
        for name, paths in CHANGED.items():
            assert f"system/{name}" in told and paths[0] in told
        assert overlays.list()["disable"]["enabled"] and not overlays.list()["disable"]["shown"]

    own.suites("stable", "updates")
    plan = own.json("upgrade", "-A", "-y", "--packages-only")["plan"]
    assert len(plan["overlays"]) == 4
    check("\n".join(plan["overlays"]))
    own.ao("rollback", "--live")
    assert texts(own, every) == before
    own.ao("apply-live", "--allow-replacement")
    check("\n".join(plan["overlays"]))
    overlays("--disable=keep")
    assert own.sh("sed -n 2p /etc/fx-conf/main.conf") == "version=2.0\n"
    overlays("--enable=keep")
    own.reboot()
    check(own.sh(f"journalctl -b -u {RECOVER}"))
    # To edit another path does not bring back what gave way; to edit the path itself does.
    overlays.put("drop", {"/usr/share/fx-more": "more\n"})
    check(own.sh(f"journalctl -b -u {RECOVER}"))
    overlays.put("drop", {"/usr/share/fx-hello/greeting": "drop\n"})
    assert own.sh("fx-hello") == "drop\n"
    assert not own.exists("/etc/fx-conf/old.conf")
    overlays.clear()
    assert own.sh("sed -n 2p /etc/fx-conf/main.conf; ls /etc/fx-conf; fx-hello") == (
        "version=2.0\nconstant.conf\nmain.conf\nnew.conf\nhello 2.0\n"
    )
    own.ao("rollback", "--live", "0")


# --- refusing and planning touch nothing


REFUSED = {
    "setuid": (["--add=/usr/bin/fx", "--from=/run/text", "--mode=4755"], 3),
    "outside": (["--add=/var/lib/fx", "--from=/run/text"], 2),
    "not-plain": (["--add=/usr/../etc/fx", "--from=/run/text"], 2),
    "usr-etc": (["--add=/usr/etc/fx", "--from=/run/text"], 2),
    "device": (["--add=/usr/share/fx", "--from=/dev/null"], 3),
    "no-source": (["--add=/usr/share/fx", "--from=/run/nothing"], 2),
    "nothing-there": (["--add=/usr/share/fx"], 2),
    "protected": (["--remove-file=/usr/lib/systemd/systemd"], 3),
    "accounts": (["--modify=/etc/passwd", "--from=/run/text"], 3),
    "itself": (["--remove-file=/usr/bin/apt-ostree"], 3),
    "world-writable": (["--add=/etc/fx", "--from=/run/text", "--mode=0666"], 3),
    "no-such-overlay": (["--name=nobody", "--disable"], 2),
    "same-name": (["--create", "--name=web"], 2),
    "bad-name": (["--create", "--name=../web"], 2),
    "hybrid-of-nothing": (["--persistence=hybrid"], 2),
    "circle": (["--inherit=web"], 3),
}


def test_refused_edits_and_dry_runs_change_nothing(host: Host, overlays: Overlays):
    host.sh("echo text >/run/text")
    overlays.new("web", {"/usr/share/fx-web": "x\n", ISSUE: "x\n"})
    before = host.look()
    for words, code in REFUSED.values():
        assert overlays(*words, code=code)["error"] in {"Refused", "UsageError"}, words
    dry = [
        ["--create", "--name=other"],
        ["--create", "--name=other", "--add=/usr/share/fx", "--from=/run/text"],
        ["--modify=/usr/share/fx-web", "--from=/run/text"],
        [f"--drop={ISSUE}"],
        [f"--remove-file={LICENSE}"],
        ["--set-priority=70"],
        ["--rename=other"],
        ["--disable"],
        ["--remove"],
    ]
    for number, words in enumerate(dry):
        name = [] if number < 2 else ["--name=web"]
        assert overlays("--dry-run", *name, *words)["changed"], words
        if number % 3 == 0:
            assert overlays.list()["web"]["shown"] and list(overlays.list()) == ["web"]
    after = host.look()
    same(_recorded(before.everything()), _recorded(after.everything()))


def _recorded(everything: dict[str, object]) -> dict[str, object]:
    """Leave out the database's own files, which change when it is opened."""
    state = everything["state"]
    assert isinstance(state, dict)
    return everything | {"state": {path for path in state if not path.endswith(("-wal", "-shm"))}}


# --- at random


WALK = ("/usr/share/fx-one", "/usr/share/fx-deep/er/two", LICENSE, ISSUE, "/etc/inputrc",
        "/etc/fx-three/conf", "/etc/fx-mine.conf")  # fmt: skip


@pytest.mark.parametrize("round_", range(4 if TORTURE else 1))
def test_random_steps(host: Host, overlays: Overlays, round_: int):
    """After each step the paths hold what plain copies would give; the way back is exact."""
    host.sh(f"cp -a {ISSUE} /run/issue; echo mine >>{ISSUE}; echo mine >/etc/fx-mine.conf")
    before = host.shown()
    shipped = frozenset((LICENSE, ISSUE, "/etc/inputrc"))
    model = Model(texts(host, WALK), shipped, random.Random(f"{SEED} {round_}"))
    trace: list[str] = []
    for _number in range(60 if TORTURE else 18):
        now = copy.deepcopy(model.overlays)
        what, result = model.step(overlays, ("aaa", "bbb", "ccc"))
        trace.append(what)
        print(what, flush=True)
        assert texts(host, WALK) == model.shows(), trace
        if result["live"] and model.chance(0.2):
            trace.append("rollback")
            print("rollback", flush=True)
            host.ao("rollback", "--live")
            model.overlays = now
            assert texts(host, WALK) == model.shows(), trace
        listed = {name: (row["priority"], row["enabled"]) for name, row in overlays.list().items()}
        assert listed == {name: (o.priority, o.enabled) for name, o in model.overlays.items()}, trace
    for name in model.overlays:
        if overlays.list()[name]["enabled"]:
            overlays(f"--disable={name}")
    same(before, host.shown())
    overlays.clear()
    same(before, host.shown())
    host.ao("rollback", "--live", "0")
    same(before, host.shown())
    host.check_clean()
    host.sh(f"cp -a /run/issue {ISSUE}; rm /etc/fx-mine.conf")
