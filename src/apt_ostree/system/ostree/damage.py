"""Damage of commits: finds objects that are missing or are not what their checksums say, and replaces them.

Objects go by their names, CHECKSUM.KIND. Nothing is removed for which there is no better one, unless the
caller says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.gi_ostree import GLib, OSTree, explained
from apt_ostree.system.ostree.repo import Repo

_COMMIT, _TREE, _META = OSTree.ObjectType.COMMIT, OSTree.ObjectType.DIR_TREE, OSTree.ObjectType.DIR_META
_FILE = OSTree.ObjectType.FILE


def broken(
    repo: Repo, commit: str, verdicts: dict[str, bool], *, apart_from: Collection[str] = ()
) -> list[str]:
    """Return the objects of a commit that are missing or damaged.

    What lies below a damaged directory is not found. verdicts: which objects are sound, for several calls to
    share; apart_from: objects that are not looked at, nor what lies below them.
    """
    seen = set(apart_from)
    found: list[str] = []

    def goes_on(checksum: str, kind: Any) -> bool:
        name = _name(checksum, kind)
        if name in seen:
            return False
        seen.add(name)
        if name not in verdicts:
            verdicts[name] = is_sound(repo, name)
        if not verdicts[name]:
            found.append(name)
        return verdicts[name]

    def look(contents: str, metadata: str) -> None:
        goes_on(metadata, _META)
        if goes_on(contents, _TREE):
            files, directories = diff.read_tree(repo, contents)
            for checksum in files.values():
                goes_on(checksum, _FILE)
            for below in directories.values():
                look(*below)

    if goes_on(commit, _COMMIT):
        look(*repo.tree_checksums(commit))
    return sorted(found)


def is_sound(repo: Repo, name: str) -> bool:
    """Tell whether an object is here and is what its checksum says."""
    checksum, kind = _parts(name)
    try:
        return bool(repo.handle.fsck_object(kind, checksum, None))
    except GLib.Error:
        return False


def names(repo: Repo, commit: str) -> set[str]:
    """Return the objects of a commit, whether they are sound or not."""
    with explained(f"list the objects of commit {commit[:12]}"):
        _ok, objects = repo.handle.traverse_commit(commit, 0, None)
    return {_name(*OSTree.object_name_deserialize(one)) for one in objects}


def replace(repo: Repo, source: Repo, damaged: Iterable[str]) -> set[str]:
    """Replace damaged objects by those of another repository, where they are sound; return which."""
    found = set()
    for name in damaged:
        checksum, kind = _parts(name)
        if is_sound(source, name):
            discard(repo, [name])
            with explained(f"copy the object {name[:12]}"):
                repo.handle.import_object_from_with_trust(source.handle, kind, checksum, False, None)
            found.add(name)
    return found


def discard(repo: Repo, damaged: Iterable[str]) -> None:
    """Remove objects, as far as they are there, so that they can be written again."""
    repo.trees.clear()
    for name in damaged:
        checksum, kind = _parts(name)
        with explained(f"look for the object {name[:12]}"):
            _ok, is_here = repo.handle.has_object(kind, checksum, None)
        if is_here:
            with explained(f"remove the object {name[:12]}"):
                repo.handle.delete_object(kind, checksum, None)


def _name(checksum: str, kind: Any) -> str:
    return f"{checksum}.{OSTree.object_type_to_string(kind)}"


def _parts(name: str) -> tuple[str, Any]:
    checksum, _, kind = name.partition(".")
    return checksum, OSTree.object_type_from_string(kind)
