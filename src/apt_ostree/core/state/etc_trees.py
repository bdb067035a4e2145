"""What trees and overlays have below /etc. Paths are relative to /etc."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from apt_ostree.core.state.live import LiveState
from apt_ostree.model import etc_merge, etc_rules
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.overlay import Applied
from apt_ostree.model.overlay_content import Node
from apt_ostree.model.treediff import PathChange
from apt_ostree.system import files
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import overlay_repo
from apt_ostree.system.ostree.repo import Repo
from apt_ostree.system.statedb import StateDb


def sides(repo: Repo, changes: Iterable[PathChange]) -> dict[str, tuple[FileState, FileState]]:
    """Return path -> states in the old and the new tree, of the changes; parents come first."""
    return etc_rules.join_sides(_states(repo, changes))


def shipped(repo: Repo, commit: str, paths: Iterable[str]) -> dict[str, FileState]:
    """Return path -> state that a commit ships, of these paths."""
    paths = list(paths)
    nodes = overlay_repo.of_base(repo, commit, [f"etc/{path}" for path in paths])
    return {path: of_node(repo, nodes.get(f"etc/{path}")) for path in paths}


def keep_directories(old: Path, shipped: Path, etc: Path) -> None:
    """Give the directories of a deployment's /etc the modes and owners that somebody gave them before.

    ostree's merge keeps these of files only: it leaves a directory as the new tree ships it.

    old: the root directory of the deployment that was running.
    shipped: the /usr/etc of the one whose /etc was merged.
    etc: that /etc.
    """
    writes = []
    for path in files.directories(old / "etc"):
        tops = (old / "usr/etc", shipped, old / "etc", etc)
        before, after, mine, merged = (files.read_state(top / path) for top in tops)
        if {after.type, mine.type, merged.type} == {"directory"} and merged == after:
            kept = etc_merge.merged(before, after, mine)
            writes += [(etc / path, kept)] if kept != merged else []
    failpoint("delta.directories")
    files.write_states(writes)


def of_node(repo: Repo, node: Node | None) -> FileState:
    """Return the state of a node of a tree; None is absent."""
    return _state(repo, node.checksum if node else "", is_dir=node is not None and node.kind == "directory")


def covered(repo: Repo, base: str, overlays: Iterable[Applied]) -> frozenset[str]:
    """Return the paths that overlays show or hide, relative to /etc; of directories only those they add."""
    layers = [overlay_repo.read(repo, overlay.layer, "etc").items() for overlay in overlays]
    directories = {path for nodes in layers for path, node in nodes if node.kind == "directory"}
    in_base = overlay_repo.of_base(repo, base, [f"etc/{path}" for path in directories])
    return frozenset(
        path
        for nodes in layers
        for path, node in nodes
        if node.kind != "directory" or f"etc/{path}" not in in_base
    )


def without_overlays(repo: Repo, records: StateDb, live: LiveState, target: str) -> dict[str, FileState]:
    """Return the state without overlays of each path of /etc that overlays show now.

    target: the base that the system is to show.
    """
    hidden = records.hidden(live.current.id) if live.current else {}
    new = shipped(repo, target, hidden)
    return {path: etc_rules.on_new_base(old, new[path], state) for path, (state, old) in hidden.items()}


def _states(repo: Repo, changes: Iterable[PathChange]) -> Iterator[tuple[str, FileState, FileState]]:
    for change in changes:
        path = change.path.removeprefix("etc/")
        if path != change.path and path not in etc_rules.NOT_MERGED:
            old, new = (_state(repo, checksum, is_dir=change.is_dir) for checksum in (change.old, change.new))
            yield path, old, new


def _state(repo: Repo, checksum: str, *, is_dir: bool) -> FileState:
    if not checksum:
        return ABSENT
    return repo.directory_state(checksum) if is_dir else repo.file_state(checksum)
