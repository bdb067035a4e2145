"""Static deltas: the difference between two commits in few files (ostree-static-delta(1))."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.system import signals
from apt_ostree.system.ostree.gi_ostree import Gio, GLib, OSTree, explained
from apt_ostree.system.ostree.repo import Repo


@dataclass(frozen=True, slots=True)
class Delta:
    """A static delta.

    bytes: that a machine downloads with it.
    objects: the bytes of the objects that a machine downloads without it.
    """

    bytes: int
    objects: int


def make(repo: Repo, old: str, new: str) -> Delta:
    """Make the static delta from a commit to another one in an archive repository.

    What GnuPG has signed is the commit, which the delta has as it is.
    """
    # Without this, new files above 4 MB, such as an initramfs, would be objects beside the parts.
    settings = {"inline-parts": GLib.Variant("b", False), "min-fallback-size": GLib.Variant("u", 0)}
    options = GLib.Variant("a{sv}", settings)
    stop = Gio.Cancellable()
    with explained(f"make the static delta from {old[:12]} to {new[:12]}"), signals.held(stop.cancel):
        flag = OSTree.StaticDeltaGenerateOpt.MAJOR
        repo.handle.static_delta_generate(flag, old, new, None, options, stop)
        objects = sum(repo.handle.query_object_storage_size(*one, None)[1] for one in _added(repo, old, new))
    return Delta(sum(file.stat().st_size for file in _directory(repo, old, new).iterdir()), objects)


def missing(repo: Repo, new: str) -> str | None:
    """Return the parent of a commit if the repository has it, and no static delta from it."""
    old = repo.parent(new)
    if not old or not repo.has_commit(old):
        return None
    with explained("list the static deltas"):
        names = repo.handle.list_static_delta_names(None)[1]
    return None if f"{old}-{new}" in names else old


def _added(repo: Repo, old: str, new: str) -> set[tuple[int, str]]:
    """Return type and checksum of the objects of a commit that another one does not have."""
    before, after = (repo.handle.traverse_commit(one, 0, None)[1] for one in (old, new))
    rows = (OSTree.object_name_deserialize(name) for name in set(after) - set(before))
    return {(kind, checksum) for checksum, kind in rows}


def _directory(repo: Repo, old: str, new: str) -> Path:
    """Return where libostree has a static delta: deltas/AA/REST-TO in base64, without its / and ="""
    names = (b64encode(bytes.fromhex(one)).decode().rstrip("=").replace("/", "_") for one in (old, new))
    name = "-".join(names)
    return Path(repo.handle.get_path().get_path()) / "deltas" / name[:2] / name[2:]
