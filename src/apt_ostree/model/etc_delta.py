"""What maintainer scripts did to /etc, beyond what packages ship: the delta of a deployment.

/usr/etc has what packages ship. ostree merges it with the administrator's /etc; the delta is played on the
result once, when the deployment becomes the machine's. Paths are relative to /etc.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from apt_ostree.errors import AptOstreeError
from apt_ostree.model.etc_rules import NOT_MERGED, digest
from apt_ostree.model.filestate import ABSENT, FileState, pack, unpack

#: Scratch files of dpkg and ucf, and caches that are made again.
_SCRATCH = (".dpkg-new", ".dpkg-tmp", ".ucf-new", ".ucf-old")
#: The ending of what scripts made of a path that somebody else has changed.
BESIDE = ".dpkg-dist"
#: The second has no use without a policy, with which it is in the tree (core.build.finish).
_CACHES = frozenset({"ld.so.cache", "selinux/config"})


@dataclass(frozen=True, slots=True)
class Entry:
    """What scripts did to one path.

    before: digest of the state that the merge leaves there (etc_rules.digest).
    seen: digest of the state that the scripts saw: that of the running system, live changes included.
    after: the state that the scripts left.
    """

    before: str
    seen: str
    after: FileState


#: Path -> entry.
Delta = Mapping[str, Entry]


def parse(text: str) -> dict[str, Entry]:
    """Return the delta in a text; AptOstreeError if it is invalid."""
    try:
        return {path: Entry(row[0], row[1], unpack(row[2])) for path, row in json.loads(text).items()}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise AptOstreeError(f"what scripts did to /etc cannot be read: {error}") from error


def format_delta(delta: Delta) -> str:
    """Return a delta as text."""
    rows = {path: [entry.before, entry.seen, pack(entry.after)] for path, entry in delta.items()}
    return json.dumps(rows, sort_keys=True)


def results(delta: Delta) -> dict[str, tuple[str, FileState]]:
    """Return what playing a delta makes of each path: what it replaces, and with what."""
    return {path: (entry.before, entry.after) for path, entry in delta.items()}


def is_scripts(path: str) -> bool:
    """Return whether what scripts do to a path counts: accounts and the host's own files are not merged."""
    return path not in NOT_MERGED and path not in _CACHES and not path.endswith(_SCRATCH)


def compute(
    merge: Mapping[str, FileState],
    seen: Mapping[str, FileState],
    after: Mapping[str, FileState],
    shipped: Mapping[str, FileState],
    ships: Mapping[str, FileState],
) -> dict[str, Entry]:
    """Return the delta of the paths whose states after the scripts are not those that the merge leaves.

    Also of those which it leaves so only because it takes back what an earlier live change made: a live
    change has nothing else to tell it.

    What the merge removes, as it is no longer shipped and not edited, goes although a script changed its mode
    or owner: a removal takes the permission to execute from init scripts (dh_installinit(1)).

    shipped: the states that the tree ships on which the scripts worked.
    ships: the states that the new tree ships.
    """
    delta = {}
    for path, state in sorted(after.items()):
        if not is_scripts(path) or state.type == "other":
            continue
        goes = merge[path] == ABSENT and _is_same_file(shipped[path], state)
        left = ABSENT if goes else state
        live_only = left != seen[path] and (goes or shipped[path] == ships[path])
        if left != merge[path] or live_only:
            delta[path] = Entry(digest(merge[path]), digest(seen[path]), left)
    return delta


def _is_same_file(one: FileState, other: FileState) -> bool:
    return one.type == other.type == "file" and one.content == other.content


def beside(delta: Delta, kept: Iterable[str]) -> dict[str, FileState]:
    """Return the states that lie beside paths that were kept, by their paths, as dpkg leaves them there."""
    states = {path: delta[path].after for path in kept}
    return {f"{p}{BESIDE}": state for p, state in states.items() if state.type in ("file", "symlink")}


def play(
    delta: Delta, current: Mapping[str, FileState], removed: Collection[str] = ()
) -> tuple[dict[str, FileState], tuple[str, ...]]:
    """Return the states to write, in their order, and the paths that somebody else has changed.

    current: the states of all paths of the delta.
    removed: paths that the administrator removed since the scripts made them.
    """
    writes: dict[str, FileState] = {}
    kept = []
    for path, entry in delta.items():
        if current[path] == entry.after or path in removed:
            continue
        if digest(current[path]) in (entry.before, entry.seen):
            writes[path] = entry.after
        else:
            kept.append(path)
    removals = sorted((path for path, state in writes.items() if state == ABSENT), reverse=True)
    others = sorted(path for path in writes if path not in removals)
    return {path: writes[path] for path in (*others, *removals)}, tuple(kept)
