"""Plans what a live change does to /etc: a decision for each path that differs between trees or overlays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from apt_ostree.core.state import etc_trees
from apt_ostree.model import etc_delta, etc_rules
from apt_ostree.model.etc_delta import Delta
from apt_ostree.model.etc_rules import EtcPlan, OverlayEtc, directory_of
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.overlay import Goal
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
    before, after = (etc_trees.covered(repo, goal.base, goal.overlays) for goal in (source, target))
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
    """Return the plan with what scripts did to /etc for the target's deployment.

    Directories in which something stays are not removed.
    """
    whole = _with_scripts(plan, delta) if delta else plan
    removed = {path for path, state in whole.states.items() if state.type == "absent"}
    directories = [path for path in removed if whole.seen[path].type == "directory"]
    places = {ETC / path for path in removed}
    return etc_rules.keep_occupied(whole, [p for p in directories if files.holds_others(ETC / p, places)])


def _with_scripts(plan: EtcPlan, delta: Delta) -> EtcPlan:
    now = {path: plan.seen[path] if path in plan.seen else files.read_state(ETC / path) for path in delta}
    planned = {path: plan.states.get(path, state) for path, state in now.items()}
    writes, kept = etc_delta.play(delta, planned)
    beside = etc_delta.beside(delta, kept)
    now |= {path: files.read_state(ETC / path) for path in beside}
    own = {path: delta[path].after for path in writes} | beside
    scripts = {
        path: EtcStep(
            path, EtcAction.REMOVE if state == ABSENT else EtcAction.WRITE, "by the packages' scripts"
        )
        for path, state in sorted(own.items())
    }
    # In place: a directory precedes what is in it, so that an undo removes it last.
    steps = [scripts.pop(step.path, step) for step in plan.steps]
    steps += scripts.values()
    steps += [
        EtcStep(
            path, EtcAction.KEEP, f"it was edited; what the packages' scripts made is in *{etc_delta.BESIDE}"
        )
        for path in kept
    ]
    whole = replace(
        plan,
        steps=tuple(steps),
        states={**plan.states, **own},
        seen={**plan.seen, **{path: now[path] for path in own}},
    )
    return replace(whole, steps=etc_rules.in_order(whole))
