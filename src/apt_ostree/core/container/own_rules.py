"""The rules of apt-ostree about the content of an image. Each function yields what breaks one."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from apt_ostree.core.compose import machine_state
from apt_ostree.model import account_ids as ids
from apt_ostree.model import accounts, layout, seeds, tmpfiles
from apt_ostree.model.account_ids import Ids
from apt_ostree.model.tmpfiles import Treatment
from apt_ostree.system import buildroot, dpkg_query, inside, rootstate


def account_ids(root: Path) -> Iterator[str]:
    """Yield the accounts whose id is not that of earlier trees, or another account's as well."""
    now = _ids(root)
    yield from ids.changed(now, ids.parse_record(inside.text_of(root, layout.ACCOUNT_IDS)))
    yield from sorted(ids.shared(now))


def _ids(root: Path) -> Ids:
    return ids.of_accounts(inside.text_of(root, "etc/passwd"), inside.text_of(root, "etc/group"))


def package_state(root: Path) -> Iterator[str]:
    """Yield what of the state of packages is not where it belongs."""
    if not _has_packages(root):
        yield f"/{layout.DPKG_ADMINDIR}/status is missing"
    for path, target in layout.SYSIMAGE_LINKS.items():
        link = tmpfiles.relative_link(path, target)
        if inside.exists(root, path) and inside.target_of(root, path) != link:
            yield f"/{path} is no link to /{target}"


def file_owners(root: Path) -> Iterator[str]:
    """Yield the files whose owner or group is no account of the image."""
    users = accounts.parse_passwd(inside.text_of(root, "etc/passwd"))
    groups = accounts.parse_group(inside.text_of(root, "etc/group"))
    known_users, known_groups = {0, *(user.uid for user in users)}, {0, *(group.gid for group in groups)}
    yield from rootstate.owned_by_others(root, known_users, known_groups)


def initramfs(root: Path) -> Iterator[str]:
    """Yield the kernels without an initramfs."""
    for kernel in inside.glob(root, f"{layout.KERNEL_MODULES}/*/vmlinuz"):
        directory = kernel.rpartition("/")[0]
        if not inside.is_file(root, f"{directory}/{layout.INITRAMFS}"):
            yield f"/{directory} has a kernel and no {layout.INITRAMFS}"


def machine_state_of(root: Path) -> Iterator[str]:
    """Yield what packages made for one machine."""
    if text := inside.text_of(root, machine_state.MACHINE_ID).strip():
        yield f"/{machine_state.MACHINE_ID} has an id: {text}"
    names: set[str] = set()
    if _has_packages(root):
        with dpkg_query.copied(root, layout.DPKG_ADMINDIR) as admindir:
            names = {package.name for package in dpkg_query.installed(admindir)}
    yield from (f"/{path} is of {package}" for path, package in machine_state.known(root, names))
    yield from machine_state.unknown(root, names)


def packages(root: Path) -> Iterator[str]:
    """Yield the packages whose installation or removal was begun and has not succeeded."""
    if _has_packages(root):
        with dpkg_query.copied(root, layout.DPKG_ADMINDIR) as admindir:
            found = dpkg_query.unfinished(admindir)
        yield from (f"{package.name} is {state}" for package, state in found)


def _has_packages(root: Path) -> bool:
    return inside.is_file(root, f"{layout.DPKG_ADMINDIR}/status")  # else package_state says so


def seeds_of_var(root: Path) -> Iterator[str]:
    """Yield the files below /var that machines are not given, as no seed has them."""
    given = seeds.parse(inside.text_of(root, layout.SEEDS) or "{}")
    paths = {seed.path(file) for seed in given.values() for file in seed.files}
    for path, info in rootstate.of_image(root, "var"):
        is_kept = tmpfiles.treatment(path) is Treatment.KEEP
        if is_kept and stat.S_ISREG(info.st_mode) and f"/{path}" not in paths:
            yield f"/{path}"


def top_level(root: Path) -> Iterator[str]:
    """Yield what is in the root directory beside what a tree has there."""
    mounted = rootstate.mounted_below(root)
    yield from (f"/{name}" for name in buildroot.unexpected_top_level(root) if name not in mounted)
