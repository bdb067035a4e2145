"""Layers: commits whose root is an overlayfs lower directory for /usr, and their checkouts.

A layer holds what turns one tree into another: new and changed files (by reference, no content is copied),
whiteouts for removed ones, and the new tree's directory metadata. A checked-out layer is immutable: it is
made of hardlinks into the repository and may be mounted.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from apt_ostree.model.treediff import DirDiff
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree.gi_ostree import Gio, GLib, OSTree, explained
from apt_ostree.system.ostree.repo import Repo

#: ostree checks a file with this prefix out as an overlayfs whiteout (ostree-repo-checkout.c).
WHITEOUT_PREFIX = ".ostree-wh."


def write_layer(repo: Repo, diff: DirDiff, *, subject: str) -> str:
    """Write the layer of a difference and return its commit."""
    with repo.transaction():
        whiteout = write_whiteout(repo)
        mtree = OSTree.MutableTree.new()
        _fill(repo, mtree, diff, whiteout)
        with explained("write a layer"):
            _ok, root = repo.handle.write_mtree(mtree, None)
        return repo.write_commit(root, parent=None, subject=subject, metadata={}, timestamp=0)


def check_out(repo: Repo, layer: str, layers_dir: Path) -> Path:
    """Check a layer out below `layers_dir` and return its directory; a complete checkout is reused."""
    target = layers_dir / layer
    if target.is_dir():
        return target
    layers_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = layers_dir / f"{layer}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        repo.checkout(layer, layers_dir, partial.name)
        failpoint("layer.checked-out")
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return target


def remove_checkouts(layers_dir: Path, keep: frozenset[str]) -> None:
    """Remove the checked-out layers whose commits are not in `keep`."""
    if not layers_dir.is_dir():
        return
    for entry in os.scandir(layers_dir):
        if entry.name not in keep:
            shutil.rmtree(entry.path)


def _fill(repo: Repo, mtree: OSTree.MutableTree, diff: DirDiff, whiteout: str) -> None:
    assert diff.new is not None
    mtree.set_metadata_checksum(diff.new[1])
    present = {d.name for d in diff.dirs if d.new} | {f.name for f in diff.files if f.new}
    for entry in diff.files:
        if entry.new:
            _replace(mtree, entry.name, entry.new)
        elif entry.name not in present:
            _replace(mtree, WHITEOUT_PREFIX + entry.name, whiteout)
    for directory in diff.dirs:
        if directory.new is None:
            if directory.name not in present:
                _replace(mtree, WHITEOUT_PREFIX + directory.name, whiteout)
            continue
        _ok, child = mtree.ensure_dir(directory.name)
        if directory.old is None:
            contents, metadata = directory.new
            child.set_metadata_checksum(metadata)
            if not child.fill_empty_from_dirtree(repo.handle, contents, metadata):
                raise RuntimeError(f"directory {directory.name!r} of a layer was not empty")
        else:
            _fill(repo, child, directory, whiteout)


def _replace(mtree: OSTree.MutableTree, name: str, checksum: str) -> None:
    with explained(f"add {name!r} to a layer"):
        mtree.replace_file(name, checksum)


def write_whiteout(repo: Repo) -> str:
    """Write the file object of whiteout markers, inside a transaction; return its checksum."""
    info = Gio.FileInfo.new()
    info.set_file_type(Gio.FileType.REGULAR)
    info.set_size(0)
    for key, value in (("unix::uid", 0), ("unix::gid", 0), ("unix::mode", 0o100644)):
        info.set_attribute_uint32(key, value)
    empty = Gio.MemoryInputStream.new_from_bytes(GLib.Bytes.new(b""))
    with explained("write a whiteout"):
        _ok, stream, length = OSTree.raw_file_to_content_stream(empty, info, None, None)
        _ok, checksum = repo.handle.write_content(None, stream, length, None)
    return str(OSTree.checksum_from_bytes(checksum) if isinstance(checksum, bytes | list) else checksum)
