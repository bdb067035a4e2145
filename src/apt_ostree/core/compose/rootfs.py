"""The steps of a compose that turn a directory with Debian packages into a tree.

Each function does one step on the root directory. `core.compose.postprocess` calls them in order.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from apt_ostree.errors import ExternalFailure, UsageError
from apt_ostree.model import keystore, layout, tmpfiles
from apt_ostree.model.treefile import AddFile, Script, Treefile, Units
from apt_ostree.system import buildroot, dracut
from apt_ostree.system.confined import RunInRoot

#: Files that mmdebstrap copied from the build machine.
HOST_FILES = ("etc/hostname", "etc/resolv.conf")
#: The entries of layout.SYSIMAGE_LINKS that are files; all others are directories.
_STATE_FILES = frozenset({"var/lib/apt/extended_states"})
_KEY_STORE = "etc/ssl/certs/java/cacerts"
_SCRIPT = "var/tmp/apt-ostree-postprocess"


def move_state(root: Path) -> None:
    """Move the state that describes /usr into the tree and make links, as on the running system."""
    for path, target in layout.SYSIMAGE_LINKS.items():
        source, destination = root / path, root / target
        if source.is_symlink():
            continue
        destination.parent.mkdir(parents=True, exist_ok=True)
        if source.exists():
            shutil.move(source, destination)
        elif path in _STATE_FILES:
            destination.touch()
        else:
            destination.mkdir(mode=0o755, exist_ok=True)
        source.parent.mkdir(parents=True, exist_ok=True)
        source.symlink_to(tmpfiles.relative_link(path, target))


def drop_host_files(root: Path) -> None:
    """Remove the files that were copied from the build machine."""
    for name in HOST_FILES:
        (root / name).unlink(missing_ok=True)


def copy_keyrings(root: Path, keyrings: Sequence[Path]) -> None:
    """Copy keyrings into the tree and refer to the copies in its sources."""
    for keyring in keyrings:
        name = f"/etc/apt/keyrings/{keyring.name}"
        (root / name[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(keyring, root / name[1:])
        (root / name[1:]).chmod(0o644)
        for sources in (root / "etc/apt").glob("sources.list*"):
            for path in sorted(sources.iterdir()) if sources.is_dir() else [sources]:
                path.write_text(path.read_text().replace(str(keyring.absolute()), name))


def add_files(root: Path, files: Sequence[AddFile]) -> None:
    """Copy files and directories into the tree, owned by root, with modes that do not depend on the umask."""
    for item in files:
        source = Path(item.path)
        target = inside(root, item.dest)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            _copy_directory(source, target)
        else:
            _copy_file(source, target)
        if item.mode is not None:
            target.chmod(item.mode)


def inside(root: Path, path: str) -> Path:
    """Return the location of an absolute path of the tree; links are followed as inside the tree.

    Raises UsageError for too many links.
    """
    parts = [part for part in path.split("/") if part][::-1]
    resolved: list[str] = []
    for _ in range(256):
        if not parts:
            return root.joinpath(*resolved)
        part = parts.pop()
        if part == "..":
            resolved = resolved[:-1]
            continue
        entry = root.joinpath(*resolved, part)
        if parts and entry.is_symlink():
            target = str(entry.readlink())
            resolved = [] if target.startswith("/") else resolved
            parts += [word for word in target.split("/") if word not in {"", "."}][::-1]
        else:
            resolved.append(part)
    raise UsageError(f"{path}: too many links in the tree")


def set_units(units: Units, run_in_root: RunInRoot) -> None:
    """Enable, disable and mask units; raise ExternalFailure if systemctl fails."""
    for verb, names in (("enable", units.enable), ("disable", units.disable), ("mask", units.mask)):
        if names:
            run_in_root(["systemctl", "--root=/", verb, *names], f"{verb} units of the tree")


def set_default_target(target: str | None, run_in_root: RunInRoot) -> None:
    """Set the target that the system boots into, if one is wanted; raise ExternalFailure if that fails."""
    if target:
        run_in_root(["systemctl", "--root=/", "set-default", target], "set the default target of the tree")


def remove_files(root: Path, paths: Sequence[str]) -> None:
    """Remove files and directories from the tree; raise UsageError for one that is not there."""
    for path in paths:
        target = inside(root, path)
        if target == root or not os.path.lexists(target):
            raise UsageError(
                f"remove-files: {path} is not in the tree",
                hint="the path may have changed; correct the treefile",
            )
        _remove(target)


def run_scripts(root: Path, scripts: Sequence[Script], run_in_root: RunInRoot) -> None:
    """Run the treefile's scripts inside the tree, in order; raise ExternalFailure if one fails."""
    copy = root / _SCRIPT
    for number, script in enumerate(scripts, 1):
        name = script.file or f"inline script {number}"
        copy.write_text(script_text(script))
        copy.chmod(0o755)
        run_in_root([f"/{_SCRIPT}"], f"run the postprocess {name}")
        copy.unlink()


def script_text(script: Script) -> str:
    """Return the text of a script; an inline script without `#!` runs in sh and stops at the first error."""
    if script.path is not None:
        return Path(script.path).read_text()
    text = script.inline or ""
    return text if text.startswith("#!") else f"#!/bin/sh\nset -eu\n{text}"


def write_boot_configuration(root: Path, tree: Treefile) -> None:
    """Write the arguments of dracut and of the kernel that the treefile sets."""
    arguments = dracut.arguments_of(tree.dracut)
    if arguments:
        _write(root / layout.DRACUT_ARGUMENTS, "".join(f"{word}\n" for word in arguments))
    if tree.kernel_arguments:
        # A JSON list of strings is a TOML list of strings too.
        text = json.dumps(list(tree.kernel_arguments))
        _write(root / layout.KERNEL_ARGUMENTS, f"kargs = {text}\n")


def move_linked_directories(root: Path) -> None:
    """Move the content of directories that are links in a tree (/root, /usr/local, ...) to their targets."""
    for name, target in layout.TOP_LINKS.items():
        source = root / name
        if not target.startswith("var/") or source.is_symlink() or not source.is_dir():
            continue
        _move_content(source, root / target)
    path, target = layout.USR_LOCAL
    local = root / path
    if not local.is_symlink():
        if local.is_dir():
            _move_content(local, local.parent / target)
            local.rmdir()
        local.symlink_to(target)


def _move_content(source: Path, destination: Path) -> None:
    destination.mkdir(parents=True, exist_ok=True)
    for entry in sorted(source.iterdir()):
        shutil.move(entry, destination / entry.name)


def drop_dates(root: Path) -> None:
    """Remove the build's dates from Java's store of certificates."""
    store = root / _KEY_STORE
    if store.is_file() and not store.is_symlink():
        content = store.read_bytes()
        if (undated := keystore.without_dates(content)) != content:
            store.write_bytes(undated)


def make_top_level(root: Path) -> None:
    """Give the root directory the top level of a tree: /usr/etc, empty mount points, links.

    Empty directories of packages stay. Raises ExternalFailure if they made anything else at the top level.
    """
    for name in buildroot.unexpected_top_level(root):
        if not (root / name).resolve().is_relative_to(root / "usr"):  # such as libx32
            raise ExternalFailure(
                f"the packages made /{name}, which a tree cannot contain",
                hint="move it below /usr or remove it in a postprocess script",
            )
    for name in (*layout.TOP_DIRECTORIES, *layout.TOP_LINKS):
        if os.path.lexists(root / name):
            _remove(root / name)
    for name, mode in layout.TOP_DIRECTORIES.items():
        (root / name).mkdir()
        (root / name).chmod(mode)
    for name, target in layout.TOP_LINKS.items():
        (root / name).symlink_to(target)
    (root / "etc").rename(root / "usr/etc")


def kernel_of(root: Path) -> str | None:
    """Return the version of the kernel in the finished tree, which has no other, or None."""
    return next((path.parent.name for path in (root / layout.KERNEL_MODULES).glob("*/vmlinuz")), None)


def read_releases(lists: Path) -> dict[str, str]:
    """Return the text of the Release files among apt's package lists, by their names."""
    return {path.name: path.read_text(errors="replace") for path in sorted(lists.glob("*Release"))}


def fingerprint_inputs(tree: Treefile) -> Mapping[str, str]:
    """Return the text or SHA-256 of each file and script that a treefile uses, by its key."""
    inputs = {f"postprocess[{n}]": script_text(script) for n, script in enumerate(tree.postprocess)}
    for archive in tree.archives:
        if archive.keyring:
            inputs[f"signed-by:{archive.signed_by}"] = hashlib.sha256(
                Path(archive.keyring).read_bytes()
            ).hexdigest()
    if tree.ids_file:
        inputs["account-ids"] = Path(tree.ids_file).read_text()
    for item in tree.add_files:
        source = Path(item.path)
        for path in [source, *sorted(source.rglob("*"))] if source.is_dir() else [source]:
            if path.is_symlink():
                inputs[f"{item.dest}:{path.relative_to(source)}"] = f"link {path.readlink()}"
            elif path.is_file():
                executable = bool(path.stat().st_mode & 0o111)
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                inputs[f"{item.dest}:{path.relative_to(source)}"] = f"{digest} {executable}"
    return inputs


def _copy_directory(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    target.chmod(0o755)
    for entry in sorted(source.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            _copy_directory(entry, target / entry.name)
        else:
            _copy_file(entry, target / entry.name)


def _copy_file(source: Path, target: Path) -> None:
    if target.is_symlink() or target.exists():
        target.unlink()
    shutil.copyfile(source, target, follow_symlinks=False)
    if not target.is_symlink():
        target.chmod(0o755 if source.stat().st_mode & 0o111 else 0o644)
    os.chown(target, 0, 0, follow_symlinks=False)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
