"""Writes single objects, files and directories' metadata, into the repository."""

from __future__ import annotations

from typing import Any

from apt_ostree.model.filestate import FileState
from apt_ostree.system.ostree import damage
from apt_ostree.system.ostree.gi_ostree import Gio, GLib, OSTree, explained
from apt_ostree.system.ostree.repo import Repo


def write(repo: Repo, state: FileState) -> str:
    """Write a file, a link or the metadata of a directory, inside a transaction; return its checksum."""
    if state.type == "directory":
        return _write_directory(repo, state)
    checksum = _write_file(repo, state)
    if repo.inode(checksum) and not damage.is_sound(repo, f"{checksum}.file"):
        # The object existed before the transaction, and libostree would reuse it although it is damaged.
        damage.discard(repo, [f"{checksum}.file"])
        _write_file(repo, state)
    return checksum


def _write_file(repo: Repo, state: FileState) -> str:
    info = _info(state)
    content = b"" if state.type == "symlink" else state.content
    stream = Gio.MemoryInputStream.new_from_bytes(GLib.Bytes.new(content))
    with explained("write a file into the repository"):
        _ok, raw, length = OSTree.raw_file_to_content_stream(stream, info, xattrs_of(state), None)
        _ok, checksum = repo.handle.write_content(None, raw, length, None)
    return str(OSTree.checksum_from_bytes(checksum))


def _write_directory(repo: Repo, state: FileState) -> str:
    with explained("write a directory into the repository"):
        variant = OSTree.create_directory_metadata(_info(state), xattrs_of(state))
        _ok, checksum = repo.handle.write_metadata(OSTree.ObjectType.DIR_META, None, variant, None)
    return str(OSTree.checksum_from_bytes(checksum))


def _info(state: FileState) -> Any:
    kinds = {"file": (Gio.FileType.REGULAR, 0o100000), "directory": (Gio.FileType.DIRECTORY, 0o040000),
             "symlink": (Gio.FileType.SYMBOLIC_LINK, 0o120000)}  # fmt: skip
    kind, bits = kinds[state.type]
    info = Gio.FileInfo.new()
    info.set_file_type(kind)
    info.set_size(len(state.content) if state.type == "file" else 0)
    if state.type == "symlink":
        info.set_symlink_target(state.content.decode(errors="surrogateescape"))
    for key, value in (("uid", state.uid), ("gid", state.gid), ("mode", bits | state.mode)):
        info.set_attribute_uint32(f"unix::{key}", value)
    return info


def xattrs_of(state: FileState) -> Any:
    """Return the variant of the extended attributes of a state; None without any."""
    rows = [(name.encode() + b"\0", value) for name, value in state.xattrs]
    return GLib.Variant("a(ayay)", rows) if rows else None
