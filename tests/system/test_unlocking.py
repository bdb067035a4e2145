"""The unlocked /usr: written to, kept as an overlay or thrown away; hotfixes."""

from __future__ import annotations

import pytest

from tests.system.livehost import Host, same
from tests.system.overlayhost import Overlays, texts

LICENSE = "/usr/share/common-licenses/GPL-3"
WRITTEN = "/usr/share/fx-written"
#: What writes to /usr, once it is unlocked.
WRITE = {
    "development": "{}",
    "transient": "unshare --mount sh -euc 'mount -o remount,bind,rw /usr; {}'",
}


def _unlocked(host: Host) -> bool:
    return "Unlocked: " in host.sh("ostree admin status")


def _unlock(overlays: Overlays, how: str) -> None:
    assert overlays(*([f"--{how}"] if how != "development" else []))["unlocked"] == how
    assert _unlocked(overlays.host)


@pytest.mark.variants
@pytest.mark.parametrize("live", [False, True], ids=["booted", "live"])
@pytest.mark.parametrize("how", WRITE)
def test_what_was_written_is_kept_or_thrown_away(host: Host, overlays: Overlays, how: str, live: bool):
    if live:
        host.ao("install", "-A", "-y", "fx-hello")
    before = host.shown()
    edits = f"echo 1 >{WRITTEN}; mkdir -m 0711 {WRITTEN}.d; echo 2 >{WRITTEN}.d/two; rm {LICENSE}"
    paths = (WRITTEN, f"{WRITTEN}.d/two", LICENSE)
    assert not host.succeeds(f"touch {WRITTEN}")
    _unlock(overlays, how)
    assert host.succeeds(f"touch {WRITTEN}") == (how == "development")
    host.sh(WRITE[how].format(edits))
    assert texts(host, paths) == {WRITTEN: "1\n", f"{WRITTEN}.d/two": "2\n", LICENSE: None}
    assert {row["path"] for row in overlays.read("--diff")} == {*paths}
    overlays("--discard")
    assert not _unlocked(host) and not host.succeeds(f"touch {WRITTEN}")
    same(before, host.shown())

    _unlock(overlays, how)
    overlays("--save=tuned", code=3)  # nothing was written
    host.sh(WRITE[how].format(edits))
    overlays("--save=tuned")
    assert not _unlocked(host) and not host.succeeds(f"touch {WRITTEN}")
    assert texts(host, paths) == {WRITTEN: "1\n", f"{WRITTEN}.d/two": "2\n", LICENSE: None}
    assert host.sh(f"stat -c %a {WRITTEN}.d") == "711\n"
    assert overlays.origin(LICENSE) == ("system/tuned", "removed", ["the base"])
    if live:
        assert host.sh("fx-hello") == "hello 1.0\n"
    overlays("--disable=tuned")
    same(before, host.shown())
    overlays("--discard", code=2)
    overlays("--save=tuned", code=2)
    host.ao("rollback", "--live", "0")


def test_saving_replaces_what_an_overlay_had(host: Host, overlays: Overlays):
    host.sh("echo '{{ os.ID }}' >/run/t.j2")
    overlays("--create", "--name=web", f"--add={WRITTEN}", "--from=/run/t.j2", "--template",
             "--add=/usr/share/fx-file", "--from=/run/t.j2")  # fmt: skip
    assert texts(host, (WRITTEN,)) == {WRITTEN: "debian\n"}
    _unlock(overlays, "development")
    host.sh(
        f"echo mine >{WRITTEN}; rm /usr/share/fx-file; mkdir /usr/share/fx-file; echo x >/usr/share/fx-file/x"
    )
    overlays("--save=web")
    paths = {row["path"]: row["template"] for row in overlays.read("--list", "--name=web")["paths"]}
    assert paths == dict.fromkeys((WRITTEN, "/usr/share/fx-file", "/usr/share/fx-file/x"), False)
    assert texts(host, (WRITTEN, "/usr/share/fx-file/x")) == {
        WRITTEN: "mine\n",
        "/usr/share/fx-file/x": "x\n",
    }
    assert overlays.list()["web"]["shown"] and not _unlocked(host)


@pytest.mark.extended
def test_an_unlocked_system_and_what_changes_meanwhile(host: Host, overlays: Overlays):
    """Overlays and packages come and go while /usr is unlocked; what was written stays on top."""
    before = host.shown()
    _unlock(overlays, "development")
    host.sh(f"echo 1 >{WRITTEN}")
    overlays("--transient", code=3)  # unlocked already
    overlays.new("web", {"/usr/share/fx-web": "web\n"})
    host.ao("install", "-A", "-y", "fx-hello")
    assert texts(host, (WRITTEN, "/usr/share/fx-web")) == {WRITTEN: "1\n", "/usr/share/fx-web": "web\n"}
    host.sh(f"echo 2 >{WRITTEN}")
    later = host.look()
    host.ao("rollback", "--live", code=3)  # it would take the last edit away
    same(later.everything(), host.look().everything())
    overlays("--save=kept")
    assert texts(host, (WRITTEN,)) == {WRITTEN: "2\n"}
    assert set(overlays.list()) == {"kept", "web"}
    host.ao("rollback", "--live", "0")
    same(before, host.shown())
    assert not _unlocked(host) and overlays.list() == {}


def test_after_the_reboot_an_unlocked_usr_is_locked(own: Host):
    overlays = Overlays(own)
    before = own.shown()
    overlays()
    own.sh(f"echo 1 >{WRITTEN}")
    own.reboot()
    assert not _unlocked(own)
    same(before, own.shown())
    overlays("--transient")
    own.power_cut()
    assert not _unlocked(own)
    same(before, own.shown())


def test_a_hotfix(own: Host):
    """That it outlives a reboot is the initramfs's work: see test_vm.py."""
    overlays = Overlays(own)
    overlays.new("web", {"/usr/share/fx-web": "web\n"})
    live = own.look()
    overlays("--hotfix", code=3)
    same(live.everything(), own.look().everything())
    overlays("--remove", "--name=web")
    own.ao("rollback", "--live", "0")
    assert overlays("--hotfix")["unlocked"] == "hotfix"
    own.sh(f"echo 1 >{WRITTEN}")
    assert "hotfix" in own.sh("ostree admin status")
    assert len(own.sh("ls -d /ostree/deploy/*/deploy/*.?").split()) == 2  # one to go back to
    unlocked = own.look()
    overlays("--save=x", code=3)
    overlays("--discard", code=3)
    overlays("--transient", code=3)
    overlays("--create", "--name=x", "--add=/usr/share/fx-x", f"--from={WRITTEN}", code=3)
    same(unlocked.everything(), own.look().everything())
    own.ao("rollback")
    own.reboot()
    assert not own.exists(WRITTEN) and not own.succeeds(f"touch {WRITTEN}")
