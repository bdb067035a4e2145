"""Finishing a root directory: kernels, state, accounts, leftovers; a second run changes nothing."""

import os
import struct
from pathlib import Path

import pytest

from apt_ostree.core.build.finish import finish_tree, reset_bytecode
from apt_ostree.model import layout
from apt_ostree.model.events import silent

KERNEL = "6.12.1-amd64"


class Sandbox:
    """Stands for the sandbox: remembers what should run, and makes an initramfs when asked for one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commands: list[list[str]] = []

    def __call__(self, command, what):
        self.commands.append(list(command))
        if command[0] == "dracut":
            (self.root / command[-1].lstrip("/")).write_text("initramfs")

    def names(self) -> list[str]:
        return [command[0] for command in self.commands]


@pytest.fixture
def root(tmp_path):
    for name in ("boot", "etc/ssh", "etc/xml", "var/lib/app", "var/log/app", "var/tmp", "usr/lib/tmpfiles.d"):
        (tmp_path / name).mkdir(parents=True)
    me, group = os.getuid(), os.getgid()
    (tmp_path / "etc/passwd").write_text(f"owner:x:{me}:{group}::/:/bin/sh\napp:x:900:900::/:/bin/sh\n")
    (tmp_path / "etc/group").write_text(f"owners:x:{group}:\napp:x:900:\n")
    (tmp_path / "etc/shadow").write_text("app:!:20415:0:99999:7:::\n")
    (tmp_path / "var/lib/app/data").write_text("data")
    (tmp_path / "var/lib/app/data").chmod(0o640)
    (tmp_path / "var/lib/app/link").symlink_to("data")
    (tmp_path / "var/log/app/app.log").write_text("log")
    (tmp_path / "usr/lib/tmpfiles.d/var.conf").write_text("d /var/log 0755 - - -\n")
    add_kernel(tmp_path, KERNEL)
    return tmp_path


def add_kernel(root: Path, kernel: str) -> None:
    (root / layout.KERNEL_MODULES / kernel / "kernel").mkdir(parents=True)
    for name in ("vmlinuz", "config", "System.map"):
        (root / f"boot/{name}-{kernel}").write_text(name)
    (root / f"boot/initrd.img-{kernel}").write_text("from a hook")
    for link in ("vmlinuz", "vmlinuz.old"):
        (root / link).unlink(missing_ok=True)
        (root / link).symlink_to(f"boot/vmlinuz-{kernel}")


def finish(root: Path, **options) -> Sandbox:
    sandbox = Sandbox(root)
    finish_tree(root, run_in_root=sandbox, report=silent, **options)
    return sandbox


def snapshot(root: Path) -> dict[str, str]:
    return {
        str(path): path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        for path in root.rglob("*")
    }


def test_kernel_moves_beside_its_modules_with_diversions(root):
    sandbox = finish(root)
    modules = root / layout.KERNEL_MODULES / KERNEL
    assert {path.name for path in modules.iterdir()} == {
        "System.map", "config", "initramfs.img", "kernel", "vmlinuz"
    }  # fmt: skip
    assert sandbox.names() == ["dpkg-divert"] * 3 + ["dracut"]
    assert f"/usr/lib/modules/{KERNEL}/vmlinuz" in sandbox.commands[0]
    assert list((root / "boot").iterdir()) == []
    assert not (root / "vmlinuz").is_symlink()
    assert not (root / "vmlinuz.old").is_symlink()


def test_finishing_twice_changes_nothing(root):
    finish(root)
    before = snapshot(root)
    sandbox = finish(root)
    assert sandbox.commands == []
    assert snapshot(root) == before


def test_a_second_kernel_gets_its_own_initramfs(root):
    finish(root)
    add_kernel(root, "6.12.2-amd64")
    sandbox = finish(root)
    assert sandbox.names() == ["dpkg-divert"] * 3 + ["dracut"]
    assert (root / layout.KERNEL_MODULES / "6.12.2-amd64/initramfs.img").exists()


def test_what_a_removed_kernel_left_goes(root):
    finish(root)
    modules = root / layout.KERNEL_MODULES / KERNEL
    (modules / "vmlinuz").unlink()
    (modules / "kernel").rmdir()
    sandbox = finish(root)
    assert all("--remove" in command for command in sandbox.commands)
    assert not modules.exists()


def test_state_becomes_lines_and_factory_copies(root):
    finish(root)
    lines = (root / layout.TMPFILES_VAR).read_text().splitlines()[1:]
    assert lines == [
        "d /var/lib/app 0755 owner owners -",
        "C /var/lib/app/data 0640 owner owners - /usr/share/factory/var/lib/app/data",
        "L /var/lib/app/link - - - - data",
        "d /var/log/app 0755 owner owners -",
    ]
    assert (root / "usr/share/factory/var/lib/app/data").read_text() == "data"


def test_state_that_was_there_or_is_described_gets_no_line(root):
    (root / "usr/lib/tmpfiles.d/app.conf").write_text("d /var/log/app 0755 app app -\n")
    finish(root, var_before=frozenset({"var/lib/app", "var/lib/app/link"}))
    text = (root / layout.TMPFILES_VAR).read_text()
    assert [line.split()[1] for line in text.splitlines()[1:]] == ["/var/lib/app/data"]


def test_accounts_are_described(root):
    finish(root)
    text = (root / layout.SYSUSERS).read_text()
    assert "g app 900\n" in text
    assert "u app 900:900 - / /bin/sh\n" in text
    assert (root / "etc/shadow").read_text() == "app:!::0:99999:7:::\n"


def test_units_look_at_every_boot_only_where_they_exist(root):
    units = root / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    (units / "systemd-sysusers.service").write_text("[Unit]\nConditionNeedsUpdate=/etc\n")
    finish(root)
    assert (units / "systemd-sysusers.service.d/10-apt-ostree.conf").exists()
    assert not (units / "sshd-keygen.service.d").exists()


def test_host_keys_are_made_one_way_or_the_other(root):
    units = root / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    (units / "ssh.service").write_text("")
    finish(root)
    assert "ssh-keygen -A" in (units / "ssh.service.d/10-apt-ostree.conf").read_text()
    (units / "sshd-keygen.service").write_text("")
    (units / "ssh.service.d/10-apt-ostree.conf").unlink()
    finish(root)
    assert not (units / "ssh.service.d/10-apt-ostree.conf").exists()
    assert (units / "sshd-keygen.service.d/10-apt-ostree.conf").exists()


def test_leftovers_go(root):
    admindir = root / layout.DPKG_ADMINDIR
    (admindir / "triggers").mkdir(parents=True)
    (admindir / "diversions").write_text("/b\n/b.x\n:\n/a\n/a.x\npkg\n")
    gone = ["etc/passwd-", "etc/.pwd.lock", "etc/ssh/ssh_host_rsa_key", "etc/xml/catalog.old"]
    gone += [
        "etc/ssh/sshd_config.dpkg-old",
        f"{layout.DPKG_ADMINDIR}/status-old",
        f"{layout.DPKG_ADMINDIR}/lock",
    ]
    for name in [*gone, "etc/machine-id", "etc/ssh/sshd_config"]:
        (root / name).write_text("x")
    finish(root)
    assert [name for name in gone if (root / name).exists()] == []
    assert (root / "etc/machine-id").read_text() == ""
    assert (root / "etc/ssh/sshd_config").exists()
    assert (admindir / "diversions").read_text() == "/a\n/a.x\npkg\n/b\n/b.x\n:\n"


def test_compiled_python_agrees_with_a_source_of_time_zero(root):
    cache = root / "usr/lib/python3/dist-packages/__pycache__"
    cache.mkdir(parents=True)
    by_time = b"MAGC" + struct.pack("<III", 0, 1700000000, 42) + b"code"
    by_hash = b"MAGC" + struct.pack("<I", 1) + b"12345678" + b"code"
    (cache / "a.pyc").write_bytes(by_time)
    (cache / "b.pyc").write_bytes(by_hash)
    os.link(cache / "a.pyc", root / "the-repository-object")
    reset_bytecode(root / "usr", root / "usr")
    assert (cache / "a.pyc").read_bytes() == b"MAGC" + struct.pack("<III", 0, 0, 42) + b"code"
    assert (cache / "b.pyc").read_bytes() == by_hash
    assert (root / "the-repository-object").read_bytes() == by_time
