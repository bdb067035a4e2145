"""Finishing a root directory: kernels, state, accounts, leftovers; a second run changes nothing."""

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from apt_ostree.core.build.finish import finish_tree, reset_bytecode
from apt_ostree.errors import Refused
from apt_ostree.model import layout, seeds
from apt_ostree.model.events import silent
from apt_ostree.model.seeds import Seed
from apt_ostree.system import dracut

KERNEL = "6.12.1-amd64"
LISTING = """\
Image: /usr/lib/modules/6.12.1-amd64/initramfs.img: 35M
dracut modules:
base
drwxr-xr-x   1 root     root            0 Jan  1  1970 usr/lib/udev
-rwxr-xr-x   3 root     root       210648 Jan  1  1970 usr/bin/udevadm
lrwxrwxrwx   1 root     root            7 Jan  1  1970 bin -> usr/bin
crw-r--r--   1 root     root       5,   1 Jan  1  1970 dev/console
"""


class Sandbox:
    """Stands for the sandbox: remembers what should run, and makes an initramfs when asked for one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commands: list[list[str]] = []
        self.clock: int | None = None

    def __call__(self, command, what):
        self.commands.append(list(command))
        if command[0] == "cp":
            target = command[3].replace("=/", f"={self.root}/")
            subprocess.run([*command[:3], target, *command[4:]], cwd=self.root, check=True)
        if command[0] == "sh":
            (self.root / command[-1].lstrip("/")).write_text(LISTING)
        if command[0] == "dracut":
            clock = self.root / dracut.CLOCK
            self.clock = clock.stat().st_mtime_ns if clock.exists() else None
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


def test_the_initramfs_does_not_depend_on_the_times_of_files(root):
    clock = root / dracut.CLOCK
    clock.parent.mkdir(parents=True)
    clock.write_text("dracut's own")
    assert finish(root).clock == 0
    assert "--reproducible" in dracut.argv(KERNEL, "/image", scratch="/tmp")


def test_a_file_of_a_checkout_is_not_touched_for_the_initramfs(root, monkeypatch):
    clock = root / dracut.CLOCK
    clock.parent.mkdir(parents=True)
    clock.write_text("dracut's own")
    os.utime(clock, (0, 0))
    monkeypatch.setattr(os, "utime", lambda *_words, **_how: pytest.fail("a file was touched"))
    finish(root)


def test_kernel_moves_beside_its_modules_with_diversions(root):
    sandbox = finish(root)
    modules = root / layout.KERNEL_MODULES / KERNEL
    assert {path.name for path in modules.iterdir()} == {
        "System.map", "config", "initramfs.img", "initramfs.inputs", "initramfs.list", "kernel", "vmlinuz"
    }  # fmt: skip
    assert sandbox.names() == ["dpkg-divert"] * 3 + ["dracut", "sh", "cp"]
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


def test_a_second_kernel_is_refused_before_anything_is_made_for_it(root):
    finish(root)
    add_kernel(root, "6.12.2-amd64")
    info = root / layout.DPKG_ADMINDIR / "info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "linux-image-own.list").write_text("/boot/vmlinuz-6.12.2-amd64\n")
    with pytest.raises(Refused) as caught:
        finish(root)
    assert "6.12.2-amd64 is of linux-image-own" in caught.value.details
    assert not (root / layout.KERNEL_MODULES / "6.12.2-amd64/initramfs.img").exists()


def test_a_tree_that_came_with_two_kernels_can_still_be_changed(root):
    finish(root)
    other = root / layout.KERNEL_MODULES / "6.12.2-amd64"
    other.mkdir()
    for name in ("vmlinuz", "initramfs.img"):
        (other / name).write_text(name)
    assert finish(root).commands == []


def test_another_kernel_gets_its_own_initramfs(root):
    finish(root)
    modules = root / layout.KERNEL_MODULES / KERNEL
    (modules / "vmlinuz").unlink()
    (modules / "kernel").rmdir()
    add_kernel(root, "6.12.2-amd64")
    sandbox = finish(root)
    assert sandbox.names() == ["dpkg-divert"] * 6 + ["dracut", "sh"]  # its state is there already
    assert (root / layout.KERNEL_MODULES / "6.12.2-amd64/initramfs.img").exists()
    assert not modules.exists()


def test_what_a_removed_kernel_left_goes(root):
    finish(root)
    modules = root / layout.KERNEL_MODULES / KERNEL
    (modules / "vmlinuz").unlink()
    (modules / "kernel").rmdir()
    sandbox = finish(root)
    assert all("--remove" in command for command in sandbox.commands)
    assert not modules.exists()


def manifest(root: Path) -> dict[str, Seed]:
    path = root / layout.SEEDS
    return seeds.parse(path.read_text()) if path.exists() else {}


def lines(root: Path) -> list[str]:
    return (root / layout.TMPFILES_VAR).read_text().splitlines()[1:]


def test_directories_become_lines_and_files_seeds(root):
    finish(root)
    assert lines(root) == [
        "d /var/lib/app :0755 :owner :owners -",
        "d /var/log/app :0755 :owner :owners -",
    ]
    ((name, seed),) = manifest(root).items()
    assert (name, seed.top, set(seed.files)) == ("base:/var/lib/app", "/var/lib/app", {"data", "link"})
    copy = root / "usr/share/factory/var/lib/app"
    assert (copy / "data").read_text() == "data"
    assert (copy / "data").stat().st_mode & 0o777 == 0o640
    assert os.readlink(copy / "link") == "data"


def test_state_that_was_there_or_is_described_gets_no_line(root):
    (root / "usr/lib/tmpfiles.d/app.conf").write_text("d /var/log/app 0755 app app -\n")
    finish(root, var_before=frozenset({"var/lib/app", "var/lib/app/link"}))
    assert lines(root) == []
    assert [seed.top for seed in manifest(root).values()] == ["/var/lib/app/data"]


def test_a_later_build_knows_the_seeds_of_the_tree(root):
    finish(root, new_id="first:{}".format)
    before = frozenset(str(path.relative_to(root)) for path in (root / "var").rglob("*"))
    (root / "var/lib/app/data").write_text("changed by a trigger")
    (root / "var/lib/app/more").write_text("more")
    (root / "var/lib/new/deep").mkdir(parents=True)
    (root / "var/lib/new/deep/file").write_text("new")
    finish(root, var_before=before, new_id="second:{}".format)
    assert set(manifest(root)) == {"first:/var/lib/app", "second:/var/lib/new"}
    assert set(manifest(root)["first:/var/lib/app"].files) == {"data", "link", "more"}
    assert (root / "usr/share/factory/var/lib/app/data").read_text() == "changed by a trigger"
    assert lines(root)[1] == "d /var/lib/new :0755 :owner :owners -"  # below it, the seed tells


def test_state_of_a_removed_package_goes(root):
    finish(root)
    before = frozenset(str(path.relative_to(root)) for path in (root / "var").rglob("*"))
    shutil.rmtree(root / "var/lib/app")
    finish(root, var_before=before)
    assert manifest(root) == {}
    assert not (root / "usr/share/factory/var/lib/app").exists()
    assert lines(root) == ["d /var/log/app :0755 :owner :owners -"]


def test_what_packages_ship_is_noted(root):
    info = root / layout.DPKG_ADMINDIR / "info"
    info.mkdir(parents=True)
    (info / "app.list").write_text("/.\n/var/lib/app\n/var/lib/app/data\n")
    finish(root)
    assert manifest(root)["base:/var/lib/app"].shipped == {"data"}


def test_lines_for_files_of_an_older_version_become_seeds(root):
    factory = root / "usr/share/factory/var/lib/app/data"
    factory.parent.mkdir(parents=True)
    factory.write_text("data")
    (root / layout.TMPFILES_VAR).write_text(
        "# old\nd /var/lib/app 0755 app app -\nC /var/lib/app/data 0640 app app - /usr/share/factory/x\n"
        "L /var/lib/app/link - - - - data\nd /var/log/app 0755 app app -\n"
    )
    before = frozenset(str(path.relative_to(root)) for path in (root / "var").rglob("*"))
    finish(root, var_before=before)
    assert lines(root) == ["d /var/lib/app :0755 :owner :owners -", "d /var/log/app :0755 :owner :owners -"]
    assert set(manifest(root)["base:/var/lib/app"].files) == {"data", "link"}


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


def test_selinux_is_configured_where_there_is_a_policy(root):
    config = root / "etc/selinux/config"
    config.parent.mkdir()
    config.write_text("SELINUX=permissive")
    finish(root)
    assert not config.exists()
    contexts = root / "etc/selinux/default/contexts/files/file_contexts"
    contexts.parent.mkdir(parents=True)
    contexts.write_text("")
    finish(root)
    assert config.read_text() == "SELINUX=permissive"


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
    gone = ["etc/passwd-", "etc/.pwd.lock", "etc/xml/catalog.old"]
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
