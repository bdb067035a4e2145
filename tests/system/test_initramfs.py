"""The initramfs of the machine: what arguments of dracut add, with its own /etc, as long as it is wanted."""

from __future__ import annotations

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
