"""`install-to-existing-root`: what is refused, what goes along, and how it gets to its place.

The root is a directory with files as a Debian has them; what only a device or a mount can tell is replaced.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apt_ostree.cli import client, main, plans
from apt_ostree.core.compose.disk import carrying, existing, existing_host, existing_planning, sources
from apt_ostree.core.compose.disk.existing_host import Host
from apt_ostree.core.compose.disk.existing_planning import Job
from apt_ostree.errors import AptOstreeError, ExternalFailure, Refused, UsageError
from apt_ostree.model import carried_accounts, existing_root, grub, grubenv
from apt_ostree.model.blockdevice import BlockDevice
from apt_ostree.model.carried_accounts import Carried
from apt_ostree.model.diskimage import Contents
from apt_ostree.model.existing_root import Left, Mounts, TakeoverPlan
from apt_ostree.model.origin import Origin
from apt_ostree.model.package import Package
from apt_ostree.model.requests.images import InstallToExistingRoot
from apt_ostree.system import blockdevice, mountinfo, mounts, running, signals
from apt_ostree.system import grub as grub_files
from apt_ostree.system.mountinfo import MountPoint
from apt_ostree.system.ostree.new_sysroot import NewSysroot
from tests.unit.repos import make_repo, write_commit

UUID = "0b0bfd1a-5a3e-4a63-9e63-66dd4ce33fd1"
CHECKSUM = "c" * 64
#: The end of what grub-mkconfig writes.
MENU = """\
menuentry 'Debian GNU/Linux' { linux /boot/vmlinuz-6.1 root=UUID=x ro }
if [ -f  ${config_directory}/custom.cfg ]; then
  source ${config_directory}/custom.cfg
fi
"""
ETC = {
    "os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
    "hostname": "old1\n",
    "machine-id": "8f14e45fceea167a5a36dedd4bea2543\n",
    "ssh/ssh_host_ed25519_key": "secret\n",
    "ssh/sshd_config": "Port 2222\n",
    "network/interfaces": "auto lo\niface lo inet loopback\niface ens3 inet dhcp\n",
    "NetworkManager/system-connections/a": "[connection]\n",
    "sudoers.d/README": "of the package\n",
    "sudoers.d/me": "me ALL=(ALL) NOPASSWD: ALL\n",
    "passwd": (
        "root:x:0:0:root:/root:/bin/bash\nsshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n"
        "me:x:1000:1000:Me,,,:/home/me:/bin/zsh\nold:x:1001:100::/data/old:/bin/bash\n"
    ),
    "group": "root:x:0:\nsudo:x:27:me\nusers:x:100:\ndocker:x:998:me,old\nme:x:1000:old\nadm:x:4:syslog\n",
    "shadow": "root:$y$root:19000:0:99999:7:::\nsshd:!:19000::::::\nme:$y$me:19000:0:99999:7:::\n",
    "gshadow": "root:*::\nsudo:*::me\nusers:*::\ndocker:!::me,old\nme:!::old\nadm:*::syslog\n",
    "subuid": "me:100000:65536\n",
    "subgid": "me:100000:65536\n",
    "fstab": f"UUID={UUID} / ext4 errors=remount-ro 0 1\nUUID=AB /boot/efi vfat umask=0077 0 1\n",
}
TREE = {
    "usr/etc/passwd": "root:x:0:0:root:/root:/bin/bash\n_sshd:x:990:990::/run/sshd:/usr/sbin/nologin\n",
    "usr/etc/group": "root:x:0:\nsudo:x:27:\nusers:x:985:\nadm:x:4:messages\n",
    "usr/etc/shadow": "root:*:20000:0:99999:7:::\n_sshd:!*:::::::\n",
    "usr/etc/gshadow": "root:*::\nsudo:*::\nusers:*::\nadm:*::messages\n",
    "usr/bin/bash": "",
    "usr/bin/sudo": "",
    "usr/bin/apt-ostree": "",
    "usr/sbin/sshd": "",
    "usr/sbin/ifup": "",
}
HOST = Host(
    "Debian GNU/Linux 12 (bookworm)", "/dev/vda1", "ext4", UUID, UUID, "/boot", True, True,
    ("BOOT_IMAGE=/boot/vmlinuz", "root=UUID=x", "ro", "quiet", "console=ttyS0", "net.ifnames=0"), frozenset(),
)  # fmt: skip


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Debian, on a file system of its own."""
    place = tmp_path / "root"
    write(place, {f"etc/{name}": text for name, text in ETC.items()})
    write(place, {"boot/grub/grub.cfg": MENU, "home/me/.profile": "", "root/.bashrc": "", "proc/cmdline": ""})
    disk = MountPoint(1, 0, "/", "/", "ext4", "/dev/vda1", "rw,relatime", "rw")
    monkeypatch.setattr(mountinfo, "read", lambda: (disk,))
    monkeypatch.setattr(blockdevice, "read", lambda path: BlockDevice(str(path), "part", 1))
    monkeypatch.setattr(blockdevice, "file_system_uuid", lambda _path: UUID)
    monkeypatch.setattr(running, "booted_on_ostree", lambda: False)
    monkeypatch.setattr(mounts, "sync_file_system", lambda _path: None)
    monkeypatch.setattr(signals, "ignore", lambda: None)
    monkeypatch.setattr(existing_host, "_COMMAND_LINE", place / "proc/cmdline")
    monkeypatch.setattr(existing, "_ROOT", place)
    if os.geteuid():
        monkeypatch.setattr(os, "lchown", lambda *_: None)
    yield place
    # As an immutable directory, which no later run could remove.
    subprocess.run(["chattr", "-R", "-f", "-i", place], check=False)


# --- what is refused


def test_a_debian_with_grub_can_be_taken_over(root: Path):
    (root / "proc/cmdline").write_text("root=UUID=x console=ttyS0\n")
    assert existing_host.look(root) == replace(HOST, arguments=("root=UUID=x", "console=ttyS0"))


def mount(target: str, kind: str, options: str = "rw", top: str = "/") -> MountPoint:
    number = {"/": 1}.get(target, 2)
    return MountPoint(number, number - 1, top, target, kind, "/dev/vda1", options, options)


@pytest.mark.parametrize(
    ("found", "inside", "path", "counts"),
    [
        ([mount("/", "ext4"), mount("/boot", "ext2")], False, "", True),
        ([mount("/", "btrfs", top="/@rootfs")], True, "/@rootfs/boot", False),
        ([mount("/", "xfs")], True, "/boot", True),
        ([mount("/", "ext4"), mount("/boot", "btrfs", top="/b")], False, "/b", False),
    ],
)
def test_grub_is_told_where_boot_is(root: Path, monkeypatch, found, inside: bool, path: str, counts: bool):
    monkeypatch.setattr(mountinfo, "read", lambda: tuple(found))
    host = existing_host.look(root)
    assert (host.boot_is_inside, host.boot, host.counts) == (inside, path, counts)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([mount("/", "overlay")], "overlay"),
        ([], "nothing that is mounted"),
        ([mount("/", "ext4", "ro")], "read-only"),
        ([mount("/", "ext4"), mount("/boot", "vfat")], "/boot is vfat"),
    ],
)
def test_other_file_systems_are_refused(root: Path, monkeypatch, found, message: str):
    monkeypatch.setattr(mountinfo, "read", lambda: tuple(found))
    with pytest.raises(Refused, match=message):
        existing_host.look(root)


@pytest.mark.parametrize("kind", ["lvm", "crypt", "raid1"])
def test_what_the_initramfs_may_not_find_is_refused_by_name(root: Path, monkeypatch, kind: str):
    monkeypatch.setattr(blockdevice, "read", lambda path: BlockDevice(str(path), kind, 1))
    with pytest.raises(Refused, match=kind):
        existing_host.look(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "boot/grub/grub.cfg").unlink(), "does not start with GRUB"),
        (lambda root: (root / "boot/grub/grub.cfg").write_text("menuentry x { true }\n"), "does not read"),
        (lambda root: write(root, {"boot/grub/custom.cfg": "menuentry mine { true }\n"}), "custom.cfg"),
        (lambda root: write(root, {"ostree/repo/config": ""}), "/ostree exists already"),
        (lambda root: (root / "boot/loader").mkdir(), "/boot/loader exists already"),
        (lambda root: write(root, {".dockerenv": ""}), "container"),
        (lambda root: write(root, {"run/systemd/container": ""}), "container"),
    ],
)
def test_what_cannot_be_taken_over_is_refused(root: Path, change: Callable[[Path], Any], message: str):
    change(root)
    with pytest.raises(Refused, match=message):
        existing_host.look(root)


def test_what_runs_from_ostree_is_refused(root: Path, monkeypatch):
    monkeypatch.setattr(running, "booted_on_ostree", lambda: True)
    with pytest.raises(Refused, match="already"):
        existing_host.look(root)


def test_too_little_space_is_refused(root: Path):
    with pytest.raises(Refused, match="root file system"):
        existing_host.check_space(root, HOST, Contents(1 << 60, 0))
    with pytest.raises(Refused, match="/boot"):
        existing_host.check_space(root, replace(HOST, boot_is_inside=False), Contents(0, 1 << 60))
    existing_host.check_space(root, HOST, Contents(0, 1 << 60))  # links take no space


# --- what goes along


def carried(**changed: str) -> Carried:
    tree = {name: TREE.get(f"usr/etc/{name}", "") for name in carried_accounts.ALL_FILES}
    return carried_accounts.carry(ETC, tree | changed, lambda path: path == "/bin/bash")


def test_people_are_merged_by_name_and_the_tree_keeps_its_ids():
    texts = carried().texts
    assert texts["passwd"] == (
        TREE["usr/etc/passwd"]
        + "me:x:1000:1000:Me,,,:/home/me:/bin/bash\nold:x:1001:985::/data/old:/bin/bash\n"
    )
    assert texts["group"] == "root:x:0:\nsudo:x:27:me\nusers:x:985:\nadm:x:4:messages\nme:x:1000:old\n"
    assert texts["gshadow"] == "root:*::\nsudo:*::me\nusers:*::\nadm:*::messages\nme:!::old\n"
    assert texts["subuid"] == texts["subgid"] == "me:100000:65536\n"


def test_passwords_are_kept_and_root_has_its_own():
    assert carried().texts["shadow"] == (
        "_sshd:!*:::::::\nme:$y$me:19000:0:99999:7:::\nold:!*:::::::\nroot:$y$root:19000:0:99999:7:::\n"
    )


def test_what_the_tree_lacks_for_people_is_told():
    found = carried()
    assert found.users == ("me", "old")
    assert found.left == (
        ("the shell /bin/zsh of me", "not in the tree: /bin/bash"),
        ("me, old in the group docker", "the tree has no such group"),
    )


def test_ids_of_other_accounts_in_the_tree_are_refused():
    with pytest.raises(Refused) as caught:
        carried(passwd="other:x:1000:1000::/:/bin/sh\n", group="users:x:985:\nother:x:1000:\n")
    assert len(caught.value.details) == 2
    with pytest.raises(Refused, match="primary group of old, users"):
        carried(group="root:x:0:\n")


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("UUID=1 /home ext4", "UUID=1 /var/home ext4 defaults 0 0"),
        ("UUID=1 /home/me/big xfs noatime 0 2", "UUID=1 /var/home/me/big xfs noatime 0 2"),
        ("UUID=1 /usr/local ext4 defaults 0 2", "UUID=1 /var/usrlocal ext4 defaults 0 2"),
        ("UUID=1 /var/lib/mysql ext4 defaults 0 2", "UUID=1 /var/lib/mysql ext4 defaults 0 2"),
        ("UUID=1 /boot ext2 defaults 0 2", "UUID=1 /boot ext2 defaults 0 2"),
        (
            "/dev/sr0 /media/cdrom0 iso9660 user,noauto 0 0",
            "/dev/sr0 /run/media/cdrom0 iso9660 user,noauto 0 0",
        ),
        ("UUID=1 none swap sw 0 0", "UUID=1 none swap sw 0 0"),
        ("/home/me/x /srv/x none bind 0 0", "/var/home/me/x /var/srv/x none bind 0 0"),
    ],
)
def test_mounts_stay_where_the_new_system_has_them(line: str, kept: str):
    assert existing_root.take_mounts(f"# x\n\n{line}\n") == Mounts((kept,), ())


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("UUID=1 /var ext4 defaults 0 2", "/var"),
        ("UUID=1 /usr ext4 defaults 0 2", "/usr"),
        ("UUID=1 /data ext4 defaults 0 2", "/data"),
        ("/swapfile none swap sw 0 0", "/swapfile"),
        ("/data/x /srv/x none bind 0 0", "/srv/x"),
    ],
)
def test_mounts_that_would_stop_the_boot_or_hide_the_tree_are_left(line: str, what: str):
    found = existing_root.take_mounts(f"UUID=0 / ext4 defaults 0 1\n{line}\n")
    assert not found.kept and [name for name, _reason in found.left] == [what]


def test_arguments_of_disks_consoles_and_network_stay():
    kept, dropped = existing_root.kept_arguments(HOST.arguments, ("a", "console=tty0"))
    assert (kept, dropped) == (("console=ttyS0", "net.ifnames=0"), ("quiet",))
    assert existing_root.kept_arguments(("quiet",), ("quiet",)) == ((), ())


def test_file_systems_of_their_own_are_not_shown_twice():
    there = ["home", "root", "usr/local"]
    assert existing_root.shared(there, ()) == {
        "home": "var/home", "root": "var/roothome", "usr/local": "var/usrlocal"
    }  # fmt: skip
    assert existing_root.shared(there, ["/home", "/var/usrlocal"]) == {"root": "var/roothome"}


def test_the_shared_directories_are_mounted_before_what_is_in_them():
    unit = existing_root.shared_unit([("home", "var/home")], ("/var/home/a-b/c d", "/boot"))
    (before,) = (line for line in unit.splitlines() if line.startswith("Before="))
    assert "var-home-a\\x2db-c\\x20d.mount" in before and "boot.mount" not in before
    assert "--bind /sysroot/home /var/home\n" in unit and "-o remount,bind,rw /var/home\n" in unit


@pytest.mark.parametrize("path", ["/var/home/a-b", "/srv/ü x", "/var/a.b/.hidden"])
def test_units_have_the_names_of_systemd(path: str):
    command = ["systemd-escape", "--path", "--suffix=mount", path]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert existing_root.mount_unit(path) == shown.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with a tree of the same kind."""
    repo = make_repo(tmp_path / "repo")
    write_commit(repo, TREE, ref="a/tree", packages=[Package("bash", "5", "amd64")], version="13.1")
    return tmp_path / "repo"


@pytest.fixture
def planned(root: Path, tree: Path, monkeypatch) -> Callable[..., Job]:
    """Plans the takeover."""
    monkeypatch.setattr(existing_planning, "_missing_packages", lambda *_: ("zsh",))

    def run(host: Host = HOST, **options: Any) -> Job:
        source = sources.of_repository(str(tree), "a/tree")
        request = InstallToExistingRoot(repo=str(tree), ref="a/tree", **options)
        return existing_planning.plan(root, host, source, request)

    return run


def test_the_plan_has_what_goes_along_and_what_does_not(planned):
    plan = planned(kernel_arguments=("fx=1",)).plan
    assert plan.arguments == (f"root=UUID={UUID}", "rw", "console=ttyS0", "net.ifnames=0", "fx=1")
    assert {*plan.files} == {
        "hostname", "machine-id", "ssh/ssh_host_ed25519_key", "ssh/sshd_config", "network/interfaces",
        "sudoers.d/me",
    }  # fmt: skip
    assert (plan.users, plan.shared, plan.mounts) == (("me", "old"), ("/home", "/root"), ("/boot/efi",))
    assert (plan.packages, plan.attempts, plan.version) == (("zsh",), 3, "13.1")
    assert [left.what for left in plan.left] == [
        "kernel arguments: quiet", "the configuration of NetworkManager", "the shell /bin/zsh of me",
        "me, old in the group docker", "the home directory /data/old of old",
    ]  # fmt: skip
    assert planned(replace(HOST, counts=False)).plan.attempts == 0


def test_without_a_program_for_the_network_it_is_refused(root: Path, planned):
    write(root, {"etc/systemd/network/a.network": "[Match]\n"})
    planned()  # one of them will do
    (root / "etc/network/interfaces").write_text("iface lo inet loopback\n")
    with pytest.raises(Refused) as caught:
        planned()
    assert any("systemd-networkd" in line for line in caught.value.details)


@pytest.mark.parametrize(("argument", "error"), [("root=x", UsageError), ("a=$b", Refused)])
def test_arguments_that_cannot_be_are_refused(planned, argument: str, error: type[AptOstreeError]):
    with pytest.raises(error):
        planned(kernel_arguments=(argument,))


def test_the_branch_of_a_remote_is_followed_there(tree: Path):
    with (tree / "config").open("a") as config:
        config.write('\n[remote "v"]\nurl=https://example.org/repo\n')
    place = tree / "refs/remotes/v/a"
    place.mkdir(parents=True)
    (place / "tree").write_text((tree / "refs/heads/a/tree").read_text())
    source = sources.of_repository(str(tree), "v:a/tree")
    assert source.origin == Origin(refspec="v:a/tree")
    assert source.remote and source.remote.url == "https://example.org/repo"
    with pytest.raises(UsageError, match="no ref"):
        sources.of_repository(str(tree), "v:none")


# --- how it gets to its place


@pytest.fixture
def sysroot(tmp_path: Path) -> NewSysroot:
    """What `new_sysroot.make` leaves, as far as it matters here."""
    place = tmp_path / "root/.apt-ostree-takeover-1/sysroot"
    deployment = f"ostree/deploy/debian/deploy/{CHECKSUM}.0"
    for name, text in TREE.items():
        write(place / deployment, {name.removeprefix("usr/") if name.startswith("usr/etc/") else name: text})
    write(place / deployment, {"etc/fstab": "# of the tree\n", "etc/hostname": "of-the-tree\n"})
    write(place, {"ostree/repo/config": "", "boot/ostree/debian-1/vmlinuz-6": "kernel"})
    write(place, {"boot/loader.1/entries/ostree-1.conf": "title x\n", "ostree/deploy/debian/var/.x": ""})
    (place / "boot/loader").symlink_to("loader.1")
    return NewSysroot(place, "debian", deployment)


def test_the_new_etc_is_that_of_the_old_machine(root: Path, planned, sysroot: NewSysroot):
    (root / "etc/ssh/ssh_host_ed25519_key").chmod(0o600)
    carrying.furnish(root, HOST, sysroot, planned())
    etc = sysroot.etc
    for name in ("hostname", "machine-id", "ssh/ssh_host_ed25519_key", "sudoers.d/me"):
        assert (etc / name).read_text() == ETC[name]
    assert (etc / "ssh/ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600
    assert "me:x:1000:1000" in (etc / "passwd").read_text()
    assert (etc / "fstab").read_text() == (
        f"# of the tree\nUUID={UUID} / ext4 defaults 0 1\nUUID=AB /boot/efi vfat umask=0077 0 1\n"
    )
    wants = etc / "systemd/system" / f"{existing_root.SHARED_WANTED_BY}.wants" / existing_root.SHARED_UNIT
    assert "/sysroot/home /var/home" in wants.read_text()
    assert (sysroot.var / "roothome").stat().st_mode & 0o777 == 0o700
    assert not (etc / "NetworkManager").exists()


def shown(root: Path) -> dict[str, str]:
    """Return all that is there, without the directory in which the work is done."""
    below = (path for path in root.rglob("*") if not path.relative_to(root).parts[0].startswith(".apt"))
    return {
        str(path.relative_to(root)): str(path.readlink()) if path.is_symlink() else path.read_text()
        for path in below
        if path.is_symlink() or path.is_file()
    }


def test_the_old_system_stays_as_it_is_and_the_menu_shows_both(root: Path, planned, sysroot: NewSysroot):
    before = shown(root)
    existing._put(HOST, sysroot, planned())
    after = shown(root)
    assert before.items() <= after.items()
    menus = {name: after[f"boot/grub/{name}"] for name in ("custom.cfg", "apt-ostree.cfg")}
    for text in menus.values():
        subprocess.run(["grub-script-check"], input=text, text=True, check=True)
    assert after["boot/loader"] == "loader.1" and (root / "boot/loader/entries/ostree-1.conf").exists()
    assert "/boot/loader/entries/ostree-$n.conf" in menus["apt-ostree.cfg"]
    assert "configfile $prefix/grub.cfg" in menus["apt-ostree.cfg"]
    assert grubenv.parse(after["boot/grub/grubenv"]) == {"boot_attempts": "3", "boot_counter": "3"}
    assert (root / sysroot.deployment / "etc/passwd").exists()
    assert not (root / "ostree" / existing_root.UNFINISHED).exists()
    assert grub_files.has_own_menu(root) and grub_files.is_hooked(root)


def test_what_grub_remembers_stays_and_a_tree_without_the_program_is_not_counted(
    root: Path, planned, sysroot: NewSysroot
):
    write(root, {"boot/grub/grubenv": grubenv.format_block({"saved_entry": "x", "boot_counter": "0"})})
    existing._put(HOST, sysroot, replace(planned(), counted=False))
    found = grubenv.parse((root / "boot/grub/grubenv").read_text())
    assert found == {"saved_entry": "x", "boot_attempts": "3"}


POINTS = [
    "existing.repository-placed", "existing.boot-placed", "existing.menu-written", "existing.default-set"
]  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
def test_a_failure_takes_all_of_it_back(root: Path, planned, sysroot: NewSysroot, monkeypatch, point: str):
    before = shown(root)
    monkeypatch.setenv("APT_OSTREE_FAILPOINT", f"{point}=error")
    with pytest.raises(ExternalFailure):
        existing._put(HOST, sysroot, planned())
    assert shown(root) == before


@pytest.mark.parametrize("point", POINTS[:-1])
def test_what_a_killed_takeover_left_is_replaced(
    root: Path, planned, sysroot: NewSysroot, monkeypatch, tmp_path: Path, point: str
):
    def die(name: str) -> None:
        if name == point:
            raise SystemExit

    monkeypatch.setattr(existing, "failpoint", die)
    monkeypatch.setattr(existing, "take", lambda steps: [step.run() for step in steps])  # nothing is undone
    with pytest.raises(SystemExit):
        existing._put(HOST, sysroot, planned())
    assert not grub_files.is_hooked(root)
    existing_host.look(root)
    work = tmp_path / "root/.work"
    work.mkdir()
    existing._remove_unfinished(work)
    assert not any((root / name).exists() for name in ("ostree", "boot/ostree", "boot/loader"))


def test_to_another_file_system_boot_files_are_copied(root: Path, tmp_path: Path, monkeypatch):
    def no_rename(path: Path, target: Path) -> Path:
        if "source" in path.parts:
            raise OSError(18, "Invalid cross-device link")
        os.rename(path, target)
        return target

    write(tmp_path / "source", {"ostree/a/vmlinuz": "kernel"})
    (tmp_path / "source/loader").symlink_to("loader.1")
    monkeypatch.setattr(Path, "rename", no_rename)
    for name in ("ostree", "loader"):
        existing._move(tmp_path / "source" / name, root / "boot" / name)
    assert (root / "boot/ostree/a/vmlinuz").read_text() == "kernel"
    assert (root / "boot/loader").is_symlink()
    assert {path.name for path in (root / "boot").iterdir()} == {"grub", "loader", "ostree"}


def test_a_system_that_has_changed_since_the_plan_is_not_touched(root: Path):
    with pytest.raises(Refused, match="not what it was"):
        existing._require_same(replace(HOST, device="/dev/other"))


# --- the menu


def test_the_menu_of_a_separate_boot_has_no_prefix():
    menu = grub.menu_beside("debian", UUID, "", "Debian")
    assert " /loader/entries/ostree-$n.conf" in menu and f"--set=root {UUID}" in menu
    assert 'set e_linux="$1"' in menu


# --- the command line


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[InstallToExistingRoot, bool]]:
    found: list[tuple[InstallToExistingRoot, bool]] = []

    def call(request, *_args, ask, **_options):
        found.append((request, ask))
        result = {"changed": True, "ref": "a/tree", "commit": CHECKSUM, "hook": "/boot/grub/custom.cfg"}
        return client.Answer(result, next_boot=False)

    monkeypatch.setattr(client, "call", call)
    return found


def test_all_options_are_in_the_request_and_a_reboot_is_told(sent, capsys):
    words = ["--repo=r", "--ref=a/tree", "--karg=a", "--boot-attempts=5", "-y"]
    assert main.run(["install-to-existing-root", *words]) == 0
    request = InstallToExistingRoot(repo="r", ref="a/tree", kernel_arguments=("a",), boot_attempts=5)
    assert sent == [(request, False)]
    assert "systemctl reboot" in capsys.readouterr().out


def test_a_dry_run_needs_no_answer(sent):
    assert main.run(["install-to-existing-root", "--repo=r", "--ref=x", "-n", "--json"]) == 0
    assert sent == [(InstallToExistingRoot(repo="r", ref="x", dry_run=True), False)]


@pytest.mark.parametrize("words", [[], ["--repo=r", "-y"], ["--ref=x", "-y"], ["--repo=r", "--ref=x"]])
def test_mistakes_are_not_sent_and_nothing_is_done_unasked(sent, words):
    assert main.run(["install-to-existing-root", *words]) == 2
    assert sent == []


def test_the_plan_is_shown():
    plan = TakeoverPlan(
        "Debian 12", "/dev/vda1", "ext4", CHECKSUM, "13.1", "/srv/repo", "v:x", "https://example.org",
        ("root=UUID=x", "rw"), 3, ("hostname",), ("me",), ("/home",), ("/boot",), (Left("a", "b"),), ("zsh",),
    )  # fmt: skip
    lines = list(plans.lines("install-to-existing-root", plan.to_json()))
    assert lines[0] == "Commit cccccccccccc (13.1) of /srv/repo, beside Debian 12"
    assert "  a (b)" in lines and "1 package of this system not in the tree:" in lines
    assert "After 3 boots that fail, the menu starts the old system" in lines
    bare = replace(plan, users=(), shared=(), packages=(), attempts=0, version="", url="")
    assert "Directories that both systems show: none" in list(
        plans.lines("install-to-existing-root", bare.to_json())
    )
