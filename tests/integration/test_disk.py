"""Disk images of a small made-up tree, read with the tools of file systems; nothing is booted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures import image_tree

from apt_ostree.model import bootloader, grubenv, layout
from apt_ostree.system import mounts
from apt_ostree.system.ostree import commit
from apt_ostree.system.ostree.repo import text

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SOURCE = Path(__file__).resolve().parents[2] / "src"
EPOCH = 1763900000
REF = "test/tree"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKc4 me@example.org\n"
KERNEL = ("--console=tty0", "--console=ttyS0", "--karg=a=b", "--karg=a=c")
#: xattr of `setcap cap_net_raw=ep`, see capabilities(7).
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
PASSWD = "root:x:0:0:root:/root:/bin/bash\n"
FILES = {
    "usr/lib/os-release": 'ID=debian\nPRETTY_NAME="Test GNU/Linux 13 (made up)"\n',
    "usr/lib/modules/6.1/vmlinuz": "kernel" * 10000,
    "usr/lib/modules/6.1/initramfs.img": "initramfs" * 10000,
    "usr/bin/ping": "ping",
    "usr/sbin/sfdisk": "",
    "usr/sbin/sshd": "",
    "usr/etc/passwd": PASSWD,
    "usr/etc/shadow": "root:*:20000:0:99999:7:::\n",
    "usr/etc/group": "root:x:0:\nsudo:x:27:\n",
    "usr/etc/gshadow": "root:*::\nsudo:*::\n",
    "usr/etc/skel/.profile": "umask 022\n",
    "usr/etc/sudoers.d/README": "",
    "usr/etc/fstab": "# nothing\n",
}


def write_tree(repo: Path, place: Path, *, without: str = "", **changed: str) -> None:
    """Commit the tree, without the files that begin so, and with others."""
    files = FILES | {name.replace("__", "/"): content for name, content in changed.items()}
    for path, content in files.items():
        if without and path.startswith(without):
            continue
        file = place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    os.setxattr(place / "usr/bin/ping", "security.capability", CAPABILITY)
    for name in layout.TOP_DIRECTORIES:
        (place / name).mkdir()
    for name, target in layout.TOP_LINKS.items():
        (place / name).symlink_to(target)
    metadata = {layout.META_KERNEL_ARGUMENTS: commit.texts(["rw", "quiet"]), "version": text("13.1")}
    commit.commit_directory(repo, place, REF, subject="x", timestamp=EPOCH, metadata=metadata)


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "apt_ostree", "compose", "disk", *map(str, words)]


def of_commit(output: Path, repo: Path, *words: object) -> list[object]:
    return [f"--repo={repo}", f"--ref={REF}", "-o", output, *words]


def make(*words: object, failpoint: str = "", code: int = 0, **options):
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "APT_OSTREE_FAILPOINT": failpoint}
    done = subprocess.run(command(*words), env=env, capture_output=True, text=True, check=False, **options)
    assert done.returncode == code, done.stderr
    return done


def compose(output: Path, repo: Path, *words: object, **options):
    return make(*of_commit(output, repo, *words), **options)


@pytest.fixture(scope="module")
def repo(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("disk")
    write_tree(base / "repo", base / "tree")
    return base / "repo"


@pytest.fixture(scope="module")
def image(repo: Path) -> Image:
    """An image with all that a machine can be given."""
    output = repo.parent / "full.raw"
    (repo.parent / "key.pub").write_text(KEY)
    options = ("--hostname=web1.example.org", "--user=me", f"--ssh-key={repo.parent}/key.pub")
    done = compose(output, repo, *options, *KERNEL, "--size=2G", "--json")
    return Image(output, json.loads(done.stdout))


class Image:
    """A raw image: its partitions and the files of its file systems, without a mount."""

    def __init__(self, path: Path, result: dict) -> None:
        self.path, self.result = path, result
        shown = subprocess.run(["sfdisk", "--json", path], capture_output=True, text=True, check=True)
        self.table = json.loads(shown.stdout)["partitiontable"]
        self.parts = {part["name"]: part for part in self.table["partitions"]}

    def start(self, part: str) -> int:
        return self.parts[part]["start"] * 512

    def debugfs(self, part: str, what: str) -> str:
        name = f"{self.path}?offset={self.start(part)}"
        done = subprocess.run(["debugfs", "-R", what, name], capture_output=True, check=True)
        said = done.stderr.decode().splitlines()[1:]
        assert not said, said
        return done.stdout.decode()

    def read(self, part: str, path: str) -> str:
        return self.debugfs(part, f'cat "{path}"')

    def names(self, part: str, path: str) -> set[str]:
        rows = (row.split("/") for row in self.debugfs(part, f'ls -p "{path}"').split("\n") if row)
        return {row[5] for row in rows} - {".", "..", "lost+found"}

    def stat(self, path: str) -> dict[str, int]:
        shown = self.debugfs("root", f'stat "{path}"')
        row = re.search(r"Mode: +(\d+) +Flags: (0x[0-9a-f]+)\n.*\nUser: +(\d+) +Group: +(\d+)", shown)
        return {"mode": int(row[1], 8), "flags": int(row[2], 16), "uid": int(row[3]), "gid": int(row[4])}

    @property
    def deployment(self) -> str:
        (name,) = (n for n in self.names("root", "/ostree/deploy/debian/deploy") if n.endswith(".0"))
        return f"/ostree/deploy/debian/deploy/{name}"


@pytest.fixture(scope="module")
def container_image(tmp_path_factory) -> Path:
    """A container image of that tree, which has a package."""
    base = tmp_path_factory.mktemp("container")
    status = "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n"
    write_tree(base / "repo", base / "tree", **{"usr/lib/sysimage/dpkg/status": status})
    words = ["compose", "image", f"--repo={base}/repo", f"--ref={REF}", "-o", base / "image"]
    subprocess.run(
        [sys.executable, "-m", "apt_ostree", *words],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        check=True,
        capture_output=True,
    )
    return base / "image"


# --- the image


def test_a_container_image_gives_its_commit_and_is_followed(container_image: Path, tmp_path: Path):
    target = "ostree-image-signed:docker://registry.example.org/os:13"
    output = tmp_path / "disk.raw"
    named = f"ostree-unverified-image:oci:{container_image}"
    options = (f"--image={named}", f"--target-image={target}", "--json")
    result = json.loads(make("-o", output, *options).stdout)
    assert (result["ref"], result["commit"]) == (target, commit.head(container_image.parent / "repo", REF))
    image = Image(output, result)
    origin = image.read("root", f"{image.deployment}.origin")
    source = image_tree.Image(container_image)
    assert f"container-image-reference={target}\n" in origin
    assert f"container-image-reference-digest={source.digest}\n" in origin
    # Its layers are there for the first upgrade, which fetches only those that are new.
    repo, refs = "/ostree/repo", "refs/heads/apt-ostree/image"
    assert image.names("root", f"{repo}/{refs}/manifest") - {".", ".."} == {source.digest[7:]}
    for diff_id in source.config["rootfs"]["diff_ids"]:
        layer = image.read("root", f"{repo}/{refs}/layer/{diff_id[7:]}").strip()
        assert f"{layer[2:]}.commit" in image.names("root", f"{repo}/objects/{layer[:2]}")
    assert not list(tmp_path.glob(".apt-ostree-*"))
    said = make("-o", tmp_path / "other.raw", f"--image=ostree-image-signed:oci:{container_image}", code=3)
    assert "nothing would be verified" in said.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["disk.raw"]


def test_the_result_tells_what_was_made(image: Image, repo: Path):
    head = commit.head(repo, REF)
    assert {key: image.result[key] for key in ("ref", "commit", "format", "changed")} == {
        "ref": REF, "commit": head, "format": "raw", "changed": True
    }  # fmt: skip
    assert image.path.stat().st_size == image.result["size"] == -(-2 * 10**9 // 2**20) * 2**20
    assert image.result["bytes"] == image.path.stat().st_blocks * 512


def test_the_partitions_are_what_firmware_and_systemd_look_for(image: Image):
    kinds = [(part["name"], part["type"].lower()) for part in image.table["partitions"]]
    assert image.table["label"] == "gpt"
    assert kinds == [
        ("bios", "21686148-6449-6e6f-744e-656564454649"),
        ("esp", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
        ("boot", "bc13c2ff-59e6-4262-a352-b275fd6f7172"),
        ("root", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
    ]
    subprocess.run(["sfdisk", "--verify", image.path], check=True, capture_output=True)


@pytest.mark.parametrize("part", ["boot", "root"])
def test_the_file_systems_are_sound(image: Image, part: str):
    name = f"{image.path}?offset={image.start(part)}"
    done = subprocess.run(["e2fsck", "-f", "-n", name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_uefi_finds_grub(image: Image, tmp_path: Path):
    place = f"{image.path}@@{image.start('esp')}"
    subprocess.run(["mcopy", "-i", place, "::/EFI/BOOT/BOOTX64.EFI", tmp_path / "efi"], check=True)
    data = (tmp_path / "efi").read_bytes()
    assert data[:2] == b"MZ"
    assert uuid_of(image, "boot").encode() in data  # its script looks for /boot
    assert shown_by_minfo(place)["Sector size"] == "512"


def shown_by_minfo(place: str) -> dict[str, str]:
    shown = subprocess.run(["minfo", "-i", place, "::"], capture_output=True, text=True, check=True).stdout
    rows = (line.partition(":") for line in shown.splitlines())
    found = {name.strip(): value.strip() for name, _, value in rows}
    return found | {"Sector size": found.get("sector size", "").split()[0]}


def test_a_bios_finds_grub(image: Image):
    with image.path.open("rb") as disk:
        sector = disk.read(512)
        start = int.from_bytes(sector[0x5C:0x64], "little")
        disk.seek(start * 512)
        core = disk.read(image.parts["bios"]["size"] * 512)
    assert sector[510:] == b"\x55\xaa"
    assert start == image.parts["bios"]["start"]
    assert int.from_bytes(core[0x1F4:0x1FC], "little") == start + 1
    assert b"GRUB" in sector


def test_the_menu_has_the_entries_of_libostree(image: Image):
    menu = image.read("boot", "/grub/grub.cfg")
    subprocess.run(["grub-script-check"], input=menu, text=True, check=True)
    assert "serial --unit=0" in menu
    assert grubenv.parse(image.read("boot", "/grub/grubenv")) == {"boot_attempts": "3"}
    for platform in ("x86_64-efi", "i386-pc"):
        assert image.names("boot", f"/grub/{platform}") == {"linux.mod"}
    (name,) = image.names("boot", "/loader/entries")
    assert re.fullmatch(r"ostree-1(-debian)?\.conf", name)
    entry = image.read("boot", f"/loader/entries/{name}")
    subprocess.run(["grub-script-check"], input=entry, text=True, check=True)
    fields = dict(line.split(" ", 1) for line in entry.splitlines())
    root = f"root=UUID={uuid_of(image, 'root')}"
    assert fields["options"].split()[:-1] == [
        root, "rw", "quiet", "console=tty0", "console=ttyS0", "a=b", "a=c"
    ]  # fmt: skip
    assert "(made up) 13.1" in fields["title"]
    assert image.read("boot", fields["linux"]) == FILES["usr/lib/modules/6.1/vmlinuz"]
    assert image.read("boot", fields["initrd"]) == FILES["usr/lib/modules/6.1/initramfs.img"]
    link = fields["options"].split()[-1].removeprefix("ostree=")
    assert image.stat(f"{link}/usr")["mode"] == 0o755
    assert "efi" in image.names("boot", "/")
    assert image.names("root", "/boot") == set()


def run_grub(disk: Path, menu: str, directory: Path) -> dict[str, str]:
    """Have GRUB itself read the menu, with the disk as its first one; return what the first entry would get.

    The entry is printed in the place of being offered.
    """
    directory.mkdir(exist_ok=True)
    begin = menu.index("menuentry ")
    end = menu.index("        }\n", begin) + len("        }\n")
    names = ("e_title", "e_linux", "e_initrd", "e_options", "note", "default")
    shown = "".join(f'echo "<{name}=${name}>"\n' for name in names)
    kept = [
        row
        for row in (menu[:begin] + shown + menu[end:]).splitlines()
        if not row.startswith(("serial", "term"))
    ]
    boot = "set root=(hd0,gpt3)\nset prefix=(hd0,gpt3)/grub\n"
    (directory / "grub.cfg").write_text(boot + "\n".join(kept) + "\nexit\n")
    (directory / "device.map").write_text(f"(hd0) {disk}\n")
    grub = f"stty cols 5000; exec grub-emu -m {directory}/device.map -d {directory} -r host"
    done = subprocess.run(  # it wants a terminal
        ["script", "--quiet", "--command", grub, "/dev/null"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]", "", done.stdout.decode(errors="replace"))
    return dict(pair.split("=", 1) for pair in re.findall(r"<([a-z_]+=[^<>]*)>", text))


def test_grub_reads_the_entry_and_counts_the_attempts(image: Image, tmp_path: Path):
    disk = tmp_path / "disk.raw"
    subprocess.run(["cp", "--sparse=always", image.path, disk], check=True)
    menu = image.read("boot", "/grub/grub.cfg")

    found = run_grub(disk, menu, tmp_path)

    (name,) = image.names("boot", "/loader/entries")
    entry = dict(line.split(" ", 1) for line in image.read("boot", f"/loader/entries/{name}").splitlines())
    assert found["e_title"] == entry["title"]
    assert (found["e_linux"], found["e_initrd"].strip()) == (entry["linux"], entry["initrd"])
    assert found["e_options"] == entry["options"]
    assert (found["note"], found["default"]) == ("", "0")

    (tmp_path / "block").write_text(grubenv.format_block({"boot_attempts": "2", "boot_counter": "2"}))
    script = f"rm /grub/grubenv\nwrite {tmp_path}/block /grub/grubenv\n"
    boot = f"{disk}?offset={image.start('boot')}"
    subprocess.run(
        ["debugfs", "-w", "-f", "-", boot], input=script, text=True, capture_output=True, check=True
    )
    told = []
    for _ in range(4):
        found = run_grub(disk, menu, tmp_path)
        left = grubenv.parse(Image(disk, {}).read("boot", "/grub/grubenv"))["boot_counter"]
        told.append((found["note"], found["default"], left))
    assert told == [
        ("apt-ostree.boot=counted", "0", "1"),
        ("apt-ostree.boot=counted", "0", "0"),
        *2 * [("apt-ostree.boot=gave-up", "1", "0")],
    ]


def test_grub_finds_the_files_of_an_entry_where_linux_is_a_command(image: Image, tmp_path: Path):
    """As in Debian's signed GRUB: no function of that name is called, and the command fails."""
    menu = image.read("boot", "/grub/grub.cfg")
    built_in = "".join(
        row
        for row in menu.splitlines(keepends=True)
        if not row.startswith(("function linux", "function initrd"))
    )

    found, other = (run_grub(image.path, text, tmp_path / str(n)) for n, text in enumerate((built_in, menu)))

    assert found["e_linux"].startswith("/ostree/debian-")
    assert {name: value.strip() for name, value in found.items()} == {
        name: value.strip() for name, value in other.items()
    }


def uuid_of(image: Image, part: str) -> str:
    name = f"{image.path}?offset={image.start(part)}"
    shown = subprocess.run(["dumpe2fs", "-h", name], capture_output=True, text=True, check=True).stdout
    return re.search(r"^Filesystem UUID: +(\S+)$", shown, re.MULTILINE)[1]


def test_the_machine_has_its_name_and_mounts(image: Image):
    etc = f"{image.deployment}/etc"
    assert image.read("root", f"{etc}/hostname") == "web1.example.org\n"
    assert "127.0.1.1\tweb1.example.org web1\n" in image.read("root", f"{etc}/hosts")
    rows = [row.split() for row in image.read("root", f"{etc}/fstab").splitlines()]
    assert rows[0] == ["#", "nothing"]
    assert [row[:2] for row in rows[1:3]] == [
        [f"UUID={uuid_of(image, 'root')}", "/"], [f"UUID={uuid_of(image, 'boot')}", "/boot"]
    ]  # fmt: skip
    assert rows[3][1:3] == ["/boot/efi", "vfat"]


def test_the_root_is_to_grow(image: Image):
    units = f"{image.deployment}/etc/systemd/system"
    assert "sfdisk" in image.read("root", f"{units}/grow-root-partition.service")
    assert image.names("root", f"{units}/local-fs.target.wants") == {"grow-root-partition.service"}
    assert "x-systemd.growfs" in image.read("root", f"{image.deployment}/etc/fstab")


def test_the_user_can_log_in_and_administrate(image: Image):
    etc, home = f"{image.deployment}/etc", "/ostree/deploy/debian/var/home/me"
    assert image.read("root", f"{etc}/passwd") == f"{PASSWD}me:x:1000:1000::/home/me:/bin/bash\n"
    assert re.search(r"^me:!:\d+:", image.read("root", f"{etc}/shadow"), re.MULTILINE)  # no password
    assert "sudo:x:27:me\n" in image.read("root", f"{etc}/group")
    assert image.read("root", f"{etc}/sudoers.d/90-apt-ostree") == "me ALL=(ALL) NOPASSWD: ALL\n"
    assert image.stat(f"{etc}/sudoers.d/90-apt-ostree")["mode"] == 0o440
    assert image.read("root", f"{home}/.ssh/authorized_keys") == KEY
    assert image.read("root", f"{home}/.profile") == FILES["usr/etc/skel/.profile"]
    for path, mode in (("", 0o700), ("/.ssh", 0o700), ("/.ssh/authorized_keys", 0o600)):
        found = image.stat(home + path)
        assert (found["mode"], found["uid"], found["gid"]) == (mode, 1000, 1000)
    assert image.stat(f"{etc}/shadow")["mode"] == 0o644  # as in this tree


def test_the_tree_is_whole_and_its_root_immutable(image: Image):
    assert image.stat(image.deployment)["flags"] & 0x10
    assert not image.stat(f"{image.deployment}/usr")["flags"] & 0x10
    shown = image.debugfs("root", f'ea_get -x "{image.deployment}/usr/bin/ping" security.capability')
    assert bytes.fromhex(shown.partition("=")[2].replace(" ", "").strip()) == CAPABILITY
    config = image.read("root", "/ostree/repo/config")
    assert "bootloader=none" in config and "readonly=true" in config
    origin = image.read("root", f"{image.deployment.removesuffix('.0')}.0.origin")
    assert f"refspec={REF}\n" in origin
    assert image.read("root", f"/ostree/repo/refs/heads/{REF}").strip() == image.result["commit"]


# --- the same again


LOADERS = {
    "usr/lib/shim/shimx64.efi.signed": "shim",
    "usr/lib/shim/mmx64.efi.signed": "mok manager",
    "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed": "signed grub",
}


def on_esp(image: Image, path: str) -> str:
    place = f"{image.path}@@{image.start('esp')}"
    return subprocess.run(
        ["mtype", "-i", place, f"::/{path}"], capture_output=True, text=True, check=True
    ).stdout


def test_debians_signed_loaders_are_on_the_disk_if_the_tree_has_them(tmp_path: Path):
    write_tree(tmp_path / "repo", tmp_path / "tree", **LOADERS)
    done = compose(tmp_path / "x.raw", tmp_path / "repo", "--json")
    image = Image(tmp_path / "x.raw", json.loads(done.stdout))
    assert image.result["secure-boot"]
    names = ("BOOTX64.EFI", "mmx64.efi", "grubx64.efi")
    assert [on_esp(image, f"EFI/BOOT/{name}") for name in names] == list(LOADERS.values())
    assert uuid_of(image, "boot") in on_esp(image, "EFI/debian/grub.cfg")
    record = bootloader.read_record(on_esp(image, bootloader.RECORD))
    assert set(record) == {f"EFI/BOOT/{name}" for name in names}
    compose(tmp_path / "again.raw", tmp_path / "repo")
    subprocess.run(["cmp", image.path, tmp_path / "again.raw"], check=True)


def test_half_of_the_signed_loaders_is_no_use_and_told(image: Image, tmp_path: Path):
    shim = {path: text for path, text in LOADERS.items() if "shim" in path}
    write_tree(tmp_path / "repo", tmp_path / "tree", **shim)
    assert "grub-efi-amd64-signed" in compose(tmp_path / "x.raw", tmp_path / "repo").stderr
    assert not image.result["secure-boot"]


def test_the_same_input_gives_the_same_bytes(image: Image, repo: Path, tmp_path: Path):
    options = ("--hostname=web1.example.org", "--user=me", f"--ssh-key={repo.parent}/key.pub")
    os.utime(repo / "config")
    compose(tmp_path / "again.raw", repo, *options, *KERNEL, "--size=2G")
    subprocess.run(["cmp", image.path, tmp_path / "again.raw"], check=True)


def test_another_machine_has_other_identifiers(image: Image, repo: Path, tmp_path: Path):
    compose(tmp_path / "other.raw", repo, "--hostname=web2", "--size=2G", "--boot-attempts=0")
    other = Image(tmp_path / "other.raw", {})
    assert grubenv.parse(other.read("boot", "/grub/grubenv")) == {"boot_attempts": "0"}
    assert other.table["id"] != image.table["id"]
    assert uuid_of(other, "root") != uuid_of(image, "root")
    assert other.names("root", "/ostree/deploy/debian/var") & {"home", "roothome"} == set()


def test_qcow2_has_the_same_disk_and_is_reproducible(repo: Path, tmp_path: Path):
    for name in ("a.qcow2", "b.qcow2", "c.raw"):
        compose(tmp_path / name, repo)
    info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", tmp_path / "a.qcow2"]))
    assert info["format"] == "qcow2"
    assert info["format-specific"]["data"]["compression-type"] == "zstd"
    subprocess.run(["qemu-img", "compare", "-q", tmp_path / "a.qcow2", tmp_path / "c.raw"], check=True)
    subprocess.run(["cmp", tmp_path / "a.qcow2", tmp_path / "b.qcow2"], check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.qcow2", "b.qcow2", "c.raw"]


@pytest.mark.parametrize("name", ["disk.raw", "disk.qcow2"])
def test_a_disk_is_made_twice_to_verify_it(repo: Path, tmp_path: Path, name: str):
    options = ("--hostname=web1", "--user=me", "--verify-reproducible", "--json")
    result = json.loads(compose(tmp_path / name, repo, *options).stdout)
    digest = subprocess.check_output(["sha256sum", tmp_path / name], text=True).split()[0]
    assert result["verified"] == digest
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_key_without_a_user_is_roots(repo: Path, tmp_path: Path):
    (tmp_path / "key.pub").write_text(KEY)
    compose(tmp_path / "x.raw", repo, f"--ssh-key={tmp_path}/key.pub")
    image = Image(tmp_path / "x.raw", {})
    home = "/ostree/deploy/debian/var/roothome"
    assert image.read("root", f"{home}/.ssh/authorized_keys") == KEY
    assert image.stat(home)["mode"] == 0o700
    assert image.read("root", f"{image.deployment}/etc/passwd") == PASSWD


def test_an_archive_repository_gives_the_same_disk(repo: Path, tmp_path: Path):
    subprocess.run(["ostree", "init", f"--repo={tmp_path}/archive", "--mode=archive"], check=True)
    subprocess.run(["ostree", "pull-local", f"--repo={tmp_path}/archive", repo, REF], check=True)
    compose(tmp_path / "a.raw", repo)
    compose(tmp_path / "b.raw", tmp_path / "archive")
    subprocess.run(["cmp", tmp_path / "a.raw", tmp_path / "b.raw"], check=True)


# --- what is refused


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize(
    ("without", "changed", "code", "message"),
    [
        ("usr/lib/modules", {}, 3, "no kernel"),
        ("", {"usr__etc__fstab": "x /boot ext4\n"}, 2, "/etc/fstab mounts /boot"),
        ("", {"usr__lib__os-release": 'PRETTY_NAME="Debian $5"\n'}, 3, "title"),
    ],
)
def test_a_tree_that_cannot_boot_so_is_refused(tmp_path: Path, without, changed, code, message):
    write_tree(tmp_path / "repo", tmp_path / "tree", without=without, **changed)
    (tmp_path / "out").mkdir()
    assert message in compose(tmp_path / "out/x.raw", tmp_path / "repo", code=code).stderr
    assert names(tmp_path / "out") == set()


@pytest.mark.parametrize(
    ("option", "code"),
    [
        ("--karg=x=$y", 3),
        ("--karg=root=/dev/sda", 2),
        ("--size=500M", 3),
        ("--user=root", 3),
        ("--hostname=a b", 2),
        ("--ssh-key=/dev/null", 2),
        ("--ref=none", 2),
        ("--repo=/nonexistent/repo", 2),
    ],
)
def test_what_cannot_be_is_refused(repo: Path, tmp_path: Path, option: str, code: int):
    compose(tmp_path / "x.raw", repo, option, code=code)
    assert names(tmp_path) == set()


def test_a_file_that_exists_is_kept_unless_forced(repo: Path, tmp_path: Path):
    output = tmp_path / "x.raw"
    output.write_text("precious")
    compose(output, repo, code=3)
    compose(output, repo, "--force", "--size=500M", code=3)
    compose(output, repo, "--force", failpoint="disk.boot-written=error", code=1)
    assert output.read_text() == "precious"
    compose(output, repo, "--force")
    assert Image(output, {}).deployment
    (tmp_path / "directory").mkdir()
    compose(tmp_path / "directory", repo, "--force", code=2)
    assert names(tmp_path) == {"x.raw", "directory"}


def test_missing_programs_are_named_with_their_packages(repo: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    hidden = ["mount --bind /dev/null /usr/bin/mformat", "mount -t tmpfs none /usr/lib/grub/i386-pc"]
    script = "; ".join(["set -e", *hidden, 'exec "$@"'])
    words = command(*of_commit(tmp_path / "out/x.raw", repo))
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    inside = ["unshare", "--mount", "sh", "-c", script, "sh", *words]
    done = subprocess.run(inside, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "grub-pc-bin mtools" in done.stderr
    assert names(tmp_path / "out") == set()


def test_too_little_space_is_told_before_any_work(repo: Path, disk: Path):
    small = disk / "small"
    small.mkdir()
    mounts.mount("none", small, "tmpfs", data="size=50m")
    assert "too little space" in compose(small / "x.raw", repo, code=3).stderr
    assert names(small) == set()


# --- what is interrupted


@pytest.mark.parametrize("name", ["disk.deployed", "disk.furnished", "disk.boot-written", "disk.written"])
def test_a_failure_leaves_nothing_and_the_next_run_removes_what_a_killed_one_left(
    repo: Path, tmp_path: Path, name: str
):
    output = tmp_path / "x.raw"
    compose(output, repo, failpoint=f"{name}=error", code=1)
    assert names(tmp_path) == set()
    compose(output, repo, failpoint=f"{name}=kill", code=1)
    assert len(names(tmp_path)) == 1 and not output.exists()
    compose(output, repo)
    assert names(tmp_path) == {"x.raw"}


def wait_for_work(directory: Path) -> Iterator[None]:
    end = time.monotonic() + 60
    while not list(directory.glob(".apt-ostree-disk-*/disk.raw")):
        assert time.monotonic() < end
        yield time.sleep(0.01)


def test_a_cancel_leaves_nothing(repo: Path, tmp_path: Path):
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    process = subprocess.Popen(
        command(*of_commit(tmp_path / "x.raw", repo)), env=env, stderr=subprocess.DEVNULL
    )
    for _ in wait_for_work(tmp_path):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert names(tmp_path) == set()
