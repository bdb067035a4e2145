"""The initramfs of the machine: what arguments of dracut add, with its own /etc, as long as it is wanted."""

from __future__ import annotations

import pytest

from tests.system import livehost
from tests.system.livehost import Host

#: Of what dracut takes by itself nothing is left but what it needs: that is fast.
FAST = ("--arg=--modules", "--arg=base")


def next_boot(host: Host) -> str:
    """Return the directory of the next boot's deployment."""
    first = host.deployments()[0]
    return f"/ostree/deploy/debian/deploy/{first['checksum']}.{first['serial']}"


def initramfs(host: Host) -> str:
    """Return the path of the next boot's initramfs."""
    return host.sh(f"ls {next_boot(host)}/usr/lib/modules/*/initramfs.img").strip()


def held(host: Host) -> str:
    """Return what the next boot's initramfs has of the marker file."""
    return host.sh(f"lsinitrd {initramfs(host)} -f etc/fx-marker")


def test_it_is_made_in_each_deployment_until_it_is_disabled(own: Host):
    base = own.sh(f"sha256sum <{initramfs(own)}")
    assert "disabled" in own.ao("initramfs").stdout
    own.sh("echo one >/etc/fx-marker")
    own.ao("initramfs", "--enable", "--arg=-I", "--arg=/etc/fx-marker", *FAST)
    assert held(own) == "one\n"
    shown = own.json("initramfs")
    assert shown == {
        "regenerate-initramfs": True,
        "initramfs-args": ["-I", "/etc/fx-marker", "--modules", "base"],
    }

    again = ("initramfs", "--enable", "--arg=-I", "--arg=/etc/fx-marker", *FAST)
    assert own.json(*again, "--dry-run")["changed"]

    own.sh("echo two >/etc/fx-marker")
    own.ao("install", "fx-hello")  # on the pending deployment
    assert held(own) == "two\n" and own.deployments()[0]["requested-packages"] == ["fx-hello"]
    own.ao("reset", "--initramfs")
    assert own.sh(f"sha256sum <{initramfs(own)}") == base
    assert own.deployments()[0]["requested-packages"] == ["fx-hello"]
    assert not own.json("initramfs", "--disable")["changed"]
    own.undeploy()
    own.check_clean()


def test_what_fails_changes_nothing(own: Host):
    before = own.look()
    assert "no-such-option" in own.failure("initramfs", "--enable", "--arg=--no-such-option", code=1)
    own.ao("initramfs", "--enable", *FAST, code=1, failpoint="layering.after-initramfs=kill")
    own.ao("initramfs", "--enable", "--disable", code=2)
    own.ao("initramfs", "--arg=x", code=2)
    livehost.same(before.everything(), own.look().everything())
    own.check_clean()


# --- initramfs-etc


def etc_of(host: Host) -> str:
    """Return what follows the next boot's initramfs: mode, owner and content of each file."""
    return host.run_program("initramfs_etc.sh", initramfs(host)).stdout


@pytest.mark.extended
def test_files_of_etc_follow_it(own: Host):
    base = own.sh(f"sha256sum <{initramfs(own)}")
    own.sh("mkdir -m 750 /etc/fx.d; echo one >/etc/fx.d/a; chmod 640 /etc/fx.d/a; ln -s fx.d /etc/fx-link")
    assert own.ao("initramfs-etc").stdout == "No tracked files.\n"
    own.ao("initramfs-etc", "--track=/etc/fx.d", "--track=/etc/fx-link")
    expected = "etc 755 0:0\netc/fx-link fx.d\netc/fx.d 750 0:0\netc/fx.d/a 640 0:0 one\n"
    assert etc_of(own) == expected
    assert base == own.sh(
        f"head -c $(cat {initramfs(own).removesuffix('.img')}.size) {initramfs(own)} | sha256sum"
    )
    assert own.deployments()[0]["initramfs-etc"] == ["/etc/fx-link", "/etc/fx.d"]

    own.sh("echo two >/etc/fx.d/a")
    again = ("initramfs-etc", "--track=/etc/fx.d", "--unchanged-exit-77")
    own.ao(*again, code=77)
    own.ao("install", "fx-hello")
    assert etc_of(own) == expected.replace("one", "two")
    own.ao("initramfs-etc", "--force-sync", "--unchanged-exit-77", code=77)
    own.sh("echo three >/etc/fx.d/a")
    own.ao("initramfs-etc", "--untrack=/etc/fx-link", "--force-sync")
    assert "fx-link" not in etc_of(own) and "three" in etc_of(own)
    own.ao("initramfs", "--enable", *FAST)
    assert "three" in etc_of(own)
    own.ao("reset", "--initramfs")
    assert own.sh(f"sha256sum <{initramfs(own)}") == base and "initramfs-etc" not in own.deployments()[0]
    own.undeploy()
    own.check_clean()


def test_what_cannot_be_in_it_is_refused(own: Host):
    own.sh("mkfifo /etc/fx-fifo; ln -s alternatives /etc/fx-link")
    before = own.look()
    for path in ("/etc/fx-none", "/etc/fx-fifo", "/etc/fx-link/README"):
        assert path[:12] in str(own.failure("initramfs-etc", f"--track={path}", code=3))
    own.ao("initramfs-etc", "--track=/usr/bin/env", code=2)
    own.ao("initramfs-etc", "--track=/etc/hosts", code=1, failpoint="layering.after-initramfs-etc=error")
    own.ao("initramfs-etc", "-r", code=2)
    livehost.same(before.everything(), own.look().everything())
