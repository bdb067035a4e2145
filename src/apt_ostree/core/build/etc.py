"""The /etc of a build: that of the deployment which is made, so that scripts see the configuration.

It is an overlay on the running /etc. What scripts change in it is compared with what ostree's merge leaves:
the rest is the delta (model.etc_delta).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from apt_ostree.core.build import earlier
from apt_ostree.core.state import account_files, etc_deltas, etc_trees
from apt_ostree.core.transaction import Transaction
from apt_ostree.model import accounts, build_accounts, etc_delta, etc_merge, etc_rules, layout
from apt_ostree.model.etc_delta import Delta
from apt_ostree.model.etc_rules import OverlayEtc
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.treediff import flatten
from apt_ostree.system import files, whiteouts
from apt_ostree.system.ostree import diff

ETC = Path("/etc")


@dataclass(frozen=True, slots=True)
class EtcView:
    """The /etc of a build.

    states: path -> state where it differs from the running /etc.
    delta: what scripts did before, of the deployment that is replaced.
    made: paths that scripts made in the tree's own /usr/etc, where an older apt-ostree had them.
    """

    states: Mapping[str, FileState]
    delta: Delta
    made: frozenset[str]

    def state(self, path: str) -> FileState:
        """Return the state of a path in this /etc."""
        return self.states[path] if path in self.states else files.read_state(ETC / path)


def pending(tx: Transaction) -> Delta:
    """Return what scripts did to /etc for the deployment that is replaced, if it was not played yet.

    The booted deployment's was; what is missing of it since is the administrator's decision.
    """
    merge = tx.merge_deployment
    return {} if merge.booted else etc_deltas.read(merge.checksum)


def view(tx: Transaction, start: str, delta: Delta) -> EtcView:
    """Return the /etc of a build that starts from a commit: the running one, merged, with a delta played.

    delta: what scripts did for the deployment that is replaced, see `pending`.
    """
    repo, merge = tx.sysroot.repo, tx.merge_deployment
    commits = {tx.live.base, merge.checksum}
    made = frozenset(path for commit in commits for path in earlier.made_in_etc(tx, commit))
    sides = etc_trees.sides(repo, flatten(diff.diff_commits(repo, tx.live.base, start)))
    sides = {path: pair for path, pair in sides.items() if not (path in made and pair[1] == ABSENT)}
    # What an overlay shows is not the administrator's edit of the file below it.
    states = etc_trees.without_overlays(repo, tx.records, tx.live, tx.live.base)
    paths = {*sides, *map(etc_rules.directory_of, sides)}
    current = {path: states.get(path) or files.read_state(ETC / path) for path in paths}
    states |= _without_occupied(etc_rules.decide_all(sides, current, OverlayEtc()).states)
    for path, entry in delta.items():
        if etc_rules.digest(states.get(path) or files.read_state(ETC / path)) == entry.before:
            states[path] = entry.after
    return EtcView(states | _accounts(tx, start), delta, made)


def _without_occupied(states: Mapping[str, FileState]) -> dict[str, FileState]:
    """Return the states without the removal of directories in which something stays.

    In a layer, a removed directory would hide what the administrator has in it.
    """
    removed = {ETC / path for path, state in states.items() if state == ABSENT}
    return {
        path: state
        for path, state in states.items()
        if state != ABSENT or (ETC / path).is_symlink() or not files.holds_others(ETC / path, removed)
    }


def _accounts(tx: Transaction, start: str) -> dict[str, FileState]:
    """Return the account files with what the tree has and the machine not yet, such as pending accounts."""
    shipped = etc_trees.shipped(tx.sysroot.repo, start, accounts.FILES)
    states = {}
    for name, tree in shipped.items():
        machine = files.read_state(ETC / name)
        text = build_accounts.completed(_text(machine), _text(tree))
        if machine.type == "file" and text != _text(machine):
            states[name] = replace(machine, content=text.encode(errors="surrogateescape"))
    return states


def _text(state: FileState) -> str:
    return state.content.decode(errors="surrogateescape")


def delta_of(
    tx: Transaction, given: EtcView, upper: Path, start: str, commit: str
) -> dict[str, etc_delta.Entry]:
    """Return what scripts did to /etc for the deployment of a commit, since the booted one.

    start: the commit on whose tree they worked.
    upper: the upper directory of the build's /etc.
    """
    repo, booted = tx.sysroot.repo, tx.live.booted.checksum
    after = {path: given.state(path) for path in (*given.delta, *given.made)}
    after |= _changed(upper, given) | _accounts_left(tx, given, start, commit)
    running = _without_live(tx, after)
    old, new = (etc_trees.shipped(repo, name, after) for name in (booted, commit))
    merge = {path: etc_merge.merged(old[path], new[path], running[path]) for path in after}
    shipped = etc_trees.shipped(repo, start, after)
    return etc_delta.compute(merge, {path: given.state(path) for path in after}, after, shipped, new)


def _accounts_left(tx: Transaction, given: EtcView, start: str, commit: str) -> dict[str, FileState]:
    """Return the file that makes accounts of removed packages again, if the next boot would not have them."""
    lines = account_files.only_live(tx.sysroot.repo, start, commit, tx.live.booted.checksum)
    if not lines:
        return {}
    path = layout.REMOVED_ACCOUNTS
    earlier = _text(given.state(path)).splitlines()
    text = "".join(f"{line}\n" for line in dict.fromkeys([*earlier, *lines]))
    directory = given.state(etc_rules.directory_of(path))
    made = {etc_rules.directory_of(path): FileState("directory", 0o755)} if directory == ABSENT else {}
    return {**made, path: FileState("file", 0o644, 0, 0, text.encode())}


def _without_live(tx: Transaction, paths: Collection[str]) -> dict[str, FileState]:
    """Return the states in the running /etc without live changes, which are taken back before the merge."""
    before: dict[str, FileState] = {}
    for generation in tx.live.generations:
        for record in tx.records.etc_records(generation.id):
            before.setdefault(record.path, record.before)
    return {path: before[path] if path in before else files.read_state(ETC / path) for path in paths}


def _changed(upper: Path, given: EtcView) -> dict[str, FileState]:
    """Return the states of the paths that scripts changed; links in the upper directory are not followed."""
    states: dict[str, FileState] = {}
    for directory, names, entries in os.walk(upper):
        relative = Path(directory).relative_to(upper)
        for name in (*names, *entries):
            path = str(relative / name)
            removed = whiteouts.is_whiteout(os.lstat(upper / path))
            states[path] = ABSENT if removed else files.read_state(upper / path)
        for name in names:
            if whiteouts.is_opaque(upper / relative / name):
                hidden = _below(str(relative / name), given)
                states |= {path: ABSENT for path in hidden if not os.path.lexists(upper / path)}
    return states


def _below(directory: str, given: EtcView) -> Iterator[str]:
    """Yield the paths below a directory of this /etc, as it was before the scripts ran."""
    yield from (path for path in given.states if path.startswith(f"{directory}/"))
    for path, _read in files.walk_below(ETC / directory):
        yield f"{directory}{path}"
