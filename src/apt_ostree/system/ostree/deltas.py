"""Static deltas: the difference between two commits in few files (ostree-static-delta(1))."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection
from pathlib import Path

from apt_ostree.model.publication import Pair, Sizes
from apt_ostree.system import files, signals
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree.gi_ostree import Gio, GLib, OSTree, explained
from apt_ostree.system.ostree.repo import Repo

#: Which static deltas lead to a commit: a file for each of these.
_INDEXES = "delta-indexes"


def make(repo: Repo, old: str, new: str) -> Sizes:
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
    return Sizes(sum(file.stat().st_size for file in _directory(repo, old, new).iterdir()), objects)


def missing(repo: Repo, new: str) -> str | None:
    """Return the parent of a commit if the repository has it, and no static delta from it."""
    old = repo.parent(new)
    if not old or not repo.has_commit(old):
        return None
    return None if (old, new) in pairs(repo) else old


def pairs(repo: Repo) -> frozenset[Pair]:
    """Return (from, to) of each static delta; those from nothing are left out."""
    with explained("list the static deltas"):
        names = repo.handle.list_static_delta_names(None)[1]
    return frozenset((old, new) for old, dash, new in (name.partition("-") for name in names) if dash)


def remove(repo: Repo, old: str, new: str) -> None:
    """Remove a static delta, if there is one."""
    files.remove_all(_directory(repo, old, new))


def keep_only(repo: Repo, kept: Collection[Pair]) -> None:
    """Remove all other static deltas, and what a killed program has left of them."""
    top = _path(repo)
    directories = {top / directory_of(old, new) for old, new in kept}
    indexes = {top / _INDEXES / f"{_name(new)[:2]}/{_name(new)[2:]}.index" for _old, new in kept}
    for found, wanted in (("deltas", directories), (_INDEXES, indexes)):
        for path in (top / found).glob("*/*"):
            if path not in wanted:
                files.remove_all(path)
                failpoint("deltas.removed")


def copy_indexes(source: Path, repo: Repo) -> None:
    """Take over the indexes of static deltas that libostree has made in the repository at `source`."""
    for path in (source / _INDEXES).glob("*/*"):
        target = _path(repo) / _INDEXES / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


def _added(repo: Repo, old: str, new: str) -> set[tuple[int, str]]:
    """Return type and checksum of the objects of a commit that another one does not have."""
    before, after = (repo.handle.traverse_commit(one, 0, None)[1] for one in (old, new))
    rows = (OSTree.object_name_deserialize(name) for name in set(after) - set(before))
    return {(kind, checksum) for checksum, kind in rows}


def _directory(repo: Repo, old: str, new: str) -> Path:
    return _path(repo) / directory_of(old, new)


def directory_of(old: str, new: str) -> Path:
    """Return where in a repository libostree has a static delta: deltas/AA/REST-TO."""
    name = f"{_name(old)}-{_name(new)}"
    return Path("deltas", name[:2], name[2:])


def _name(checksum: str) -> str:
    """Return a checksum as it is in names of deltas: in base64, without its / and ="""
    return b64encode(bytes.fromhex(checksum)).decode().rstrip("=").replace("/", "_")


def _path(repo: Repo) -> Path:
    return Path(repo.handle.get_path().get_path())
