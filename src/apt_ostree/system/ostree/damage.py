"""Damage of commits: finds objects that are missing or do not match their checksums, and replaces them.

Objects are named CHECKSUM.KIND. `replace` removes an object only if there is a sound one to replace it with.
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
    """Return the names of the objects of a commit that are missing or damaged, sorted.

    What lies below a damaged directory is not checked.

    verdicts: object name -> whether the object is sound; a cache for several calls.
    apart_from: objects that are not checked, nor what lies below them.
    """
    seen = set(apart_from)
    damaged: list[str] = []

    def check(checksum: str, kind: Any) -> bool:
        name = _name(checksum, kind)
        if name in seen:
            return False
        seen.add(name)
        if name not in verdicts:
            verdicts[name] = is_sound(repo, name)
        if not verdicts[name]:
            damaged.append(name)
        return verdicts[name]

    def check_directory(contents: str, metadata: str) -> None:
        check(metadata, _META)
        if check(contents, _TREE):
            files, directories = diff.read_dirtree(repo, contents)
            for checksum in files.values():
                check(checksum, _FILE)
            for below in directories.values():
                check_directory(*below)

    if check(commit, _COMMIT):
        check_directory(*repo.tree_checksums(commit))
    return sorted(damaged)


def is_sound(repo: Repo, name: str) -> bool:
    """Return whether an object exists and matches its checksum."""
    checksum, kind = _parts(name)
    try:
        return bool(repo.handle.fsck_object(kind, checksum, None))
    except GLib.Error:
        return False


def names(repo: Repo, commit: str) -> set[str]:
    """Return the names of all objects of a commit, sound or not."""
    with explained(f"list the objects of commit {commit[:12]}"):
        _ok, objects = repo.handle.traverse_commit(commit, 0, None)
    return {_name(*OSTree.object_name_deserialize(one)) for one in objects}


def replace(repo: Repo, source: Repo, damaged: Iterable[str]) -> set[str]:
    """Replace damaged objects by the sound ones of another repository; return the names of those replaced."""
    replaced = set()
    for name in damaged:
        checksum, kind = _parts(name)
        if is_sound(source, name):
            discard(repo, [name])
            with explained(f"copy the object {name[:12]}"):
                repo.handle.import_object_from_with_trust(source.handle, kind, checksum, False, None)
            replaced.add(name)
    return replaced


def discard(repo: Repo, damaged: Iterable[str]) -> None:
    """Remove those of the objects that exist, so that they can be written again."""
    repo.dirtrees.clear()
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
