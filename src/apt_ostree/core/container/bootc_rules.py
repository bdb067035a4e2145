"""The rules of `bootc container lint`. Each function yields what breaks one (crates/lib/src/lints.rs).

What is mounted in a container is not in its image, and breaks no rule.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator
from configparser import ConfigParser
from configparser import Error as ConfigError
from pathlib import Path

from apt_ostree.model import accounts, layout, tmpfiles
from apt_ostree.system import inside, rootstate

#: https://systemd.io/API_FILE_SYSTEMS/, and /var.
_API_DIRECTORIES = ("dev", "proc", "run", "sys", "tmp", "var")
_LINK = ("ostree", "sysroot/ostree")
_KARGS = "usr/lib/bootc/kargs.d"
#: Keys of a file there -> whether it has to be there; each is a list of strings.
_KARGS_KEYS = {"kargs": True, "match-architectures": False}
_PREPARE_ROOT = "usr/lib/ostree/prepare-root.conf"
#: Values of `enabled` in [composefs] with which a machine may use it (ostree-prepare-root(1)).
_ENABLED = ("1", "maybe", "signed", "true", "verity", "yes")
_INJECTED = ("etc/hostname", "etc/resolv.conf")
#: podman makes it for the time of a build, and does not always remove it.
_BUILDERS = "run/systemd/resolve/stub-resolv.conf"


def api_directories(root: Path) -> Iterator[str]:
    """Yield the directories for kernel interfaces and state that are missing, or something else."""
    for name in _API_DIRECTORIES:
        if (root / name).is_symlink() or not (root / name).is_dir():
            yield f"/{name} is no directory"


def root(root: Path) -> Iterator[str]:
    """Yield what ostree needs in the root directory and is not there."""
    if (root / "sysroot").is_symlink() or not (root / "sysroot").is_dir():
        yield "/sysroot is no directory"
    name, target = _LINK
    if not (root / name).is_symlink() or str((root / name).readlink()) != target:
        yield f"/{name} is no link to {target}"


def kernel_arguments(root: Path) -> Iterator[str]:
    """Yield the files with kernel arguments that bootc cannot read."""
    if inside.exists(root, _KARGS) and not inside.is_directory(root, _KARGS):
        yield f"/{_KARGS} is no directory"
    for path in inside.glob(root, f"{_KARGS}/*.toml"):
        yield from (f"/{path}: {mistake}" for mistake in _mistakes(root, path))


def _mistakes(root: Path, path: str) -> Iterator[str]:
    try:
        found = tomllib.loads(inside.read(root, path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        yield str(error)
        return
    yield from (f"unknown key {key}" for key in found if key not in _KARGS_KEYS)
    for key, is_needed in _KARGS_KEYS.items():
        value = found.get(key, None if is_needed else [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            yield f"{key} is not a list of strings"


def usr_etc(root: Path) -> Iterator[str]:
    """Yield /usr/etc, which has another meaning beside /etc."""
    if inside.exists(root, "etc") and inside.exists(root, "usr/etc"):
        yield "/usr/etc is beside /etc, of which a deployment makes it"


def kernels(root: Path) -> Iterator[str]:
    """Yield the kernels, if there are several: a deployment boots an arbitrary one."""
    found = inside.glob(root, f"{layout.KERNEL_MODULES}/*/vmlinuz")
    if len(found) > 1:
        yield from (f"/{path}" for path in found)


def names(root: Path) -> Iterator[str]:
    """Yield paths that are not UTF-8, and links whose target is not."""
    for path, info in rootstate.of_image(root):
        if not _is_utf8(path):
            yield f"/{_shown(path)}"
        elif stat.S_ISLNK(info.st_mode) and not _is_utf8(target := str((root / path).readlink())):
            yield f"/{path} is a link to {_shown(target)}"


def _is_utf8(text: str) -> bool:
    return _shown(text) == text


def _shown(text: str) -> str:
    return os.fsencode(text).decode(errors="backslashreplace")


def var_run(root: Path) -> Iterator[str]:
    """Yield /var/run, if it is something else than a link."""
    if inside.exists(root, "var/run") and inside.target_of(root, "var/run") is None:
        yield "/var/run is no link"


def composefs(root: Path) -> Iterator[str]:
    """Yield why a machine would not use composefs."""
    text = inside.text_of(root, _PREPARE_ROOT)
    config = ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    try:
        config.read_string(text)
    except ConfigError as error:
        yield f"/{_PREPARE_ROOT}: {error.message}"
        return
    enabled = config.get("composefs", "enabled", fallback="")
    if enabled not in _ENABLED and config.get("root", "transient", fallback="") not in _ENABLED:
        yield f"/{_PREPARE_ROOT} does not have 'enabled=maybe' in [composefs]"


def injected_files(root: Path) -> Iterator[str]:
    """Yield the empty files that builders of containers leave where they had mounted their own."""
    mounted = rootstate.mounted_below(root)
    for name in _INJECTED:
        found = inside.info(root, name) if inside.target_of(root, name) is None else None
        if name not in mounted and found and stat.S_ISREG(found.st_mode) and not found.st_size:
            yield f"/{name} is empty"


def boot(root: Path) -> Iterator[str]:
    """Yield what is in /boot, or that it is missing."""
    if not inside.is_directory(root, "boot"):
        yield "/boot is no directory"
    yield from _held(root, "boot")


def run_and_tmp(root: Path) -> Iterator[str]:
    """Yield what is in directories that a machine has in memory."""
    yield from (path for name in ("run", "tmp") for path in _held(root, name) if path != f"/{_BUILDERS}")


def _held(root: Path, top: str) -> Iterator[str]:
    """Yield the files and empty directories below a directory."""
    found = dict(rootstate.of_image(root, top))
    parents = {path.rpartition("/")[0] for path in (*found, *rootstate.mounted_below(root))}
    above = {str(parent) for path in parents for parent in Path(path).parents} | parents
    yield from (f"/{path}" for path in found if path not in above)


def accounts_described(root: Path) -> Iterator[str]:
    """Yield the accounts that no line of sysusers.d makes, on a machine with an /etc of its own."""
    texts = [inside.text_of(root, path) for path in inside.glob(root, "usr/lib/sysusers.d/*.conf")]
    users, groups = accounts.described_accounts("\n".join(texts))
    present = accounts.parse_passwd(inside.text_of(root, "etc/passwd"))
    yield from (f"the user {user.name}" for user in present if user.name not in users)
    present_groups = accounts.parse_group(inside.text_of(root, "etc/group"))
    yield from (f"the group {group.name}" for group in present_groups if group.name not in groups)


def logs(root: Path) -> Iterator[str]:
    """Yield the log files that are not empty."""
    for path, info in rootstate.of_image(root, "var/log"):
        if stat.S_ISREG(info.st_mode) and info.st_size:
            yield f"/{path}"


def var(root: Path) -> Iterator[str]:
    """Yield what is below /var and would be on a machine by chance: what no line of tmpfiles.d makes."""
    paths = (path for place in ("etc", "usr/lib") for path in inside.glob(root, f"{place}/tmpfiles.d/*.conf"))
    made = {path for conf in paths for path in tmpfiles.described(inside.text_of(root, conf))}
    for path, info in rootstate.of_image(root, "var"):
        if not (stat.S_ISDIR(info.st_mode) or stat.S_ISLNK(info.st_mode)):
            yield f"/{path} is no directory and no link"
        elif f"/{path}" not in made:
            yield f"/{path}"
