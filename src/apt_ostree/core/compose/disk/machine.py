"""What a machine has on its disk beside the tree: mounts, a name, an account, keys, a root that grows."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import UsageError
from apt_ostree.model import diskimage, growth, machine
from apt_ostree.model.diskimage import Layout
from apt_ostree.model.machine import Machine
from apt_ostree.model.requests.images import OfMachine
from apt_ostree.system import files, useradd
from apt_ostree.system.ostree.new_sysroot import NewSysroot

_UNITS = "etc/systemd/system"
_SSH_SERVER = "usr/sbin/sshd"
#: Groups that let a user administrate the machine, and read what it has logged.
_GROUPS = ("sudo", "adm")
_ROOT_HOME = "roothome"  # in /var
_LOCALHOST = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def read(request: OfMachine) -> Machine:
    """Return what the caller wants the machine to have. Raises UsageError for a mistake in it."""
    if request.hostname is not None:
        machine.check_hostname(request.hostname)
    if request.user is not None:
        machine.check_account(request.user)
    for console in request.consoles:
        machine.check_console(console)
    keys = _read_keys(Path(request.ssh_key)) if request.ssh_key is not None else ""
    return Machine(request.hostname or "", request.user or "", keys)


def _read_keys(path: Path) -> str:
    try:
        return machine.read_public_keys(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--ssh-key: cannot read {path}: {error}") from error


def furnish(tx: Transaction, sysroot: NewSysroot, disk: Layout, wanted: Machine) -> None:
    """Write what the machine has of its own into the deployment's /etc and into /var."""
    root = sysroot.root / sysroot.deployment
    _write_mounts(tx, root, disk)
    if wanted.hostname:
        _name(root, wanted.hostname)
    home, uid, gid = sysroot.var / _ROOT_HOME, 0, 0
    if wanted.user:
        account = useradd.add(root, wanted.user, _GROUPS)
        home, uid, gid = sysroot.var / "home" / wanted.user, account.uid, account.gid
        _make_home(root, home)
        _let_administrate(tx, root, wanted.user)
    if wanted.keys:
        _authorize(home, wanted.keys)
    _give(home, uid, gid)
    _tell_who_cannot_log_in(tx, root, wanted)


def _write_mounts(tx: Transaction, root: Path, disk: Layout) -> None:
    add_mounts(root, diskimage.fstab(disk, grows=_let_grow(tx, root)))


def add_mounts(root: Path, own: str) -> None:
    """Add lines to a deployment's fstab(5); UsageError if the tree has such a mount point itself."""
    fstab = root / "etc/fstab"
    there = files.text_of(fstab)
    if both := diskimage.mount_points(there) & diskimage.mount_points(own):
        raise UsageError(
            f"the tree's /etc/fstab mounts {', '.join(sorted(both))}, which the disk has file systems for",
            hint="leave it out of the tree",
        )
    _write(fstab, there + own)


def _let_grow(tx: Transaction, root: Path) -> bool:
    """Let the root partition grow; return whether the tree can do it."""
    missing = [package for program, package in growth.NEEDS.items() if not (root / program).exists()]
    if missing:
        tx.warning(f"the tree does not have {', '.join(missing)}: the root file system will not grow")
        return False
    add_unit(root, growth.NAME, growth.unit(), wanted_by=growth.WANTED_BY)
    return True


def add_unit(root: Path, name: str, text: str, *, wanted_by: str) -> None:
    """Add a unit to a deployment, and enable it."""
    _write(root / _UNITS / name, text)
    wants = root / _UNITS / f"{wanted_by}.wants"
    wants.mkdir(exist_ok=True)
    (wants / name).symlink_to(f"../{name}")


def _name(root: Path, hostname: str) -> None:
    _write(root / "etc/hostname", f"{hostname}\n")
    hosts = root / "etc/hosts"
    names = " ".join(dict.fromkeys((hostname, hostname.partition(".")[0])))
    _write(hosts, (files.text_of(hosts) or _LOCALHOST) + f"127.0.1.1\t{names}\n")


def _make_home(root: Path, home: Path) -> None:
    _make_directory(home.parent, 0o755)
    skeleton = root / "etc/skel"
    if skeleton.is_dir():
        shutil.copytree(skeleton, home, symlinks=True)
    else:
        home.mkdir()


def _let_administrate(tx: Transaction, root: Path, user: str) -> None:
    """Let a user without a password use sudo(8), as Debian's images for clouds do."""
    directory = root / "etc/sudoers.d"
    if directory.is_dir():
        path = directory / "90-apt-ostree"
        _write(path, f"{user} ALL=(ALL) NOPASSWD: ALL\n")
        path.chmod(0o440)
    else:
        tx.warning(f"the tree does not have sudo: {user} cannot become root")


def _authorize(home: Path, keys: str) -> None:
    directory = home / ".ssh"
    _make_directory(home, 0o700)
    _make_directory(directory, 0o700)
    _write(directory / "authorized_keys", keys)
    (directory / "authorized_keys").chmod(0o600)


def _tell_who_cannot_log_in(tx: Transaction, root: Path, wanted: Machine) -> None:
    if wanted.keys and not (root / _SSH_SERVER).exists():
        tx.warning("the tree has no SSH server, so that nobody can log in with the key")
    elif not wanted.keys and not machine.accounts_with_password(files.text_of(root / "etc/shadow")):
        tx.warning("no account has a password, and no --ssh-key is given: nobody can log in")


def _give(home: Path, uid: int, gid: int) -> None:
    """Make a home directory its user's, if there is one."""
    if home.is_dir():
        home.chmod(0o700)
        for path in (home, *home.rglob("*")):
            os.chown(path, uid, gid, follow_symlinks=False)


def _make_directory(path: Path, mode: int) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(mode)


def _write(path: Path, text: str) -> None:
    """Write a file, whatever the umask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, errors="surrogateescape")
    path.chmod(0o644)
