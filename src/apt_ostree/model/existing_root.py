"""Taking over a running Debian: what of it the new system keeps, what it shares, and the plan.

The old system stays as it is. The new one has a /usr, an /etc and a /var of its own, on the same root file
system, which it has at /sysroot. Pure values; paths without a slash in front are relative to a root.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from apt_ostree.model import kargs, layout

#: File systems that GRUB can read and that a generic initramfs of Debian mounts.
FILE_SYSTEMS = ("ext4", "xfs", "btrfs")
#: Of /boot: without symlinks (vfat), libostree cannot write there.
BOOT_FILE_SYSTEMS = ("ext2", "ext3", *FILE_SYSTEMS)
#: Those that GRUB can write to, so that the boot menu can count.
WRITABLE_FOR_GRUB = ("ext2", "ext3", "ext4", "xfs")
#: What lsblk calls a device that root may be on.
DEVICES = ("part", "disk", "loop")
#: In /ostree while a takeover is not complete.
UNFINISHED = "takeover-unfinished"
#: Bytes that have to be free on the root file system beside what the tree takes.
RESERVE = 512 << 20

#: Kernel arguments of the running system that stay: what its disks, consoles and network cards need.
_ARGUMENTS = frozenset(
    {
        "rootfstype", "rootflags", "rootdelay", "rootwait", "console", "consoleblank", "earlycon",
        "nomodeset", "net.ifnames", "biosdevname", "ipv6.disable", "iommu", "intel_iommu", "amd_iommu", "pci",
        "acpi", "nvme_core.default_ps_max_latency_us",
    }
)  # fmt: skip
#: Those that the new system has of its own, whatever the running one has.
_OWN_ARGUMENTS = ("root", "ro", "rw", "ostree")

#: Directories that both systems show: in the old root -> in that of the new one.
_SHARED = {
    **{name: layout.TOP_LINKS[name] for name in ("home", "root", "srv")},
    layout.USR_LOCAL[0]: "var/usrlocal",
}
SHARED_UNIT = "directories-of-the-old-root.service"
_MOUNT = "/usr/bin/mount"
SHARED_WANTED_BY = "local-fs.target"

_MOVED = {
    **{f"/{name}": f"/{target}" for name, target in layout.TOP_LINKS.items() if name != "ostree"},
    f"/{layout.USR_LOCAL[0]}": "/var/usrlocal",
}
#: Mount points that a tree fills itself.
_OF_TREE = ("/usr", "/etc", "/var", "/var/lib", "/var/cache")
#: Where a mount point can be made, or is in each tree.
_MOUNTABLE = ("/var/", "/boot/", "/run/", "/tmp/", "/dev/", "/proc/", "/sys/")


@dataclass(frozen=True, slots=True)
class Kept:
    """Files of /etc that go along.

    patterns: of paths in /etc, as pathlib's glob has them.
    needs: the program in the tree without which they would say nothing; "" for none.
    """

    what: str
    patterns: tuple[str, ...]
    needs: str = ""


#: The first ones are the network's, see `network_refusal`.
NETWORK = (
    Kept("ifupdown", ("network/interfaces", "network/interfaces.d/*"), "usr/sbin/ifup"),
    Kept(
        "NetworkManager",
        ("NetworkManager/system-connections/*", "NetworkManager/conf.d/*"),
        "usr/sbin/NetworkManager",
    ),
    Kept(
        "systemd-networkd",
        (
            "systemd/network/*",
            "systemd/network/*/*",
            "systemd/system/*.wants/systemd-networkd*",
            "systemd/system/dbus-org.freedesktop.network1.service",
        ),
        "usr/lib/systemd/systemd-networkd",
    ),
    Kept("netplan", ("netplan/*",), "usr/sbin/netplan"),
)
KEPT = (
    *NETWORK,
    Kept(
        "systemd-resolved",
        (
            "systemd/resolved.conf.d/*",
            "systemd/system/*.wants/systemd-resolved*",
            "systemd/system/dbus-org.freedesktop.resolve1.service",
        ),
        "usr/lib/systemd/systemd-resolved",
    ),
    Kept("wpa_supplicant", ("wpa_supplicant/*.conf",), "usr/sbin/wpa_supplicant"),
    Kept("name and id", ("hostname", "hosts", "machine-id", "resolv.conf")),
    Kept(
        "time and language",
        (
            "localtime", "timezone", "adjtime", "locale.conf", "default/locale", "default/keyboard",
            "default/console-setup", "vconsole.conf",
        ),
    ),
    Kept("ssh", ("ssh/ssh_host_*", "ssh/sshd_config", "ssh/sshd_config.d/*.conf"), "usr/sbin/sshd"),
    Kept("sudo", ("sudoers.d/*",), "usr/bin/sudo"),
)  # fmt: skip
#: A file that counts only if it is one: a link is made by what the tree has or has not.
PLAIN = "resolv.conf"


def configures_network(path: str, text: str) -> bool:
    """Return whether a file of `NETWORK` sets an interface up. path: relative to /etc."""
    if path.startswith("network/"):
        names = re.findall(r"^\s*iface\s+(\S+)", text, re.MULTILINE)
        return any(name != "lo" for name in names)
    return path.endswith((".network", ".nmconnection", ".yaml")) or "system-connections/" in path


def kept_arguments(
    running: Iterable[str], of_tree: Collection[str]
) -> tuple[kargs.Arguments, kargs.Arguments]:
    """Return the kernel arguments of the running system that stay, and those that do not.

    of_tree: those that the new system has anyway.
    """
    there = [one for one in kargs.own(running) if kargs.key_of(one) not in _OWN_ARGUMENTS]
    new = [one for one in dict.fromkeys(there) if one not in of_tree]
    kept = tuple(one for one in new if kargs.key_of(one) in _ARGUMENTS)
    return kept, tuple(one for one in new if one not in kept)


# --- file systems


@dataclass(frozen=True, slots=True)
class Mounts:
    """The lines of an fstab(5) that stay, and (what, reason) of those that do not."""

    kept: tuple[str, ...]
    left: tuple[tuple[str, str], ...]

    @property
    def points(self) -> tuple[str, ...]:
        """Return the mount points of those that stay."""
        return tuple(decoded(line.split()[1]) for line in self.kept)


def take_mounts(fstab: str) -> Mounts:
    """Return what of an fstab(5) is the new system's, too, with mount points as it has them."""
    kept: list[str] = []
    left: list[tuple[str, str]] = []
    for line in fstab.splitlines():
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#") or fields[1] == "/":
            continue
        fields += ["defaults", "0", "0"][len(fields) - 3 :]
        fields[1] = new_place(fields[1])
        if "bind" in fields[3].split(","):
            fields[0] = new_place(fields[0])
        reason = _reason_to_leave(*fields[:4])
        if reason:
            left.append((line.split()[1] if fields[2] != "swap" else fields[0], reason))
        else:
            kept.append(" ".join(fields))
    return Mounts(tuple(kept), tuple(left))


def _reason_to_leave(source: str, where: str, kind: str, options: str) -> str:
    if kind == "swap":
        is_file = source.startswith("/") and not source.startswith("/dev/")
        return "a swap file in a root that will be read-only" if is_file else ""
    if where in _OF_TREE or where.startswith(("/usr/", "/etc/")):
        return "the tree has its own"
    if not f"{where}/".startswith(_MOUNTABLE):
        return "the tree has no such directory to mount it on"
    if "bind" in options.split(",") and not source.startswith(("/var/", "/run/")):
        return "what it shows is in the old root"
    return ""


def new_place(path: str) -> str:
    """Return where the new system has a directory of the old one."""
    for old, new in _MOVED.items():
        if path == old or path.startswith(f"{old}/"):
            return new + path.removeprefix(old)
    return path


def decoded(field: str) -> str:
    """Return a field of fstab(5) as the path that it means."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def root_line(uuid: str, kind: str) -> str:
    """Return the line of fstab(5) for the root file system."""
    return f"UUID={uuid} / {kind} defaults 0 {int(kind == 'ext4')}"


def shared(directories: Collection[str], mount_points: Iterable[str]) -> dict[str, str]:
    """Return the directories that both systems show: in the old root -> in the new one.

    directories: those of the old root that there are. mount_points: those are file systems of their own.
    """
    mounted = {point.strip("/") for point in mount_points}
    return {old: new for old, new in _SHARED.items() if old in directories and not {old, new} & mounted}


def shareable() -> tuple[str, ...]:
    """Return the directories of an old root that the new system would show."""
    return tuple(_SHARED)


def shared_unit(directories: Iterable[tuple[str, str]], mount_points: Sequence[str]) -> str:
    """Return the unit that shows directories of the old root in the new one.

    A mount unit could not: /sysroot is read-only, and so is what is mounted from it, unless it is changed
    after it was mounted.

    mount_points: of the new system; those in such a directory are mounted after it.
    """
    pairs = tuple(directories)
    inner = [point for point in mount_points if any(point.startswith(f"/{new}/") for _old, new in pairs)]
    before = " ".join([SHARED_WANTED_BY, "systemd-tmpfiles-setup.service", *map(mount_unit, inner)])
    commands = "".join(
        f"ExecStart={_MOUNT} --bind /sysroot/{old} /{new}\nExecStart={_MOUNT} -o remount,bind,rw /{new}\n"
        for old, new in pairs
    )
    return f"""\
# Written when 'apt-ostree install-to-existing-root' took this machine over.
[Unit]
Description=Directories of the old root
DefaultDependencies=no
Conflicts=shutdown.target
RequiresMountsFor=/sysroot /var
After=ostree-remount.service systemd-remount-fs.service
Before={before} shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
{commands}
[Install]
WantedBy={SHARED_WANTED_BY}
"""


def mount_unit(path: str) -> str:
    """Return the name of a mount point's unit (systemd-escape(1))."""
    return "-".join(map(_escaped, path.strip("/").split("/"))) + ".mount"


def _escaped(name: str) -> str:
    return "".join(
        char if re.fullmatch(r"[A-Za-z0-9:_.]", char) else "".join(f"\\x{byte:02x}" for byte in char.encode())
        for char in name
    )


# --- the plan


@dataclass(frozen=True, slots=True)
class Left:
    """Something of the running system that the new one does not have, and why."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class TakeoverPlan:
    """What is to be done to a running Debian.

    system: its name. device, filesystem: what root is on.
    repo: the path of the repository that has the commit; image: the container image that has it.
    follows: the branch, or the image, that upgrades come from; url: of its remote, "" without one.
    arguments: of the kernel.
    attempts: how often the new system is tried before the old one is started; 0: for ever.
    files: paths in /etc that go along. users: who does.
    shared: directories that both systems show.
    mounts: mount points of the new system.
    packages: what is installed and not in the tree.
    """

    system: str
    device: str
    filesystem: str
    commit: str
    version: str
    repo: str
    follows: str
    url: str
    arguments: tuple[str, ...]
    attempts: int
    files: tuple[str, ...]
    users: tuple[str, ...]
    shared: tuple[str, ...]
    mounts: tuple[str, ...]
    left: tuple[Left, ...]
    packages: tuple[str, ...]
    image: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON object."""
        found = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}
