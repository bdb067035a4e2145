"""Turns a root directory in which dpkg has run into the form of a tree (docs/architecture.md).

It is used for a composed tree and for one with layered packages. Running it again on a finished tree changes
nothing. The caller passes `run_in_root`, which runs a program inside the root, in a sandbox.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from apt_ostree.model import accounts, layout, tmpfiles
from apt_ostree.model.events import Report, task
from apt_ostree.system import dracut
from apt_ostree.system.confined import RunInRoot
from apt_ostree.system.failpoints import failpoint

#: Name of a file that a kernel package installs in /boot -> its name in the directory of the modules.
BOOT_FILES = {"vmlinuz": "vmlinuz", "config": "config", "System.map": "System.map"}
INITRAMFS = "initramfs.img"

#: Units with a condition on the time stamp of /usr or on the first boot. The /usr of a tree always has the
#: same time stamp, and its first boot is not that of the machine. So these units run at every boot.
UNIT_CONDITIONS = {
    "systemd-sysusers.service": "[Unit]\nConditionNeedsUpdate=\n",
    "ldconfig.service": "[Unit]\nConditionNeedsUpdate=\n",
    "sshd-keygen.service": "[Unit]\nConditionFirstBoot=\nConditionPathIsReadWrite=/etc/ssh\n",
}

#: Makes missing host keys if openssh has no unit for that (Debian 12); sshd does not start without them.
SSH_KEYS = """\
[Service]
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
ExecStartPre=/usr/sbin/sshd -t
"""

#: Backups, locks and secrets of the build below /etc and dpkg's database, as patterns of pathlib.
LEFTOVERS = (
    "etc/.pwd.lock",
    "etc/*-",
    "etc/**/*.dpkg-old",
    "etc/**/*.dpkg-new",
    "etc/**/*.dpkg-tmp",
    "etc/**/*.ucf-old",
    "etc/xml/*.old",
    "etc/ssh/ssh_host_*",
    "initrd.img",
    "initrd.img.old",
    "vmlinuz",
    "vmlinuz.old",
    f"{layout.DPKG_ADMINDIR}/*-old",
    f"{layout.DPKG_ADMINDIR}/lock*",
    f"{layout.DPKG_ADMINDIR}/triggers/Lock",
    f"{layout.SYSIMAGE}/debconf/*-old",
    f"{layout.SYSIMAGE}/ucf/hashfile.[0-9]*",
    f"{layout.SYSIMAGE}/ucf/registry.[0-9]*",
)


def finish_tree(
    root: Path,
    *,
    run_in_root: RunInRoot,
    report: Report,
    var_before: frozenset[str] = frozenset(),
) -> None:
    """Finish the tree at `root`; its `etc` and `var` are those that the maintainer scripts used.

    var_before: paths (`var/lib/foo`) that existed before the scripts ran and need no tmpfiles.d line.

    Raises ExternalFailure if a program fails.
    """
    place_kernels(root, run_in_root, report)
    failpoint("finish.kernels")
    place_opt(root, run_in_root)
    describe_state(root, var_before)
    describe_accounts(root)
    drop_unit_conditions(root)
    remove_leftovers(root)


# --- kernels


def place_kernels(root: Path, run_in_root: RunInRoot, report: Report) -> None:
    """Move kernels into the directories of their modules, and make missing initramfs images.

    Raises ExternalFailure if a program fails.
    """
    for modules in _directories(root / layout.KERNEL_MODULES):
        kernel = modules.name
        for name, target in BOOT_FILES.items():
            if (root / f"boot/{name}-{kernel}").is_file():
                _divert(
                    root, f"boot/{name}-{kernel}", f"{layout.KERNEL_MODULES}/{kernel}/{target}", run_in_root
                )
        if not (modules / "vmlinuz").exists():
            _remove_kernel_files(root, modules, run_in_root)
        elif not (modules / INITRAMFS).exists():
            with task(report, f"Making the initramfs of {kernel}"):
                _make_initramfs(root, kernel, run_in_root)
    for entry in (root / "boot").iterdir():
        _remove(entry)


def _divert(root: Path, source: str, target: str, run_in_root: RunInRoot) -> None:
    """Move a package's file and divert it, so that dpkg verifies, upgrades and removes it at the new path."""
    command = ["dpkg-divert", "--quiet", "--local", "--no-rename"]
    run_in_root([*command, "--divert", f"/{target}", "--add", f"/{source}"], f"divert /{source}")
    shutil.move(root / source, root / target)


def _remove_kernel_files(root: Path, modules: Path, run_in_root: RunInRoot) -> None:
    """Remove the diversions and the initramfs of a kernel whose package was removed."""
    if (modules / "kernel").exists():
        return  # the modules of a kernel without an image
    for name in BOOT_FILES:
        source = f"/boot/{name}-{modules.name}"
        command = ["dpkg-divert", "--quiet", "--local", "--no-rename", "--remove", source]
        run_in_root(command, f"end the diversion of {source}")
    shutil.rmtree(modules)


def _make_initramfs(root: Path, kernel: str, run_in_root: RunInRoot) -> None:
    arguments = root / layout.DRACUT_ARGUMENTS
    scratch = "/var/tmp" if (root / "var/tmp").is_dir() else "/tmp"
    command = dracut.argv(
        kernel,
        f"/{layout.KERNEL_MODULES}/{kernel}/{INITRAMFS}",
        scratch=scratch,
        arguments=arguments.read_text().splitlines() if arguments.exists() else (),
    )
    run_in_root(command, f"make the initramfs of {kernel}")


# --- /var


def place_opt(root: Path, run_in_root: RunInRoot) -> None:
    """Move what packages installed in /opt to /usr/lib/opt, with links, because it is part of the tree.

    Raises ExternalFailure if a program fails.
    """
    for entry in _directories(root / "var/opt"):
        if entry.is_symlink():
            continue
        home = root / "usr/lib/opt" / entry.name
        home.mkdir(parents=True, exist_ok=True)
        # cp keeps owners, capabilities and hard links, which shutil does not.
        command = ["cp", "-a", "--", f"/var/opt/{entry.name}/.", f"/usr/lib/opt/{entry.name}"]
        run_in_root(command, f"place /opt/{entry.name} in the tree")
        shutil.rmtree(entry)
        entry.symlink_to(f"../../usr/lib/opt/{entry.name}")


def describe_state(root: Path, var_before: frozenset[str]) -> None:
    """Describe what the scripts created below /var as tmpfiles.d lines; files get a factory copy in /usr."""
    _write(root / layout.TMPFILES_LAYOUT, tmpfiles.layout_text())
    own_conf = root / layout.TMPFILES_VAR
    described: set[str] = set()
    for conf in sorted((root / "usr/lib/tmpfiles.d").glob("*.conf")):
        if conf != own_conf:
            described |= tmpfiles.described(conf.read_text(errors="replace"))
    users, groups = _names(root)
    entries = []
    for path, info in _walk_state(root, "var"):
        if path in var_before or f"/{path}" in described:
            continue
        owner = (users.get(info.st_uid, str(info.st_uid)), groups.get(info.st_gid, str(info.st_gid)))
        entries.append(_entry(root, path, info, tmpfiles.OWNERS.get(path, owner)))
    old = own_conf.read_text() if own_conf.exists() else ""
    _write(own_conf, tmpfiles.merge(old, entries))


def _walk_state(root: Path, top: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the paths below `top` that need a tmpfiles.d line, parents first."""
    for entry in sorted(os.scandir(root / top), key=lambda entry: entry.name):
        path = f"{top}/{entry.name}"
        treatment = tmpfiles.treatment(path)
        if treatment is tmpfiles.Treatment.SKIP:
            continue
        info = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            yield path, info
            yield from _walk_state(root, path)
        elif treatment is tmpfiles.Treatment.KEEP and (stat.S_ISREG(info.st_mode) or entry.is_symlink()):
            yield path, info


def _entry(root: Path, path: str, info: os.stat_result, owner: tuple[str, str]) -> tmpfiles.Entry:
    if stat.S_ISLNK(info.st_mode):
        return tmpfiles.Entry("L", f"/{path}", argument=str((root / path).readlink()))
    mode = f"{stat.S_IMODE(info.st_mode):04o}"
    if stat.S_ISDIR(info.st_mode):
        return tmpfiles.Entry("d", f"/{path}", mode, *owner)
    factory = root / layout.FACTORY / path
    factory.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(root / path, factory)
    os.chown(factory, info.st_uid, info.st_gid)
    factory.chmod(stat.S_IMODE(info.st_mode))
    return tmpfiles.Entry("C", f"/{path}", mode, *owner, argument=f"/{layout.FACTORY}/{path}")


def _names(root: Path) -> tuple[dict[int, str], dict[int, str]]:
    users = accounts.parse_passwd(_read(root / "etc/passwd"))
    groups = accounts.parse_group(_read(root / "etc/group"))
    return ({user.uid: user.name for user in users}, {group.gid: group.name for group in groups})


# --- accounts, units, leftovers


def describe_accounts(root: Path) -> None:
    """Describe the tree's users and groups as sysusers.d lines, and remove the build's date from shadow."""
    own_conf = root / layout.SYSUSERS
    pinned: frozenset[str] = frozenset()
    for conf in sorted((root / "usr/lib/sysusers.d").glob("*.conf")):
        if conf != own_conf:
            pinned |= accounts.pinned(conf.read_text(errors="replace"))
    users = accounts.parse_passwd(_read(root / "etc/passwd"))
    groups = accounts.parse_group(_read(root / "etc/group"))
    _write(own_conf, accounts.sysusers(users, groups, existing=pinned))
    shadow = root / "etc/shadow"
    if shadow.exists():
        _write(shadow, accounts.without_change_dates(shadow.read_text()))


def drop_unit_conditions(root: Path) -> None:
    """Let units run at every boot whose conditions would never be met in a tree."""
    units = root / "usr/lib/systemd/system"
    for unit, text in UNIT_CONDITIONS.items():
        if (units / unit).exists():
            _write(units / f"{unit}.d/10-apt-ostree.conf", text)
    if (units / "ssh.service").exists() and not (units / "sshd-keygen.service").exists():
        _write(units / "ssh.service.d/10-apt-ostree.conf", SSH_KEYS)


def remove_leftovers(root: Path) -> None:
    """Remove what makes two builds of the same packages differ, and secrets of the build."""
    for pattern in LEFTOVERS:
        # glob() does not return a dangling link for a pattern without wildcards.
        for path in sorted(root.glob(pattern)) if "*" in pattern or "[" in pattern else [root / pattern]:
            _remove(path)
    machine_id = root / "etc/machine-id"
    if machine_id.exists():
        _write(machine_id, "")
    _sort_records(root / layout.DPKG_ADMINDIR / "diversions", 3)
    _sort_records(root / layout.DPKG_ADMINDIR / "statoverride", 1)


def reset_bytecode(changed: Path, usr: Path) -> None:
    """Set the source's time stamp in compiled Python files to 0, which all files of a checkout have.

    Otherwise each start of a program would compile its modules again, and could not store the result because
    /usr is read-only.

    changed: a directory whose relative paths are the files to change in `usr`; it may be `usr` itself.
    """
    for path in sorted(changed.rglob("__pycache__/*.pyc")):
        reset_bytecode_file(usr / path.relative_to(changed))


def reset_bytecode_file(path: Path) -> None:
    """Set the source's time stamp in a .pyc file to 0, if the file exists.

    The header (PEP 552) contains the magic number, flags, the source's time stamp and its size.
    """
    if not path.is_file() or path.is_symlink():
        return
    data = path.read_bytes()
    if len(data) < 16 or data[4:12] == bytes(8) or data[4:8] != bytes(4):
        return
    info = path.stat()
    scratch = path.with_name(f"{path.name}.new")
    scratch.write_bytes(data[:8] + bytes(4) + data[12:])  # never in place: the file may be a hardlink
    os.chown(scratch, info.st_uid, info.st_gid)
    scratch.chmod(stat.S_IMODE(info.st_mode))
    scratch.rename(path)


def _sort_records(path: Path, size: int) -> None:
    """Sort a file of records of `size` lines each; dpkg writes them in the order of its hash table."""
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    records = sorted(lines[n : n + size] for n in range(0, len(lines), size))
    _write(path, "".join(line for record in records for line in record))


# --- helpers


def _directories(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _read(path: Path) -> str:
    return path.read_text(errors="surrogateescape") if path.exists() else ""


def _write(path: Path, text: str) -> None:
    """Write a file if its content differs: an unchanged file must not appear in the upper directory."""
    if path.exists() and path.read_text(errors="surrogateescape") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, errors="surrogateescape")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
