"""Plans what a live change does to /etc: a decision for each path that differs between trees or overlays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from apt_ostree.model import etc_rules
from apt_ostree.model.etc_rules import EtcPlan, OverlayEtc, directory_of
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.generation import EtcRecord, Generation
from apt_ostree.model.overlay import Applied, Goal
from apt_ostree.model.overlay_content import Node
from apt_ostree.model.treediff import PathChange
from apt_ostree.system import files, systemd
from apt_ostree.system.ostree import overlay_repo
from apt_ostree.system.ostree.repo import Repo

ETC = Path("/etc")


def overlay_etc(
    repo: Repo,
    source: Goal,
    target: Goal,
    *,
    expected: Mapping[str, str],
    without: Mapping[str, FileState],
) -> OverlayEtc:
    """Return what overlays show below /etc before and after a change.

    expected: digest of the state that a path was edited against, by path.
    without: the state that a path would have without overlays, by path relative to /etc.
    """
    before, after = (covered(repo, goal.base, goal.overlays) for goal in (source, target))
    if not (before or after):
        return OverlayEtc()
    paths = [f"etc/{path}" for path in before | after]
    old, new = (overlay_repo.of_base(repo, commit, paths) for commit in (source.commit, target.commit))
    sides = {
        path: (_of_node(repo, old.get(f"etc/{path}")), _of_node(repo, new.get(f"etc/{path}")))
        for path in before | after
    }
    edited_against = {path.removeprefix("etc/"): state for path, state in expected.items()}
    return OverlayEtc(before, after, sides, edited_against, without)


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


def without_overlays(
    repo: Repo, base: str, steps: Iterable[tuple[Generation, Sequence[EtcRecord]]], target: str
) -> dict[str, FileState]:
    """Return the state without overlays of each path of /etc that overlays show.

    base: the booted commit.
    steps: the generations of this boot with their records, the oldest first.
    target: the base that the system is to show.
    """
    views = ((g.base, covered(repo, g.base, g.overlays), records) for g, records in steps)
    hidden = etc_rules.states_without_overlays(base, views)
    return {path: _on_base(repo, path, state, old_base, target) for path, (state, old_base) in hidden.items()}


def _on_base(repo: Repo, path: str, state: FileState, old_base: str, target: str) -> FileState:
    if old_base == target:
        return state
    name, commits = f"etc/{path}", (old_base, target)
    old, new = (_of_node(repo, overlay_repo.of_base(repo, commit, [name]).get(name)) for commit in commits)
    return etc_rules.on_new_base(old, new, state)


def plan_etc(repo: Repo, changes: tuple[PathChange, ...], overlays: OverlayEtc) -> EtcPlan:
    """Return the plan for each path of /etc that differs between the trees or the overlays."""
    sides = etc_rules.join_sides(_shipped_states(repo, changes)) | dict(sorted(overlays.sides.items()))
    current = {path: files.read_state(ETC / path) for path in {*sides, *map(directory_of, sides)}}
    plan = etc_rules.decide_all(sides, current, overlays)
    removed = {ETC / path for path, state in plan.states.items() if state.type == "absent"}
    occupied = [p for p in etc_rules.replaced_directories(plan) if files.holds_others(ETC / p, removed)]
    plan = etc_rules.keep_occupied(plan, occupied)
    if any(path.startswith("systemd/system/") for path in plan.states):
        plan = etc_rules.keep_aliases(plan, systemd.active_units())
    held = {path: current[path] for path in overlays.after - overlays.before - plan.states.keys()}
    return replace(plan, steps=etc_rules.in_order(plan), held=held)


def _shipped_states(repo: Repo, changes: Iterable[PathChange]) -> Iterator[tuple[str, FileState, FileState]]:
    """Yield each path below /usr/etc that differs, with its state in both trees; parents come first."""
    for change in changes:
        path = change.path.removeprefix("etc/")
        if path != change.path and path not in etc_rules.NOT_MERGED:
            old, new = (_state(repo, checksum, is_dir=change.is_dir) for checksum in (change.old, change.new))
            yield path, old, new


def _of_node(repo: Repo, node: Node | None) -> FileState:
    return _state(repo, node.checksum if node else "", is_dir=node is not None and node.kind == "directory")


def _state(repo: Repo, checksum: str, *, is_dir: bool) -> FileState:
    if not checksum:
        return ABSENT
    return repo.directory_state(checksum) if is_dir else repo.file_state(checksum)
