"""Turns a root directory in which dpkg has run into the form of a tree (docs/architecture.md).

It is used for a composed tree and for one with layered packages. Running it again on a finished tree changes
nothing. The caller passes `run_in_root`, which runs a program inside the root, in a sandbox.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from apt_ostree.core.build import initramfs_state, var
from apt_ostree.errors import Refused
from apt_ostree.model import accounts, initramfs, layout
from apt_ostree.model.events import Report, task
from apt_ostree.system import dpkg_query, dracut, files
from apt_ostree.system.confined import RunInRoot
from apt_ostree.system.failpoints import failpoint

#: Name of a file that a kernel package installs in /boot -> its name in the directory of the modules.
BOOT_FILES = {"vmlinuz": "vmlinuz", "config": "config", "System.map": "System.map"}

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

#: Backups and locks of the build below /etc and dpkg's database, as patterns of pathlib.
LEFTOVERS = (
    "etc/.pwd.lock",
    "etc/*-",
    "etc/**/*.dpkg-old",
    "etc/**/*.dpkg-new",
    "etc/**/*.dpkg-tmp",
    "etc/**/*.ucf-old",
    "etc/xml/*.old",
    "initrd.img",
    "initrd.img.old",
    "vmlinuz",
    "vmlinuz.old",
    f"{layout.DPKG_ADMINDIR}/*-old",
    f"{layout.DPKG_ADMINDIR}/lock*",
    f"{layout.DPKG_ADMINDIR}/triggers/Lock",
    f"{layout.SYSIMAGE}/ucf/hashfile.[0-9]*",
    f"{layout.SYSIMAGE}/ucf/registry.[0-9]*",
)


def finish_tree(
    root: Path,
    *,
    run_in_root: RunInRoot,
    report: Report,
    var_before: frozenset[str] = frozenset(),
    new_id: Callable[[str], str] | None = None,
    taken: Mapping[str, str] | None = None,
) -> None:
    """Finish the tree at `root`; its `etc` and `var` are those that the maintainer scripts used.

    var_before: paths (`var/lib/foo`) that existed before the scripts ran and need no tmpfiles.d line.
    new_id: returns the id of a new seed by its path; by default the same one in each compose.
    taken: path of a file of the machine that the scripts worked on -> digest of its content before.

    Raises ExternalFailure if a program fails.
    """
    place_kernels(root, run_in_root, report)
    failpoint("finish.kernels")
    place_opt(root, run_in_root)
    var.describe(root, var_before, new_id or "base:{}".format, run_in_root, taken or {})
    describe_accounts(root)
    drop_unit_conditions(root)
    place_selinux_config(root)
    remove_leftovers(root)


# --- kernels


def place_kernels(root: Path, run_in_root: RunInRoot, report: Report) -> None:
    """Move kernels into the directories of their modules, and make missing initramfs images.

    Raises ExternalFailure if a program fails, and Refused if a kernel was added and it is not the only one.
    """
    require_one_kernel(root)
    all_modules = _directories(root / layout.KERNEL_MODULES)
    for modules in all_modules:
        for name in _boot_files(root, modules):
            target = f"{layout.KERNEL_MODULES}/{modules.name}/{BOOT_FILES[name]}"
            _divert(root, f"boot/{name}-{modules.name}", target, run_in_root)
    kernels = [modules for modules in all_modules if (modules / "vmlinuz").exists()]
    for modules in all_modules:
        if modules not in kernels:
            _remove_kernel_files(root, modules, run_in_root)
        elif not (modules / layout.INITRAMFS).exists():
            _make_initramfs(root, modules.name, run_in_root, report)
    for entry in (root / "boot").iterdir():
        files.remove_all(entry)


def make_initramfs_images(
    root: Path, run_in_root: RunInRoot, report: Report, arguments: Sequence[str]
) -> None:
    """Make the initramfs of each kernel with further arguments of dracut; ExternalFailure if it fails."""
    for modules in _directories(root / layout.KERNEL_MODULES):
        if (modules / "kernel").exists():
            _make_initramfs(root, modules.name, run_in_root, report, arguments)


def require_one_kernel(root: Path) -> None:
    """Raise Refused if a kernel was added and it is not the only one: ostree boots an arbitrary one."""
    found = {modules: _boot_files(root, modules) for modules in _directories(root / layout.KERNEL_MODULES)}
    kernels = [
        modules.name
        for modules, boot_files in found.items()
        if (modules / "vmlinuz").exists() or "vmlinuz" in boot_files
    ]
    if any(found.values()) and len(kernels) > 1:
        raise _several_kernels(root, kernels)


def _boot_files(root: Path, modules: Path) -> list[str]:
    """Return which files of BOOT_FILES a kernel's package has in /boot."""
    return [name for name in BOOT_FILES if (root / f"boot/{name}-{modules.name}").is_file()]


def _several_kernels(root: Path, kernels: list[str]) -> Refused:
    """Return the error about several kernels in a tree."""
    owners = {
        name: dpkg_query.owners(root / layout.DPKG_ADMINDIR, f"/boot/vmlinuz-{name}") for name in kernels
    }
    return Refused(
        f"the tree would have {len(kernels)} kernels, and a deployment boots one: {', '.join(kernels)}",
        details=[f"{name} is of {', '.join(owners[name]) or 'no package'}" for name in kernels],
        hint="request one kernel only, and drop the packages that bring the others; nothing was changed",
    )


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


def _make_initramfs(
    root: Path, kernel: str, run_in_root: RunInRoot, report: Report, own: Sequence[str] = ()
) -> None:
    """Make an initramfs image and the list of what it holds. own: further arguments of dracut."""
    arguments = (*files.text_of(root / layout.DRACUT_ARGUMENTS).splitlines(), *own)
    image = f"/{layout.KERNEL_MODULES}/{kernel}/{layout.INITRAMFS}"
    scratch = "/var/tmp" if (root / "var/tmp").is_dir() else "/tmp"
    listing = f"{layout.KERNEL_MODULES}/{kernel}/{layout.INITRAMFS_LIST}"
    _stop_clock(root)
    with task(report, f"Making the initramfs of {kernel}"):
        command = dracut.argv(kernel, image, scratch=scratch, arguments=arguments)
        run_in_root(command, f"make the initramfs of {kernel}")
        run_in_root(dracut.list_argv(image, f"/{listing}"), f"list the initramfs of {kernel}")
    held = initramfs.contents((root / listing).read_text(errors="surrogateescape"))
    files.write_text(root / listing, "".join(f"{path}\n" for path in sorted(held)))
    initramfs_state.write(root, kernel)


def _stop_clock(root: Path) -> None:
    """Let all files in an initramfs have the time stamp 0, which they have in a checkout, too.

    Otherwise it would be another one after a package was built again, though no file in it has changed, and
    the one that a machine makes would differ from that of the compose.
    """
    clock = root / dracut.CLOCK
    if clock.is_file() and clock.stat().st_mtime_ns != 0:  # it has 0 in a checkout, which is not written to
        os.utime(clock, (0, 0))


# --- /opt


def place_opt(root: Path, run_in_root: RunInRoot) -> None:
    """Move what packages installed in /opt to /usr/lib/opt, with links, because it is part of the tree.

    Raises ExternalFailure if a program fails.
    """
    for entry in _directories(root / "var/opt"):
        if entry.is_symlink():
            continue
        home = root / layout.OPT / entry.name
        home.mkdir(parents=True, exist_ok=True)
        # cp keeps owners, capabilities and hard links, which shutil does not.
        command = ["cp", "-a", "--", f"/var/opt/{entry.name}/.", f"/{layout.OPT}/{entry.name}"]
        run_in_root(command, f"place /opt/{entry.name} in the tree")
        shutil.rmtree(entry)
        entry.symlink_to(layout.opt_link(entry.name))
    for home in _directories(root / layout.OPT):
        if not any(entries for _directory, _names, entries in os.walk(home)):  # its package was removed
            shutil.rmtree(home)
            (root / "var/opt" / home.name).unlink(missing_ok=True)


# --- accounts, units, leftovers


def describe_accounts(root: Path) -> None:
    """Describe the tree's users and groups as sysusers.d lines, and remove the build's date from shadow."""
    own_conf = root / layout.SYSUSERS
    pinned: frozenset[str] = frozenset()
    for conf in sorted((root / "usr/lib/sysusers.d").glob("*.conf")):
        if conf != own_conf:
            pinned |= accounts.pinned(conf.read_text(errors="replace"))
    users = accounts.parse_passwd(files.text_of(root / "etc/passwd"))
    groups = accounts.parse_group(files.text_of(root / "etc/group"))
    files.write_text(own_conf, accounts.sysusers(users, groups, existing=pinned))
    shadow = root / "etc/shadow"
    if shadow.exists():
        files.write_text(shadow, accounts.without_change_dates(shadow.read_text()))


def drop_unit_conditions(root: Path) -> None:
    """Let units run at every boot whose conditions would never be met in a tree."""
    units = root / "usr/lib/systemd/system"
    for unit, text in UNIT_CONDITIONS.items():
        if (units / unit).exists():
            files.write_text(units / f"{unit}.d/10-apt-ostree.conf", text)
    if (units / "ssh.service").exists() and not (units / "sshd-keygen.service").exists():
        files.write_text(units / "ssh.service.d/10-apt-ostree.conf", SSH_KEYS)


def place_selinux_config(root: Path) -> None:
    """Move SELinux's configuration aside while the tree has no policy: ostree could not deploy it.

    libselinux ships the file, and many packages depend on that.
    """
    config, aside = root / "etc/selinux/config", root / layout.FACTORY / "etc/selinux/config"
    has_policy = any((root / "etc/selinux").glob("*/contexts/files/file_contexts"))
    if has_policy and aside.exists() and not config.exists():
        shutil.move(aside, config)
    elif config.exists() and not has_policy:
        aside.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(config, aside)


def remove_leftovers(root: Path) -> None:
    """Remove what makes two builds of the same packages differ."""
    for pattern in LEFTOVERS:
        # glob() does not return a dangling link for a pattern without wildcards.
        for path in sorted(root.glob(pattern)) if "*" in pattern or "[" in pattern else [root / pattern]:
            files.remove_all(path)
    machine_id = root / "etc/machine-id"
    if machine_id.exists():
        files.write_text(machine_id, "")
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
    files.write_text(path, "".join(line for record in records for line in record))


def _directories(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
