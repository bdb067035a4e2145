"""A made-up Debian on a loop device is taken over from inside, in a chroot; GRUB reads the menus it gets."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.test_disk import REF, SOURCE, write_tree
from tests.integration.test_install_to_disk import looped

from apt_ostree.model import grubenv
from apt_ostree.system.ostree import commit

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

UUID = "5a9f1a37-0a34-4d6c-8e3f-7b2f2f8c1d10"
BOOT_UUID = "5a9f1a37-0a34-4d6c-8e3f-7b2f2f8c1d11"
#: With the end that grub-mkconfig writes (41_custom).
MENU = """\
set timeout=0
menuentry 'Debian' { echo "<old=$before_ostree>"; halt; }
if [ -f  ${config_directory}/custom.cfg ]; then
  source ${config_directory}/custom.cfg
elif [ -z "${config_directory}" -a -f  $prefix/custom.cfg ]; then
  source $prefix/custom.cfg
fi
"""
FILES = {
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (made up)"\n',
    "etc/hostname": "old1\n",
    "etc/machine-id": "8f14e45fceea167a5a36dedd4bea2543\n",
    "etc/ssh/ssh_host_ed25519_key": "secret\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nme:x:1000:1000::/home/me:/bin/bash\n",
    "etc/group": "root:x:0:\nsudo:x:27:me\nme:x:1000:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\nme:$y$me:19000:0:99999:7:::\n",
    "etc/gshadow": "root:*::\nsudo:*::me\nme:!::\n",
    "etc/fstab": f"UUID={UUID} / ext4 errors=remount-ro 0 1\n",
    "home/me/letter": "dear reader\n",
    "boot/grub/grub.cfg": MENU,
    "var/lib/dpkg/status": (
        "Package: old-package\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n"
        "Maintainer: x <x@example.org>\nDescription: x\n"
    ),
}
#: $1: the root; $2: the product. All mounts end with the namespace.
ENTER = """
cd "$1"
for name in usr dev proc sys; do mount --rbind "/$name" "$name"; done
mount -t tmpfs none run
mount --bind "$2" srv/src
shift 2
exec chroot . "$@"
"""


class Stock:
    """The made-up Debian. root: where it is mounted."""

    def __init__(self, place: Path, devices: dict[str, str]) -> None:
        self.root, self.devices = place, devices

    def mount(self) -> None:
        for where, device in self.devices.items():
            (self.root / where).mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", device, self.root / where], check=True)

    def umount(self) -> None:
        for where in reversed(self.devices):
            subprocess.run(["umount", self.root / where], check=True)

    def run(self, *words: str, failpoint: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": "/srv/src", "PYTHONDONTWRITEBYTECODE": "1"}
        env["APT_OSTREE_FAILPOINT"] = failpoint
        command = [
            "unshare",
            "--mount",
            "--propagation=private",
            "sh",
            "-euc",
            ENTER,
            "sh",
            self.root,
            SOURCE,
        ]
        command += ["/usr/bin/python3", "-m", "apt_ostree", "install-to-existing-root"]
        command += ["--repo=/srv/repo", f"--ref={REF}", *words]
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    @property
    def deployment(self) -> Path:
        (found,) = (path for path in (self.root / "ostree/deploy/debian/deploy").glob("*.0"))
        return found

    def shown(self) -> dict[str, str]:
        """Return what is there, without the repository that is the source."""
        parts = ("etc", "home", "boot", "ostree", "var")
        found = (path for part in parts for path in sorted((self.root / part).rglob("*")))
        files = {str(path): path.read_bytes().hex() for path in found if path.is_file()}
        hidden = sorted(path.name for path in self.root.glob(".*"))
        return files | {"hidden": str(hidden)}


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("existing")
    write_tree(base / "repo", base / "tree", usr__bin__bash="", **{"usr__bin__apt-ostree": ""})
    return base / "repo"


@pytest.fixture(params=["inside", "separate"])
def stock(request: pytest.FixtureRequest, tmp_path: Path, repo: Path) -> Iterator[Stock]:
    """With /boot on the root file system, and on one of its own."""
    files = {"": (tmp_path / "disk", UUID)}
    if request.param == "separate":
        files["boot"] = (tmp_path / "boot-disk", BOOT_UUID)
    for file, uuid in files.values():
        with file.open("wb") as new:
            new.truncate(2 << 30)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-U", uuid, file], check=True)
    with looped(files[""][0]) as one, looped(files.get("boot", files[""])[0]) as two:
        devices = {"": one} | ({"boot": two} if "boot" in files else {})
        found = Stock(tmp_path / "root", devices)
        found.mount()
        try:
            fill(found.root, repo)
            yield found
        finally:
            if found.root.is_mount():
                subprocess.run(["chattr", "-R", "-i", found.root / "ostree/deploy"], check=False)
                found.umount()


def fill(root: Path, repo: Path) -> None:
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name in (
        "usr",
        "dev",
        "proc",
        "sys",
        "run",
        "srv/src",
        "tmp",
        "root",
        "var/lib/dpkg/info",
        "var/lib/dpkg/updates",
    ):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    subprocess.run(["cp", "-a", repo, root / "srv/repo"], check=True)


def test_it_is_taken_over_beside_the_old_system(stock: Stock, repo: Path):
    before = stock.shown()
    result = json.loads(stock.run("--json", "-y").stdout)
    head = commit.head(repo, REF)
    assert (result["ref"], result["commit"]) == (REF, head)
    after = stock.shown()
    assert {path: after[path] for path in before} == before
    etc = stock.deployment / "etc"
    for name in ("hostname", "machine-id", "ssh/ssh_host_ed25519_key"):
        assert (etc / name).read_text() == FILES[f"etc/{name}"]
    assert "me:x:1000:1000::/home/me:/bin/bash\n" in (etc / "passwd").read_text()
    assert "sudo:x:27:me\n" in (etc / "group").read_text()
    assert "me:$y$me:" in (etc / "shadow").read_text()
    assert f"UUID={UUID} / ext4" in (etc / "fstab").read_text()
    assert (
        "i"
        in subprocess.run(
            ["lsattr", "-d", stock.deployment], capture_output=True, text=True, check=True
        ).stdout.split()[0]
    )
    subprocess.run(["ostree", "fsck", "--quiet", f"--repo={stock.root}/ostree/repo"], check=True)
    status = subprocess.run(
        ["ostree", "admin", "status", f"--sysroot={stock.root}"], capture_output=True, text=True, check=True
    )
    assert head[:12] in status.stdout
    # It is no system to take over any more.
    assert "/ostree exists already" in stock.run("-y", code=3).stderr


def test_a_dry_run_shows_the_plan_and_touches_nothing(stock: Stock):
    before = stock.shown()
    plan = json.loads(stock.run("--json", "--dry-run").stdout)["plan"]
    assert stock.shown() == before
    assert (plan["filesystem"], plan["users"], plan["packages"]) == (
        "ext4",
        ["me"],
        [],
    )  # no list in the commit
    assert "/home" in plan["shared"] and f"root=UUID={UUID}" in plan["arguments"]
    assert "--assumeyes" in stock.run(code=2).stderr


@pytest.mark.parametrize(
    "point",
    [
        "disk.deployed", "existing.furnished", "existing.repository-placed", "existing.boot-placed",
        "existing.menu-written", "existing.default-set",
    ],
)  # fmt: skip
def test_a_failure_leaves_the_old_system(stock: Stock, point: str):
    before = stock.shown()
    stock.run("-y", failpoint=f"{point}=error", code=1)
    assert stock.shown() == before


@pytest.mark.parametrize(
    "point",
    ["existing.furnished", "existing.repository-placed", "existing.boot-placed", "existing.menu-written"],
)
def test_after_a_kill_the_old_system_starts_and_the_next_run_works(stock: Stock, point: str):
    stock.run("-y", failpoint=f"{point}=kill", code=1)
    assert not (stock.root / "boot/grub/custom.cfg").exists()
    stock.run("-y")
    assert (stock.root / "boot/grub/custom.cfg").exists()
    assert [path.name for path in stock.root.glob(".apt-ostree*")] == []
    assert not (stock.root / "ostree/takeover-unfinished").exists()
    assert stock.deployment.is_dir()


# --- what GRUB makes of it


def started(stock: Stock, disk: Path, directory: Path) -> str:
    """Have GRUB itself start from the disk with /boot, in the place of the kernels it prints; return that."""
    directory.mkdir(exist_ok=True)
    inside = "boot" not in stock.devices
    prefix = "(hd0)/boot/grub" if inside else "(hd0)/grub"
    (directory / "grub.cfg").write_text(f"set root=(hd0)\nset prefix={prefix}\nconfigfile $prefix/grub.cfg\n")
    (directory / "device.map").write_text(f"(hd0) {disk}\n")
    grub = f"stty cols 5000; exec grub-emu -m {directory}/device.map -d {directory} -r host"
    done = subprocess.run(
        ["script", "--quiet", "--command", grub, "/dev/null"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]", "", done.stdout.decode(errors="replace"))
    (found,) = re.findall(r"<((?:old|new)=[^<>]*)>", text)
    return found


def test_grub_starts_the_new_system_and_the_old_one_when_that_fails(stock: Stock, tmp_path: Path):
    stock.run("-y", "--boot-attempts=2")
    boot = stock.root / "boot"
    assert grubenv.parse((boot / "grub/grubenv").read_text()) == {"boot_attempts": "2", "boot_counter": "2"}
    menu = (boot / "grub/apt-ostree.cfg").read_text()
    subprocess.run(["grub-script-check"], input=menu, text=True, check=True)
    shown = '          echo "<new=$2|$3|$note>"; halt\n'
    menu = menu.replace("set timeout=5", "set timeout=0")
    begin, end = menu.index("          insmod"), menu.index("        }\n")
    (boot / "grub/apt-ostree.cfg").write_text(menu[:begin] + shown + menu[end:])
    kernel = next((boot / "ostree").glob("*/vmlinuz-*")).relative_to(boot)
    # The file system is the disk: it has no partitions.
    disk = tmp_path / ("disk" if "boot" not in stock.devices else "boot-disk")
    subprocess.run(["chattr", "-R", "-i", stock.root / "ostree/deploy"], check=False)
    stock.umount()
    path = f"{'/boot' if 'boot' not in stock.devices else ''}/{kernel}"

    told = [started(stock, disk, tmp_path / "grub") for _ in range(4)]

    for line in told[:2]:
        linux, initrd, note = line.removeprefix("new=").split("|")
        assert (linux, note) == (path, "apt-ostree.boot=counted")
        assert initrd.strip().startswith(path.rpartition("/")[0])
    assert told[2:] == ["old=1", "old=1"]
