"""What becomes of overlays over time: history, backups, other machines, damage and repair, cleaning up."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from tests.system import livehost
from tests.system.livehost import WRITABLE_SYSROOT, Host, program, same
from tests.system.overlayhost import Overlays, configure, texts
from tests.system.sweep import SEED, TORTURE

ONE, TWO = "/usr/share/fx-one", "/etc/fx-two.conf"
KEYS = "/etc/apt-ostree/overlay-keys.d"
PLACE = "/var/lib/apt-ostree/overlays/backup"


@pytest.fixture
def host(host: Host) -> Iterator[Host]:
    """The module's machine, without what overlays leave when they are removed."""
    yield host
    host.reset()  # so that nothing needs the objects that a test has damaged
    Overlays(host)("--cleanup")
    host.sh(f"rm -rf {PLACE} {KEYS} /etc/apt-ostree/apt-ostree.conf* /root/.gnupg")


# --- history


def _history(overlays: Overlays, name: str = "web") -> list[tuple[str, str]]:
    """Return (subject, note) of an overlay's commits, the newest first."""
    return [(row["subject"], row["note"]) for row in overlays.read("--history", f"--name={name}")]


def test_what_was_once_can_be_had_again(host: Host, overlays: Overlays):
    overlays.new("web", {ONE: "1\n", TWO: "1\n"})
    overlays.put("web", {ONE: "2\n"})
    overlays.put("web", {TWO: "3\n"})
    newest, middle, first = [row["commit"] for row in overlays.read("--history", "--name=web")]
    overlays(f"--restore={first}")
    assert texts(host, (ONE, TWO)) == {ONE: "1\n", TWO: "1\n"}
    assert _history(overlays)[0] == (f"restore {first[:12]}", "") and len(_history(overlays)) == 4
    host.ao("rollback", "--live")
    assert texts(host, (ONE, TWO)) == {ONE: "2\n", TWO: "3\n"}
    undone = overlays.read("--history", "--name=web")[-1]
    assert undone["note"] == "undone"
    overlays("--restore=apt-ostree/past/system/web/1", "--name=copy")
    assert overlays.list()["copy"]["commit"] != middle
    overlays("--disable=web")
    assert texts(host, (ONE, TWO)) == {ONE: "2\n", TWO: "1\n"}
    overlays("--remove", "--name=copy")
    overlays(f"--restore={undone['commit']}")  # what an undo took away is not lost; a disabled one stays so
    assert not host.exists(ONE)
    overlays("--enable=web")
    assert texts(host, (ONE, TWO)) == {ONE: "1\n", TWO: "1\n"}
    before = host.look()
    for commit in (host.commit_of_booted(), "0" * 64, "apt-ostree/past/system/web/99"):
        assert overlays(f"--restore={commit}", code=2)["error"] == "UsageError"
    same(before.everything(), host.look().everything())
    assert newest in {row["commit"] for row in overlays.read("--history", "--name=web")}


# --- backups, and other machines


def _make_key(host: Host, name: str) -> None:
    """Give a machine a key that signs its backups."""
    host.sh(f"gpg --batch --quiet --passphrase '' --quick-generate-key {name}@example.com ed25519 sign never")
    configure(host, f"SignKey={name}@example.com")


def _copied(source: Host, target: Host, path: str, to: str = "") -> None:
    """Carry a file from one machine to another."""
    data = source.machine.exec("cat", path, check=True).stdout
    target.machine.exec(
        "sh", "-c", f"mkdir -p $(dirname {to or path}); cat >{to or path}", input=data, check=True
    )


def test_a_signed_backup_is_restored_on_another_machine(host: Host, overlays: Overlays, own: Host):
    _make_key(host, "signer")
    host.sh("gpg --export signer@example.com >/run/signer.gpg")
    overlays.new("web", {ONE: "1\n", TWO: "2\n"}, "--priority=70", "--remove-file=/etc/inputrc")
    overlays.put("web", {ONE: "one\n"})
    overlays.new("more", {"/usr/share/fx-more": "more\n"})
    overlays("--disable=more")
    host.ao("usroverlay", "--backup=/run/all.ovl")
    _copied(host, own, "/run/all.ovl")

    there = Overlays(own)
    untouched = own.look()
    assert there("--restore=/run/all.ovl", code=3)["error"] == "Refused"
    _make_key(own, "stranger")  # a good key, but not the signer's
    own.sh(f"mkdir -p {KEYS}; gpg --export stranger@example.com >{KEYS}/stranger.gpg")
    assert there("--restore=/run/all.ovl", code=3)["error"] == "Refused"
    assert there.list() == {}
    same({"usr": untouched.usr}, {"usr": own.look().usr})
    _copied(host, own, "/run/signer.gpg", f"{KEYS}/signer.gpg")
    there("--restore=/run/all.ovl")
    assert texts(own, (ONE, TWO, "/usr/share/fx-more", "/etc/inputrc")) == {
        ONE: "one\n", TWO: "2\n", "/usr/share/fx-more": "more\n", "/etc/inputrc": None
    }  # fmt: skip
    assert there.list()["web"]["priority"] == 70
    assert len(_history(there)) == 3 and _history(there)[1:] == _history(overlays)
    there(f"--restore={there.read('--history', '--name=web')[-1]['commit']}")
    assert texts(own, (ONE,)) == {ONE: "1\n"}
    there.clear()
    there("--restore=/run/all.ovl", "--name=more")
    assert set(there.list()) == {"more"}
    there("--restore=/run/all.ovl", "--name=nobody", code=2)


def test_what_is_no_good_backup_is_refused(host: Host, overlays: Overlays, own: Host):
    before = host.shown()
    there = Overlays(own)
    there.new("web", {ONE: "content that is looked for\n"})
    own.ao("usroverlay", "--backup=/run/good.ovl", "--name=web")
    _copied(own, host, "/run/good.ovl")
    host.run_program("bad_backups.sh")
    codes = {"nothing.ovl": 2, "text.ovl": 2, "short.ovl": 2, "empty": 2, "links.ovl": 3, "bad": 1}
    for name, code in codes.items():
        told = overlays(f"--restore=/run/{name}", "--allow-unsigned", code=code)
        assert f"/run/{name}" in told["message"] or "the backup is damaged" in told["hint"], name
        assert overlays.list() == {} and not host.exists(ONE), name
    overlays("--restore=/run/good.ovl", code=3)  # nobody signed it
    overlays("--restore=/run/good.ovl", "--allow-unsigned")
    assert texts(host, (ONE,)) == {ONE: "content that is looked for\n"}
    overlays.clear()
    same(before, host.shown())
    # The rules of this machine count, not what the overlay was allowed on another one.
    there.new("evil", {"/usr/bin/fx-evil": "x\n"}, "--mode=4755", "--allow=setuid")
    own.ao("usroverlay", "--backup=/run/evil/", "--name=evil")
    own.sh("tar -cf /run/evil.tar -C /run evil")
    _copied(own, host, "/run/evil.tar")
    host.sh("tar -xf /run/evil.tar -C /run")
    assert "(setuid)" in json.dumps(overlays("--restore=/run/evil", "--allow-unsigned", code=3))
    overlays("--restore=/run/evil", "--allow-unsigned", "--allow=setuid")
    assert host.sh("stat -c %a /usr/bin/fx-evil") == "4755\n"
    host.sh("rm -r /run/bad /run/*.ovl /run/links /run/empty /run/evil*")


# --- damage

DAMAGES = [
    (kind, how)
    for kind in ("commit", "dirtree", "dirmeta", "file")
    for how in ("missing", "empty", "flipped")
]
if not TORTURE:
    DAMAGES = [random.Random(f"{SEED} {kind}").choice([d for d in DAMAGES if d[0] == kind])
               for kind in ("commit", "dirtree", "dirmeta", "file")]  # fmt: skip


OWN = "share/fx-tree/fx-dir"  # a directory of the overlay's own, with a file
WEB = "apt-ostree/overlay/system/web"


def _damage(host: Host, kind: str, how: str, whose: str = WEB, path: str | None = None) -> None:
    where = path or (f"usr/{OWN}/file" if kind == "file" else f"usr/{OWN}")
    host.run(*WRITABLE_SYSROOT, *program("damage_object.py", kind, how, whose, where))


def _made(overlays: Overlays) -> dict[str, str | None]:
    """Make an overlay with objects of all kinds of its own; return what it shows."""
    overlays.host.sh("mkdir -p -m 0711 /run/tree/fx-dir; chmod 0711 /run/tree/fx-dir")
    overlays("--create", "--name=web", "--add=/usr/share/fx-tree", "--from=/run/tree")
    overlays.put("web", {f"/usr/{OWN}/file": "content of its own\n", TWO: "conf\n"})
    return texts(overlays.host, (f"/usr/{OWN}/file", TWO))


@pytest.mark.variants
@pytest.mark.parametrize(("kind", "how"), DAMAGES, ids=[f"{how}-{kind}" for kind, how in DAMAGES])
def test_damage_is_found_and_repaired_from_the_backup(host: Host, overlays: Overlays, kind: str, how: str):
    before = host.shown()
    shown = _made(overlays)
    whole = host.shown()
    host.ao("usroverlay", "--backup")
    _damage(host, kind, how)
    assert set(overlays.list()) == {"web"}
    assert list(overlays("--check", "--dry-run")["damaged"]) == ["system/web"]
    result = overlays("--check")
    assert result["repaired"] == ["system/web"]
    assert texts(host, shown) == shown
    same(whole, host.shown())
    assert overlays("--check")["damaged"] == {}
    host.check_clean()
    overlays("--disable=web")
    overlays("--enable=web")
    same(whole, host.shown())
    overlays("--disable=web")
    same(before, host.shown())


@pytest.mark.extended
@pytest.mark.variants
@pytest.mark.parametrize(("kind", "how"), DAMAGES, ids=[f"{how}-{kind}" for kind, how in DAMAGES])
def test_damage_without_a_backup(host: Host, overlays: Overlays, kind: str, how: str):
    """What the checked-out layer still has is repaired from that; else the overlay alone is disabled."""
    before = host.shown()
    shown = _made(overlays)
    overlays.new("good", {ONE: "good\n"})
    whole = host.shown()
    _damage(host, kind, how)
    lost = kind == "commit" or (kind == "file" and how != "missing")
    result = overlays("--check")
    assert result["repaired"] == ([] if lost else ["system/web"]) and list(result["damaged"]) == [
        "system/web"
    ]
    assert overlays.list()["good"]["shown"]
    if lost:
        row = overlays.list()["web"]
        assert not row["enabled"] and not row["shown"]
        assert texts(host, (*shown, ONE)) == {**dict.fromkeys(shown), ONE: "good\n"}
        if kind == "commit" and how != "flipped":  # otherwise it can be read
            assert "--check" in overlays("--enable=web", code=1)["hint"]
    else:
        same(whole, host.shown())
        overlays("--disable=web")
        overlays("--enable=web")
        same(whole, host.shown())
    overlays("--remove", "--name=web")
    overlays("--remove", "--name=good")
    same(before, host.shown())
    host.ao("rollback", "--live", "0")  # so that nothing needs the damaged objects any more
    overlays("--cleanup")
    host.check_clean()


@pytest.mark.variants
@pytest.mark.parametrize(
    ("kind", "how"), [(kind, how) for kind, how in DAMAGES if kind in ("commit", "dirtree")]
)
def test_damage_of_what_is_shown_is_repaired(host: Host, overlays: Overlays, kind: str, how: str):
    before = host.shown()
    _made(overlays)
    whole = host.shown()
    _damage(host, kind, how, "view", "usr/share")
    found = overlays("--check")
    assert found["view"] and found["damaged"] == {} and found["changed"]
    assert overlays("--check")["view"] == []
    same(whole, host.shown())
    host.check_clean()
    overlays("--disable=web")
    same(before, host.shown())


@pytest.mark.extended
def test_damage_in_several_places_on_one_path(host: Host, overlays: Overlays):
    """What the checked-out layer says of directories is right, also where a file in them is not."""
    files = _made(overlays)
    whole = host.shown()
    host.ao("usroverlay", "--backup")
    _damage(host, "file", "flipped")
    _damage(host, "dirtree", "missing")
    _damage(host, "dirmeta", "empty", path="usr/share/fx-tree")
    assert overlays("--check")["repaired"] == ["system/web"]
    same(whole, host.shown())
    host.sh(f"rm -r {PLACE}")
    _damage(host, "file", "flipped")
    _damage(host, "dirtree", "flipped")
    assert overlays("--check")["repaired"] == []
    assert texts(host, files) == dict.fromkeys(files)
    overlays("--remove", "--name=web")


@pytest.mark.extended
@pytest.mark.variants
@pytest.mark.parametrize("backup", [True, False], ids=["backup", "no-backup"])
def test_damage_of_what_is_inherited(host: Host, overlays: Overlays, backup: bool):
    before = host.shown()
    _made(overlays)
    overlays("--disable=web")
    overlays("--create", "--name=heir", "--inherit=web")
    whole = host.shown()
    if backup:
        host.ao("usroverlay", "--backup", "--name=web")
    _damage(host, "file", "flipped")
    assert overlays("--check")["repaired"] == (["system/web"] if backup else [])
    same(whole if backup else before, host.shown())
    assert overlays.list()["heir"]["enabled"] == backup
    assert (overlays("--check")["damaged"] == {}) == backup
    overlays.clear()


@pytest.mark.extended
def test_damage_that_two_overlays_share(host: Host, overlays: Overlays):
    _made(overlays)
    overlays.new("twin", {"/usr/share/fx-twin": "content of its own\n"})
    whole = host.shown()
    host.ao("usroverlay", "--backup", "--name=web")  # which helps the other one, too
    _damage(host, "file", "flipped")
    assert overlays("--check")["repaired"] == ["system/twin", "system/web"]
    same(whole, host.shown())
    assert all(row["enabled"] for row in overlays.list().values())
    host.sh(f"rm -r {PLACE}")


@pytest.mark.extended
def test_what_a_template_gave_is_rendered_again(host: Host, overlays: Overlays):
    host.sh("echo '{{ os.ID }} {{ machine.hostname }}' >/run/t.j2")
    overlays("--create", "--name=web", f"--add={ONE}", "--from=/run/t.j2", "--template")
    whole = host.shown()
    _damage(host, "file", "flipped", "view", ONE.lstrip("/"))
    assert overlays("--check")["view"]
    same(whole, host.shown())
    assert overlays("--check")["view"] == [] and overlays.list()["web"]["enabled"]


@pytest.mark.extended
def test_nothing_is_removed_that_cannot_be_replaced(host: Host, overlays: Overlays):
    """A damaged directory of an overlay that nothing shows may be all that there is."""
    _made(overlays)
    overlays("--disable=web")
    overlays.new("good", {ONE: "good\n"})
    objects = "find /ostree/repo/objects -name '*.dirtree' | sort"
    _damage(host, "dirtree", "flipped")
    before = host.sh(objects)
    assert overlays("--check")["repaired"] == []
    assert not set(before.split()) - set(host.sh(objects).split())
    overlays("--remove", "--name=web")
    host.ao("rollback", "--live", "0")
    overlays("--cleanup")


@pytest.mark.extended
def test_what_is_added_again_is_whole(host: Host, overlays: Overlays):
    """The same content is the same object, which must not be used again if it is damaged."""
    files = _made(overlays)
    _damage(host, "file", "flipped")
    overlays("--remove", "--name=web")
    assert _made(overlays) == files
    assert overlays("--check")["damaged"] == {}


@pytest.mark.extended
def test_a_damaged_base_does_not_keep_overlays_from_being_repaired(own: Host):
    overlays = Overlays(own)
    files = _made(overlays)
    own.ao("usroverlay", "--backup")
    _damage(own, "dirtree", "missing", "view", "usr/share/common-licenses")
    _damage(own, "file", "flipped")
    assert overlays("--check")["repaired"] == ["system/web"]
    assert texts(own, files) == files
    own.machine.kill()  # nothing is sound here in the end


@pytest.mark.variants
@pytest.mark.parametrize(("kind", "how"), [("commit", "empty"), ("dirtree", "missing")])
def test_a_boot_goes_on_without_what_is_damaged(own: Host, kind: str, how: str):
    overlays = Overlays(own)
    files = _made(overlays)
    overlays.new("good", {ONE: "good\n"})
    _damage(own, kind, how)
    own.sh("sync")
    own.power_cut()
    rows = overlays.list()
    assert not rows["web"]["enabled"] and rows["good"]["shown"]
    assert texts(own, (*files, ONE)) == {**dict.fromkeys(files), ONE: "good\n"}
    assert own.failed_units() == []
    assert "--check" in overlays("--enable=web", code=1)["hint"]
    overlays("--remove", "--name=web")
    overlays("--cleanup")


# --- cleaning up


def test_cleanup_takes_only_what_is_disabled_and_beyond_a_limit(host: Host, overlays: Overlays):
    for number in range(1, 5):
        overlays.new(f"o{number}", {f"/usr/share/fx-{number}": "x" * 1000 * number})
        if number < 4:
            overlays(f"--disable=o{number}")
        host.sh("sleep 1")  # commits have whole seconds
    everything = {"o1", "o2", "o3", "o4"}
    assert overlays("--cleanup", "--older-than=1h")["overlays"] == []
    assert overlays("--cleanup", "--keep=1", "--dry-run")["overlays"] == ["system/o2", "system/o1"]
    assert set(overlays.list()) == everything
    # The newest come first: 3000 and 2000 bytes fit into 5500, another 1000 do not.
    assert overlays("--cleanup", "--larger-than=5500")["overlays"] == ["system/o1"]
    assert overlays("--cleanup", "--keep=1", "--archive")["overlays"] == ["system/o2"]
    assert set(overlays.list()) == {"o3", "o4"}
    livehost.wait_for(host, "apt-ostree usroverlay --cleanup --older-than=1s --dry-run 2>&1 | grep -q o3")
    assert overlays("--cleanup", "--older-than=1s")["overlays"] == ["system/o3"]
    assert overlays("--cleanup", "--older-than=1s", "--keep=0", "--larger-than=0")["overlays"] == []
    assert set(overlays.list()) == {"o4"} and host.exists("/usr/share/fx-4")
    overlays(f"--restore={PLACE}", "--name=o2")  # what was archived
    assert texts(host, ("/usr/share/fx-2",)) == {"/usr/share/fx-2": "x" * 2000}
    overlays(f"--restore={PLACE}", "--name=o1", code=2)
    assert not [ref for ref in host.look().refs if "/o1" in ref or "/o3" in ref]


@pytest.mark.extended
def test_what_another_one_inherits_is_not_cleaned_up(host: Host, overlays: Overlays):
    overlays.new("ground", {ONE: "1\n"})
    overlays("--disable=ground")
    overlays("--create", "--name=heir", "--inherit=ground")
    assert overlays("--cleanup", "--keep=0")["overlays"] == []
    assert texts(host, (ONE,)) == {ONE: "1\n"}


def test_a_quota_refuses_what_does_not_fit(host: Host, overlays: Overlays):
    host.sh("head -c 200000 /dev/urandom >/run/large")
    overlays("--create", "--name=large", "--add=/usr/share/fx-large", "--from=/run/large")
    configure(host, "Quota=0.3M")
    overlays.new("small", {ONE: "small\n"})
    # The same content is stored once, whatever number of overlays has it.
    overlays("--create", "--name=copy", "--add=/usr/share/fx-copy", "--from=/run/large")
    host.sh("head -c 200000 /dev/urandom >/run/other")
    before = host.look()
    told = overlays("--name=small", "--add=/usr/share/fx-other", "--from=/run/other", code=3)
    assert "400.0 kB" in told["message"] and "300.0 kB" in told["message"]
    same(before.everything(), host.look().everything())
    configure(host, "Quota=100K")  # what is there may stay, be changed and be given up
    overlays("--name=small", "--set-priority=60")
    overlays("--disable=large")
    overlays.put("small", {ONE: "larger\n"}, code=3)
    overlays("--name=large", "--remove")
    overlays("--name=copy", "--remove")
    overlays.put("small", {ONE: "larger\n"})
    configure(host, "Quota=much")
    assert overlays("--name=small", "--set-priority=70", code=2)["error"] == "UsageError"
    configure(host, "Quota=0")
