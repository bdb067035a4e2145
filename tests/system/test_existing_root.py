"""A stock Debian is taken over: it keeps what makes it that machine, and the old system still starts."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest
from testbed_lib.base import _passed_on
from testbed_lib.common import CHECKOUT, run
from testbed_lib.image import mounted_disk
from testbed_lib.images import Wanted, image
from testbed_lib.install import OVERLAY
from testbed_lib.machine import Machine, throw_away_name
from testbed_lib.qemu import _ARGUMENTS

from apt_ostree.core.compose.disk import boot
from apt_ostree.model import diskimage
from apt_ostree.model.diskimage import Contents, Layout
from apt_ostree.system import ext4, grub, sfdisk
from apt_ostree.system.ext4 import FileSystem
from tests.system.firmware import FirmwareMachine
from tests.system.livehost import Host

pytestmark = [pytest.mark.vm, pytest.mark.extended]

TIMEOUT = 900  # seconds of one command; everything is emulated
SIZE = 8_000_000_000
TREEFILE = CHECKOUT / "examples/debian-13-server.yaml"
REPO = "/srv/repo"
HOOK = "/boot/grub/custom.cfg"
#: What a Debian has that somebody has installed; zsh is not in the tree.
PACKAGES = (
    "linux-image-amd64", "initramfs-tools", "grub-common", "grub2-common", "openssh-server", "sudo", "zsh",
    "systemd-sysv", "systemd-resolved", "libpam-systemd", "dbus", "python3", "e2fsprogs", "fdisk",
)  # fmt: skip
#: GRUB's own files beside its modules: by them `normal` finds a command's module.
_LISTS = ("*.mod", "*.lst")
#: Of the core image; all else is loaded from /boot, as with Debian's grub-install.
_MODULES = ("part_gpt", "ext2", "fat", "search", "search_fs_uuid", "normal", "configfile", "test", "serial")
_TIMESTAMP = 1_763_900_000


# --- the stock Debian


@contextmanager
def repository() -> Iterator[tuple[Path, str]]:
    """Yield the repository of a test bed's tree that has an SSH server, and its ref."""
    machine = Machine(throw_away_name())
    machine.create_disk(image(Wanted(treefile=TREEFILE)))
    try:
        with mounted_disk(machine._disk()) as mounted:
            repo = mounted / "ostree/repo"
            (ref,) = (
                one for one in run("ostree", "refs", f"--repo={repo}").split() if one.startswith("debian/")
            )
            yield repo, ref
    finally:
        machine.remove()


def bootstrap(place: Path) -> Path:
    """Return a root directory of Debian packages, apt-ostree's among them."""
    root, packages = place / "root", place / "packages"
    packages.mkdir()
    run(CHECKOUT / "tools/build-deb", packages)
    (deb,) = packages.glob("apt-ostree_*.deb")
    depends = run("dpkg-deb", "--field", deb, "Depends").split(",")
    names = {re.split(r"[\s(:|]", one.strip())[0] for one in depends}
    include = ",".join(sorted({*PACKAGES, *names}))
    run("mmdebstrap", "--mode=root", f"--include={include}", "trixie", root, env=_passed_on())
    run("cp", deb, root / "tmp")
    run("chroot", root, "dpkg", "--install", f"/tmp/{deb.name}", env={"DEBIAN_FRONTEND": "noninteractive"})
    return root


def furnish(root: Path, disk: Layout) -> None:
    """Make it a machine that somebody uses, and that the tests can reach."""
    (root / "etc/hostname").write_text("fx-stock\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 fx-stock\n")
    (root / "etc/fstab").write_text(diskimage.fstab(disk, grows=False))
    (root / "etc/machine-id").write_text("8f14e45fceea167a5a36dedd4bea2543\n")
    (root / "etc/systemd/network/fx.network").write_text("[Match]\nType=ether\n\n[Network]\nDHCP=yes\n")
    run("chroot", root, "useradd", "--create-home", "--shell=/usr/bin/zsh", "--groups=sudo", "fx-user")
    run("chroot", root, "chpasswd", input="fx-user:fx-secret\nroot:fx-secret\n")
    (root / "home/fx-user/letter").write_text("dear reader\n")
    run("chroot", root, "chown", "fx-user:fx-user", "/home/fx-user/letter")
    for name in ("usr/libexec/testbed-agent", "usr/lib/systemd/system/testbed-agent.service"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        run("cp", "-a", OVERLAY / name, root / name)
    run("chroot", root, "systemctl", "enable", "testbed-agent.service")


def give_tree(root: Path) -> str:
    """Put the tree into the machine's repository; return the ref."""
    target = root / REPO.lstrip("/")
    run("ostree", "init", "--mode=bare", f"--repo={target}")
    with repository() as (repo, ref):
        run("ostree", "pull-local", f"--repo={target}", repo, ref)
    return ref


def write_grub(root: Path, directory: Path, disk: Layout) -> None:
    """Write GRUB's files of a Debian: modules, and a menu with the end that grub-mkconfig gives it."""
    for platform in (grub.EFI, grub.BIOS):
        place = directory / "grub" / platform
        place.mkdir(parents=True, exist_ok=True)
        source = Path("/usr/lib/grub") / platform
        run("cp", *(path for pattern in _LISTS for path in source.glob(pattern)), place)
    (kernel,) = directory.glob("vmlinuz-*")
    version = kernel.name.removeprefix("vmlinuz-")
    end = run("chroot", root, "/etc/grub.d/41_custom")
    (directory / "grub/grub.cfg").write_text(
        "serial --unit=0 --speed=115200\nterminal_input console serial\nterminal_output console serial\n"
        "set timeout=1\nset default=0\n"
        f"search --no-floppy --fs-uuid --set=root {disk.boot_uuid}\n"
        "menuentry 'Debian GNU/Linux' --id gnulinux {\n"
        f"  linux /vmlinuz-{version} root=UUID={disk.root_uuid} ro {_ARGUMENTS}\n"
        f"  initrd /initrd.img-{version}\n}}\n{end}"
    )


def make_loaders(place: Path, disk: Layout) -> boot.Loaders:
    """Make what firmware starts: cores that find /boot and read the menu with all commands of GRUB."""
    script = place / "first.cfg"
    script.write_text(f"search --no-floppy --fs-uuid --set=root {disk.boot_uuid}\nset prefix=($root)/grub\n")
    efi, bios = place / "grub.efi", place / "grub.core"
    grub.make_core(grub.EFI, efi, (*_MODULES, "efi_gop"), script)
    grub.make_core(grub.BIOS, bios, (*_MODULES, "biosdisk"), script)
    return boot.Loaders({PurePosixPath("/EFI/BOOT/BOOTX64.EFI"): efi}, bios, signed=False)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A disk with a stock Debian, which nothing has booted from, and the ref in its repository."""
    place = tmp_path_factory.mktemp("stock")
    disk = diskimage.plan(Contents(1 << 30, 64 << 20), SIZE, "stock")
    root = bootstrap(place)
    furnish(root, disk)
    ref = give_tree(root)
    directory = place / "boot"
    (root / "boot").rename(directory)
    (root / "boot").mkdir()
    (directory / "efi").mkdir(exist_ok=True)
    write_grub(root, directory, disk)
    output = place / "stock.raw"
    with output.open("xb") as new:
        new.truncate(disk.size)
    sfdisk.write_table(output, diskimage.sfdisk_script(disk))
    boot.write(output, disk, directory, make_loaders(place, disk), _TIMESTAMP)
    main = FileSystem(output, disk.root.start, disk.root.size, disk.root_uuid, disk.root_seed, disk.root.name)
    ext4.make(main, root, _TIMESTAMP)
    subprocess.run(["rm", "-r", root], check=True)  # gigabytes
    return output, ref


@pytest.fixture
def disk(stock: tuple[Path, str], tmp_path: Path) -> Path:
    copy = tmp_path / "disk.raw"
    subprocess.run(["cp", "--sparse=always", stock[0], copy], check=True)
    return copy


def options(ref: str) -> tuple[str, ...]:
    """Return the options for the tree; what makes an emulated boot shorter does not go along by itself."""
    return (f"--repo={REPO}", f"--ref={ref}", *(f"--karg={one}" for one in _ARGUMENTS.split()[1:]))


# --- what is seen


def is_new(host: Host) -> bool:
    return host.exists("/run/ostree-booted")


def identity(host: Host) -> dict[str, str]:
    """What makes a machine that machine, whichever system it has."""
    return {
        "name": host.sh("hostname"),
        "id": host.sh("cat /etc/machine-id"),
        "keys": host.sh("cat /etc/ssh/ssh_host_*_key.pub"),
        "secret keys": host.sh("sha256sum /etc/ssh/ssh_host_*_key"),
        "password": host.sh("getent shadow fx-user root | cut -d: -f1,2"),
        "letter": host.sh("cat /home/fx-user/letter; stat --format=%U /home/fx-user/letter"),
        "sudo": host.sh("id -nG fx-user"),
    }


def counter(host: Host) -> list[str]:
    return [line for line in host.sh("cat /boot/grub/grubenv").splitlines() if "boot_counter" in line]


@pytest.mark.parametrize("uefi", [True, False], ids=["uefi", "bios"])
def test_a_stock_debian_is_taken_over_and_still_starts(disk: Path, stock, tmp_path: Path, uefi: bool):
    of = options(stock[1])
    with FirmwareMachine(disk, tmp_path / "vm", uefi=uefi) as machine:
        host = Host(machine)
        assert not is_new(host)
        before, menu = identity(host), host.sh("sha256sum /boot/grub/grub.cfg")
        plan = host.json("install-to-existing-root", *of, "--dry-run", timeout=TIMEOUT)["plan"]
        assert plan["users"] == ["fx-user"] and "zsh" in plan["packages"]
        assert {"/home", "/root"} <= {*plan["shared"]}
        assert not host.exists("/ostree") and not host.exists(HOOK)

        host.ao("install-to-existing-root", *of, "--assumeyes", timeout=TIMEOUT)
        assert (identity(host), host.sh("sha256sum /boot/grub/grub.cfg")) == (before, menu)
        assert counter(host) == ["boot_counter=3"]
        machine.reboot()

        # One reboot, and it is the same machine with another system.
        assert is_new(host)
        assert identity(host) == before
        assert host.sh("findmnt --noheadings --output TARGET --target /var/home").strip() == "/var/home"
        assert counter(host) == []
        (only,) = host.deployments()
        assert only["booted"]
        assert host.sh("getent passwd fx-user").strip().endswith(":/bin/bash")
        key = host.sh("ssh-keyscan -q -t ed25519 127.0.0.1 2>/dev/null | grep -v '^#'").split()[2]
        assert key in before["keys"]
        host.sh("su fx-user -c 'echo from the new system >/home/fx-user/reply'")
        assert host.exists("/sysroot/etc/hostname") and host.exists("/sysroot/home/fx-user/reply")
        assert host.failed_units() == []

        # It is changed as any other.
        host.ao("kargs", "--append=fx.disk=1", timeout=TIMEOUT)
        machine.reboot()
        assert is_new(host) and "fx.disk=1" in host.sh("cat /proc/cmdline")
        host.check_clean()

        # The last entry of its menu is the old system, which has what the new one has written at home.
        default = "sed -i 's/^set default={}/set default={}/' /boot/grub/apt-ostree.cfg"
        host.sh(f"mount -o remount,rw /boot; {default.format(0, 'before')}")
        machine.reboot()
        assert not is_new(host)
        assert identity(host) == before
        assert host.sh("cat /home/fx-user/reply") == "from the new system\n"
        assert host.sh("sha256sum /boot/grub/grub.cfg") == menu
        assert "zsh" in host.installed("zsh")

        # The way back for good, and forward again.
        host.sh(f"{default.format('before', 0)}; mv {HOOK} {HOOK}.off")
        machine.reboot()
        assert not is_new(host)
        host.sh(f"mv {HOOK}.off {HOOK}")
        machine.reboot()
        assert is_new(host)


def test_a_new_system_that_does_not_boot_gives_way_to_the_old_one(disk: Path, stock, tmp_path: Path):
    with FirmwareMachine(disk, tmp_path / "vm", uefi=False) as machine:
        host = Host(machine)
        before = identity(host)
        # Without a first program, the kernel looks for a root file system that it cannot find, and panics.
        words = ("--karg=rdinit=/fx-none", "--karg=panic=1", "--assumeyes")
        host.ao("install-to-existing-root", *options(stock[1]), *words, timeout=TIMEOUT)
        machine.reboot()
        assert machine.console().count("Kernel panic") == 3
        assert not is_new(host)
        assert identity(host) == before
        assert counter(host) == ["boot_counter=0"]
