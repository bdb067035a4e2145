"""Plans what a live change does to /etc: a decision for each path that differs between trees or overlays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from apt_ostree.core.state import etc_trees
from apt_ostree.model import etc_delta, etc_rules
from apt_ostree.model.etc_delta import Delta
from apt_ostree.model.etc_rules import EtcPlan, OverlayEtc, directory_of
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.generation import EtcRecord, Generation
from apt_ostree.model.overlay import Applied, Goal
from apt_ostree.model.plan import EtcAction, EtcStep
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
        path: (
            etc_trees.of_node(repo, old.get(f"etc/{path}")),
            etc_trees.of_node(repo, new.get(f"etc/{path}")),
        )
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
    old, new = (
        etc_trees.of_node(repo, overlay_repo.of_base(repo, commit, [name]).get(name)) for commit in commits
    )
    return etc_rules.on_new_base(old, new, state)


def plan_etc(repo: Repo, changes: tuple[PathChange, ...], overlays: OverlayEtc) -> EtcPlan:
    """Return the plan for each path of /etc that differs between the trees or the overlays."""
    sides = etc_trees.sides(repo, changes) | dict(sorted(overlays.sides.items()))
    current = {path: files.read_state(ETC / path) for path in {*sides, *map(directory_of, sides)}}
    plan = etc_rules.decide_all(sides, current, overlays)
    removed = {ETC / path for path, state in plan.states.items() if state.type == "absent"}
    occupied = [p for p in etc_rules.replaced_directories(plan) if files.holds_others(ETC / p, removed)]
    plan = etc_rules.keep_occupied(plan, occupied)
    if any(path.startswith("systemd/system/") for path in plan.states):
        plan = etc_rules.keep_aliases(plan, systemd.active_units())
    held = {path: current[path] for path in overlays.after - overlays.before - plan.states.keys()}
    return replace(plan, steps=etc_rules.in_order(plan), held=held)


def with_delta(plan: EtcPlan, delta: Delta) -> EtcPlan:
    """Return the plan with what scripts did to /etc for the target's deployment."""
    if not delta:
        return plan
    now = {path: plan.seen[path] if path in plan.seen else files.read_state(ETC / path) for path in delta}
    planned = {path: plan.states.get(path, state) for path, state in now.items()}
    writes, kept = etc_delta.play(delta, planned)
    own = {path: delta[path].after for path in writes}
    steps = [step for step in plan.steps if step.path not in own]
    steps += [
        EtcStep(path, EtcAction.REMOVE if state == ABSENT else EtcAction.WRITE, "by the packages' scripts")
        for path, state in sorted(own.items())
    ]
    steps += [
        EtcStep(path, EtcAction.KEEP, "it was edited; the packages' scripts changed it") for path in kept
    ]
    whole = replace(
        plan,
        steps=tuple(steps),
        states={**plan.states, **own},
        seen={**plan.seen, **{path: now[path] for path in own}},
    )
    return replace(whole, steps=etc_rules.in_order(whole))
