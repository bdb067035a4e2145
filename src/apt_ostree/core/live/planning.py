"""Plans a live change: gathers facts and applies the rules. It changes nothing."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from apt_ostree.core.live import etc_planning, health, triggers, unit_files, unit_planning
from apt_ostree.core.live.etc_planning import ETC
from apt_ostree.core.state import etc_trees, opt
from apt_ostree.core.state.inventory import initramfs_contents, owners, packages_of
from apt_ostree.core.state.live import LiveState
from apt_ostree.core.transaction import Transaction
from apt_ostree.model import plan as rules
from apt_ostree.model import refusals
from apt_ostree.model.etc_delta import Delta
from apt_ostree.model.etc_rules import EtcPlan, Hidden, OverlayEtc, hidden_after
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.overlay import Goal
from apt_ostree.model.package import PackageDiff, diff_packages
from apt_ostree.model.plan import LivePlan, RestartPolicy, UnitStep
from apt_ostree.model.requests.options import LiveOptions
from apt_ostree.model.settings import Settings
from apt_ostree.model.treediff import DirDiff, Kind, PathChange, flatten, without
from apt_ostree.model.triggers import Trigger, TriggerStep
from apt_ostree.model.unitchange import UnitChange, View, outdated
from apt_ostree.model.unitsteps import busy_refusals
from apt_ostree.system import space, systemd, usrview
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.repo import Repo

#: Seconds for which units that are starting or stopping are waited for, and between two looks at them.
_PATIENCE, _INTERVAL = 5.0, 0.2


@dataclass(frozen=True, slots=True)
class Change:
    """A plan with what is needed to carry it out.

    plan: the plan.
    goal: what the system is to show.
    view_diff: the differences between the booted /usr and the goal's base, which become a layer.
    changes: the differences between the present /usr and the target.
    etc: the plan for /etc.
    hidden: what overlays hide in /etc after the change.
    settings: the administrator's settings.
    """

    plan: LivePlan
    goal: Goal
    view_diff: DirDiff | None
    changes: tuple[PathChange, ...]
    etc: EtcPlan = field(default_factory=EtcPlan)
    hidden: Hidden = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A view that is ready to be mounted.

    layers: the checksums of its layers, the topmost first.
    uppers: earlier upper directories, which become lower directories.
    lowers: all lower directories, the topmost first.
    writable: the directory with the upper and the work directory, if /usr is unlocked.
    """

    layers: tuple[str, ...]
    uppers: tuple[str, ...]
    lowers: tuple[Path, ...]
    writable: Path | None


def plan_change(
    tx: Transaction,
    goal: Goal,
    options: LiveOptions,
    *,
    delta: Delta | None = None,
    at_boot: bool = False,
) -> Change:
    """Return the change that makes the system show `goal`.

    delta: what scripts did to /etc for the goal's base, unless /etc has it already.
    at_boot: whether the system is starting; then units are not planned, because none runs yet.
    """
    live, repo, running, target = tx.live, tx.sysroot.repo, os.uname().release, goal.commit
    settings = tx.safe_settings if at_boot else tx.settings
    now = diff.diff_commits(repo, live.commit, target)
    changes = tuple(flatten(now))
    packages = diff_packages(packages_of(repo, live.commit), packages_of(repo, target))
    overlays = _overlay_etc(tx, goal)
    scripts = delta if delta and goal.base != live.base else {}
    etc = etc_planning.with_delta(etc_planning.plan_etc(repo, changes, overlays), scripts)
    etc = _with_packages(repo, etc, packages, (live.commit, target))
    units: tuple[UnitStep, ...] = ()
    if not at_boot:
        new_states = unit_files.states(repo, changes, etc.states)
        views = _views(repo, live, target)
        new_etc = frozenset(path for path in etc.changed if etc.seen[path] == ABSENT)
        affected = UnitChange(packages, target, changes, etc.steps, new_states, views, new_etc)
        policy = options.restart_services
        units = unit_planning.plan_units(repo, affected, policy=policy, overrides=settings.units)
    replacing = options.allow_replacement or options.force
    replacements = () if replacing else rules.replacement_refusals(packages)
    risks = () if options.force else (*_space_refusals(tx, changes, packages), *_unit_refusals(tx, units))
    plan = LivePlan(
        source=live.commit,
        target=target,
        packages=packages,
        files=rules.count_files(changes),
        etc=etc.steps,
        units=units,
        deferred=_deferred(repo, live, goal, changes),
        refusals=(*replacements, *_environment_refusals(tx, goal, changes), *risks),
        restart_services=options.restart_services,
        health_checks=health.checks(repo, target, etc.states),
        overlays=goal.notes,
        triggers=_triggers(repo, target, changes, etc),
    )
    view_diff = _view_diff(repo, live, goal, now, running)
    return Change(plan, goal, view_diff, changes, etc, _hidden(tx, etc, overlays), settings)


def _deferred(repo: Repo, live: LiveState, goal: Goal, changes: tuple[PathChange, ...]) -> tuple[str, ...]:
    """Return notes about what takes effect with the reboot."""
    kernels = rules.kernel_notes(
        changes, os.uname().release, lambda kernel: initramfs_contents(repo, live.commit, kernel)
    )
    beside = (diff.directories_beside_usr(repo, c) for c in (live.booted.checksum, goal.base))
    return (*kernels, *rules.root_notes(*beside))


def _triggers(
    repo: Repo, target: str, changes: tuple[PathChange, ...], etc: EtcPlan
) -> tuple[TriggerStep, ...]:
    """Return the triggers; the cache of libraries is not rebuilt if the change brings it."""
    states = {path: (etc.seen[path], etc.states[path]) for path in etc.changed}
    steps = triggers.plan_triggers(repo, target, changes, states)
    return tuple(s for s in steps if s.trigger is not Trigger.LDCONFIG or "ld.so.cache" not in etc.states)


def _view_diff(repo: Repo, live: LiveState, goal: Goal, now: DirDiff | None, running: str) -> DirDiff | None:
    """Return the differences between the booted /usr and the goal's base; the running kernel's modules stay.

    now: the differences between the present /usr and the target, which are the same if nothing is live yet.
    """
    same = live.commit == live.booted.checksum and goal.base == goal.commit
    view_diff = now if same else diff.diff_commits(repo, live.booted.checksum, goal.base)
    if view_diff is None:
        return None
    return without(view_diff, f"lib/modules/{running}", frozenset({Kind.REMOVED, Kind.CHANGED}))


def _with_packages(repo: Repo, etc: EtcPlan, packages: PackageDiff, commits: tuple[str, str]) -> EtcPlan:
    """Return the plan of /etc with the changed packages that ship its paths before or after the change."""
    paths = frozenset(f"/etc/{step.path}" for step in etc.steps)
    removed = [(package.name, package.architecture) for package in packages.removed]
    present = [(package.name, package.architecture) for package in packages.added]
    present += [(change.name, change.architecture) for change in packages.changed]
    owner = owners(repo, commits[0], removed, paths) | owners(repo, commits[1], present, paths)
    steps = tuple(replace(step, package=owner.get(f"/etc/{step.path}", "")) for step in etc.steps)
    return replace(etc, steps=steps)


def _overlay_etc(tx: Transaction, goal: Goal) -> OverlayEtc:
    """Return what overlays show below /etc before and after this change."""
    now = tx.live.goal
    if not (now.overlays or goal.overlays):
        return OverlayEtc()
    below = without_overlays(tx, goal.base)
    return etc_planning.overlay_etc(tx.sysroot.repo, now, goal, expected=goal.expected, without=below)


def _hidden(tx: Transaction, etc: EtcPlan, overlays: OverlayEtc) -> Hidden:
    earlier = tx.records.hidden(tx.live.current.id) if tx.live.current else {}
    return hidden_after(earlier, etc, overlays)


def without_overlays(tx: Transaction, base: str) -> dict[str, FileState]:
    """Return the state, without overlays and on `base`, of each path of /etc that overlays show now."""
    return etc_trees.without_overlays(tx.sysroot.repo, tx.records, tx.live, base)


def plan_units_back(
    tx: Transaction, target: str, policy: RestartPolicy
) -> tuple[tuple[PathChange, ...], tuple[UnitStep, ...]]:
    """Return the differences of /usr when the system goes back to `target`, and the steps of units."""
    repo, source = tx.sysroot.repo, tx.live.commit
    changes = tuple(flatten(diff.diff_commits(repo, source, target)))
    packages = diff_packages(packages_of(repo, source), packages_of(repo, target))
    new_states = unit_files.states(repo, changes)
    affected = UnitChange(packages, target, changes, (), new_states, _views(repo, tx.live, target))
    overrides = tx.safe_settings.units
    return changes, unit_planning.plan_units(repo, affected, policy=policy, overrides=overrides)


def _views(repo: Repo, live: LiveState, target: str) -> tuple[View, ...]:
    """Return for each view of this boot, the oldest first, the files that differ in `target`."""
    commits = [(0.0, live.booted.checksum), *((g.created, g.target) for g in live.generations)]
    differing = {commit: outdated(diff.replaced(repo, commit, target)) for _since, commit in commits}
    return tuple(View(since, differing[commit]) for since, commit in commits)


def _environment_refusals(tx: Transaction, goal: Goal, changes: tuple[PathChange, ...]) -> tuple[str, ...]:
    live = tx.live
    reasons = [*refusals.mount_refusals(changes, usrview.submounts(), usrview.USR)]
    reasons += refusals.opt_refusals(opt.places(tx.sysroot.repo, goal.base, besides=live.base))
    if live.booted.unlocked == "hotfix":
        reasons.append("the booted deployment is unlocked as a hotfix; its /usr is not the commit's")
    current = live.current
    if current and usrview.generation() != current.id:
        reasons.append("something else is mounted over the live view of /usr")
    return tuple(reasons)


def _space_refusals(
    tx: Transaction, changes: tuple[PathChange, ...], packages: PackageDiff
) -> tuple[str, ...]:
    free = {str(place): space.of(place) for place in (tx.sysroot.state_dir.parent, ETC)}
    return refusals.space_refusals(free, changes, removal=packages.only_removed)


def _unit_refusals(tx: Transaction, units: tuple[UnitStep, ...]) -> tuple[str, ...]:
    """Return a refusal for each unit that is to be acted on while it is starting or stopping.

    Most have done so in a moment, and one that fails again and again waits for its next start then.
    """
    names = [step.unit for step in units if step.acts]
    end, is_told = time.monotonic() + _PATIENCE, False
    while (reasons := busy_refusals(systemd.units(names))) and time.monotonic() < end:
        if not is_told:
            tx.message("Waiting for units that are starting or stopping...")
            is_told = True
        time.sleep(_INTERVAL)
    return reasons
