"""The boot files of deployments, and the space for them on /boot. Only reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from apt_ostree.model import layout
from apt_ostree.model.bootspace import BootDirectory, BootSpace, by_directory
from apt_ostree.system import space
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.gi_ostree import OSTree
from apt_ostree.system.ostree.repo import Repo
from apt_ostree.system.ostree.sysroot import Sysroot

#: What ostree copies from the directory of a kernel's modules; of a directory, all that is in it.
_FILES = ("vmlinuz", ".vmlinuz.hmac", "initramfs.img", "initramfs", "devicetree", "aboot.img")
_DIRECTORIES = ("dtb",)


def read(sysroot: Sysroot, commit: str, osname: str) -> BootSpace:
    """Return the space on /boot, and what the deployment of a commit would need there."""
    boot, repo, deployments = Path(sysroot.path, "boot"), sysroot.repo, sysroot.deployments()
    block = os.statvfs(boot).f_frsize
    new = boot_files(repo, commit)
    present = [
        boot_files(repo, deployment.checksum)
        for deployment in deployments.all
        if not deployment.staged and deployment.osname == osname
    ]
    is_there = _share_file_system(boot, sysroot.state_dir.parent) or new in present
    needed = 0 if is_there else sum(_rounded(repo.size(checksum), block) for checksum in new.values())
    directories = (path for path in sorted((boot / "ostree").glob("*")) if path.is_dir())
    return BootSpace(
        needed,
        space.of(boot).unused,
        tuple(
            BootDirectory(str(path), _size(path, block), by_directory(deployments.all, str(path)))
            for path in directories
        ),
        osname,
        removes_first=deployments.booted is not None and OSTree.check_version(2023, 7),
    )


def boot_files(repo: Repo, commit: str) -> dict[str, str]:
    """Return the names of a commit's boot files with their objects; of several kernels, those of one."""
    modules = diff.directory_of(repo, commit, layout.KERNEL_MODULES)
    kernels = diff.read_dirtree(repo, modules[0])[1] if modules else {}
    for contents, _metadata in kernels.values():
        files, directories = diff.read_dirtree(repo, contents)
        if "vmlinuz" in files:
            boot_files = {name: files[name] for name in _FILES if name in files}
            for name in _DIRECTORIES:
                if name in directories:
                    boot_files |= _below(repo, directories[name][0], name)
            return boot_files
    return {}


def _below(repo: Repo, contents: str, top: str) -> dict[str, str]:
    files, directories = diff.read_dirtree(repo, contents)
    boot_files = {f"{top}/{name}": checksum for name, checksum in files.items()}
    for name, (inner, _metadata) in directories.items():
        boot_files |= _below(repo, inner, f"{top}/{name}")
    return boot_files


def _share_file_system(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def _size(directory: Path, block: int) -> int:
    return sum(_rounded(size, block) for size in _sizes(directory))


def _sizes(directory: Path) -> Iterator[int]:
    for top, _names, entries in os.walk(directory):
        for entry in entries:
            yield Path(top, entry).lstat().st_size


def _rounded(size: int, block: int) -> int:
    return -(-size // block) * block
