"""Gives the seeds of the tree that /usr shows to the machine's /var."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from apt_ostree.errors import AptOstreeError
from apt_ostree.model import layout, seeds
from apt_ostree.model.events import Message, Report
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.seeds import Given, Seed
from apt_ostree.system import files, mounts, statedb, var_state
from apt_ostree.system.failpoints import failpoint

#: The seeds that this machine was given, also those of earlier trees.
RECORD = "seeds-given.json"
#: The manifest of the tree of which the machine has all. apt-ostree-state.service compares it.
DONE = "seeds.json"
#: The places of the seeds that are being given. If it is there later, copies may be left beside them.
_PLACING = "seeds-placing.json"
_ROOT = Path("/")


def give(report: Report) -> bool:
    """Give the machine what it has not yet of the tree that /usr shows; return whether that was anything.

    What is at the place of a seed already stays. Raises ExternalFailure if something cannot be written.
    """
    with mounts.in_namespace_of(1):
        return give_here(report)


def give_here(report: Report) -> bool:
    """Do what `give` does in the root directory of this process, with the tree of its /usr."""
    _discard_leftovers()
    manifest = _read(_ROOT / layout.SEEDS)
    given, tree = _read_record(report), seeds.parse(manifest)
    changes = seeds.give(tree, given)
    changed = changes.record != given
    if changed:
        _place(report, changes, tree)
        _follow(changes)
    failpoint("seeds.before-record")
    record = seeds.format_seeds(changes.record)
    state = ((RECORD, record), (DONE, manifest))
    files.write_states([(statedb.DIRECTORY / name, _private(text)) for name, text in state])
    return changed


def discard_leftovers() -> None:
    """Remove what a `give` that was cut short left beside the places of seeds; OSError if that fails."""
    with mounts.in_namespace_of(1):
        _discard_leftovers()


def _discard_leftovers() -> None:
    record = statedb.DIRECTORY / _PLACING
    with contextlib.suppress(FileNotFoundError, ValueError):
        for top in json.loads(record.read_text()):
            var_state.discard_leftovers(Path(top))
        record.unlink()


def _read_record(report: Report) -> dict[str, Seed]:
    try:
        return seeds.parse(_read(statedb.DIRECTORY / RECORD))
    except AptOstreeError as error:  # what is on the machine stays in any case
        report(Message(f"{RECORD}: {error.message}; it is written again", "warning"))
        return {}


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except FileNotFoundError:
        return "{}"


def _private(text: str) -> FileState:
    return FileState("file", 0o600, 0, 0, text.encode(errors="surrogateescape"))


def _place(report: Report, changes: Given, tree: dict[str, Seed]) -> None:
    """Copy seeds to vacant places; the places are recorded meanwhile, for `discard_leftovers`."""
    new = [tree[name] for name in changes.place]
    if not new:
        return
    files.write_states([(statedb.DIRECTORY / _PLACING, _private(json.dumps([seed.top for seed in new])))])
    for seed in new:
        _remove_old_link(Path(seed.top))
        if var_state.is_vacant(Path(seed.top)):
            var_state.place(_factory(seed.top), Path(seed.top))
            report(Message(f"{seed.top} was created"))
        else:
            _complete(seed)
    _discard_leftovers()


def _complete(seed: Seed) -> None:
    """Give what packages ship to a place with state of before, where it is missing.

    dpkg unpacks it, too, when a package comes again. What scripts made is not mixed with what is there.
    """
    shipped = [Path(seed.path(file)) for file in sorted(seed.shipped)]
    missing = list(filter(_has_room, shipped))
    directories = {
        parent for path in missing for parent in path.parents if parent.is_relative_to(Path(seed.top))
    }
    paths = [*sorted(filter(_has_room, directories)), *missing]
    files.write_states([(path, files.read_state(_factory(str(path)))) for path in paths])


def _has_room(path: Path) -> bool:
    """Return whether nothing is at a path, and its nearest parent is a directory."""
    return not os.path.lexists(path) and next(filter(os.path.lexists, path.parents), _ROOT).is_dir()


def _remove_old_link(path: Path) -> None:
    """Remove a link into the tree, where an older apt-ostree had state that is now the machine's."""
    if path.is_symlink() and layout.SYSIMAGE in str(path.readlink()) and not path.exists():
        path.unlink()


def _follow(changes: Given) -> None:
    """Write and remove files of seeds that the machine has, where nobody changed them."""
    writes = [path for path, digests in changes.write.items() if _unchanged(path, digests)]
    removals = [path for path, digest in changes.remove.items() if _unchanged(path, (digest,))]
    states = [(Path(path), _new_state(Path(path))) for path in writes if Path(path).parent.is_dir()]
    files.write_states([*states, *((Path(path), ABSENT) for path in removals)])
    for directory in sorted({Path(path).parent for path in removals}, reverse=True):
        _remove_empty_parents(directory)


def _remove_empty_parents(directory: Path) -> None:
    """Remove a directory and its parents while they are empty, as dpkg does."""
    with contextlib.suppress(OSError):
        while str(directory.relative_to(_ROOT)) not in seeds.SHARED:
            directory.rmdir()
            directory = directory.parent


def _unchanged(path: str, digests: Collection[str]) -> bool:
    if digests:
        return var_state.digest(Path(path)) in digests
    return not os.path.lexists(path)


def _new_state(path: Path) -> FileState:
    """Return the tree's state of a file, with the owner and the mode that it has on the machine."""
    new, current = files.read_state(_factory(str(path))), files.read_state(path)
    if current.type != "file" or new.type != "file":
        return new
    return replace(new, mode=current.mode, uid=current.uid, gid=current.gid, xattrs=current.xattrs)


def _factory(path: str) -> Path:
    return _ROOT / layout.FACTORY / path.removeprefix("/")
