"""Plans a live change: gathers facts and decides; touches nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from apt_ostree.core.live import etc_planning, health, unit_files, unit_planning
from apt_ostree.core.live.etc_planning import ETC
from apt_ostree.core.state.inventory import packages_of
from apt_ostree.errors import Refused
from apt_ostree.model import plan as rules
from apt_ostree.model import refusals
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.etc_rules import EtcPlan, OverlayEtc
from apt_ostree.model.filestate import FileState
from apt_ostree.model.generation import Generation
from apt_ostree.model.overlay import Goal
from apt_ostree.model.package import diff_packages
from apt_ostree.model.plan import LivePlan, RestartPolicy, UnitStep
from apt_ostree.model.settings import Settings
from apt_ostree.model.treediff import DirDiff, Kind, PathChange, flatten, without
from apt_ostree.model.unitchange import UnitChange, View, outdated
from apt_ostree.model.unitsteps import busy_refusals
from apt_ostree.system import settings, space, systemd, usrview
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.repo import Repo
from apt_ostree.system.ostree.sysroot import Sysroot
from apt_ostree.system.statedb import StateDb, boot_id

#: A note of the generation that a boot began with: its number, and the boot's id.
BOOT_NOTE = "boot-generation"


@dataclass(frozen=True, slots=True)
class Situation:
    """What the system shows now: the booted deployment and the live generations of this boot.

    first: the generation that showed overlays before services started, or 0.
    """

    booted: Deployment
    generations: tuple[Generation, ...]
    first: int = 0

    @property
    def current(self) -> Generation | None:
        """Return the generation that /usr shows."""
        return self.generations[-1] if self.generations else None

    @property
    def numbers(self) -> tuple[int, ...]:
        """Return the numbers of the generations."""
        return tuple(generation.id for generation in self.generations)

    @property
    def commit(self) -> str:
        """Return the commit that /usr shows."""
        return self.current.target if self.current else self.booted.checksum

    @property
    def base(self) -> str:
        """Return that commit without the overlays."""
        return self.current.base if self.current else self.booted.checksum

    @property
    def goal(self) -> Goal:
        """Return what /usr shows, as a goal."""
        return Goal(self.base, self.commit, self.current.overlays if self.current else ())


@dataclass(frozen=True, slots=True)
class Change:
    """A plan with the material to carry it out.

    goal: what the target is made of; view_diff: what lies between the booted /usr and the goal's base (its
    layer); changes: what lies between the present /usr and the target.
    """

    plan: LivePlan
    goal: Goal
    view_diff: DirDiff | None
    changes: tuple[PathChange, ...]
    etc: EtcPlan = field(default_factory=EtcPlan)
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A view that is ready to be shown: lower directories, the topmost first, and an upper if unlocked."""

    layers: tuple[str, ...]
    uppers: tuple[str, ...]
    lowers: tuple[Path, ...]
    writable: Path | None


def look(sysroot: Sysroot, db: StateDb | None) -> Situation:
    """Gather what the system shows now."""
    booted = sysroot.deployments().booted
    if booted is None:
        raise Refused("this system was not booted from an OSTree deployment")
    here = boot_id()
    known = db.generations() if db else ()
    number, _, boot = (db.note(BOOT_NOTE) or "").partition(" ") if db else ("", "", "")
    first = int(number) if boot == here and number in {str(g.id) for g in known} else 0
    return Situation(booted, tuple(g for g in known if g.boot_id == here), first)


def plan_change(
    sysroot: Sysroot,
    db: StateDb,
    situation: Situation,
    goal: Goal,
    *,
    allow_replacement: bool,
    policy: RestartPolicy = RestartPolicy.NONE,
    force: bool = False,
    with_units: bool = True,
) -> Change:
    """Plan to make `goal` current.

    force: refuse only what could not be done or undone; with_units: not while the system starts.
    """
    repo, running, target = sysroot.repo, os.uname().release, goal.commit
    chosen = settings.load() if with_units else settings.load_or_default()
    now = _usr_diff(sysroot, situation.commit, target)
    view_diff = now
    if situation.commit != situation.booted.checksum or goal.base != target:
        view_diff = _usr_diff(sysroot, situation.booted.checksum, goal.base)
    changes = tuple(flatten(now))
    packages = diff_packages(packages_of(repo, situation.commit), packages_of(repo, target))
    etc = etc_planning.plan_etc(repo, changes, _overlay_etc(sysroot, db, situation, goal))
    replacements = () if allow_replacement else rules.replacement_refusals(packages)
    units: tuple[UnitStep, ...] = ()
    if with_units:
        new_states = unit_files.states(repo, changes, etc.states)
        views = _views(sysroot, situation, target, changes)
        affected = UnitChange(packages, target, changes, etc.steps, new_states, views)
        units = unit_planning.plan_units(repo, affected, policy=policy, overrides=chosen.units)
    risks = () if force else (*_space_refusals(sysroot, changes), *_unit_refusals(units))
    plan = LivePlan(
        source=situation.commit,
        target=target,
        packages=packages,
        files=rules.count_files(changes),
        etc=etc.steps,
        units=units,
        deferred=rules.kernel_notes(changes, running),
        refusals=(*replacements, *_environment_refusals(situation, changes), *risks),
        restart_services=policy,
        health_checks=health.checks(repo, target, etc.states),
        overlays=goal.notes,
    )
    if view_diff is not None:
        kept = frozenset({Kind.REMOVED, Kind.CHANGED})
        view_diff = without(view_diff, f"lib/modules/{running}", kept)
    return Change(plan, goal, view_diff, changes, etc, chosen)


def _overlay_etc(sysroot: Sysroot, db: StateDb, situation: Situation, goal: Goal) -> OverlayEtc:
    """Find out what overlays mean for /etc in this change."""
    repo, now = sysroot.repo, situation.goal
    if not (now.overlays or goal.overlays):
        return OverlayEtc()
    without = without_overlays(repo, db, situation, goal.base)
    return etc_planning.overlay_etc(repo, now, goal, expected=goal.expected, without=without)


def without_overlays(repo: Repo, db: StateDb, situation: Situation, base: str) -> dict[str, FileState]:
    """Return what paths of /etc that overlays show now would hold without them on `base`."""
    steps = [(g, db.etc_records(g.id)) for g in situation.generations]
    return etc_planning.without_overlays(repo, situation.booted.checksum, steps, base)


def plan_units_back(
    sysroot: Sysroot, situation: Situation, target: str, policy: RestartPolicy
) -> tuple[tuple[PathChange, ...], tuple[UnitStep, ...]]:
    """Return what going back to `target` changes, and what that means for units."""
    repo, source = sysroot.repo, situation.commit
    changes = tuple(flatten(_usr_diff(sysroot, source, target)))
    packages = diff_packages(packages_of(repo, source), packages_of(repo, target))
    affected = UnitChange(
        packages,
        target,
        changes,
        (),
        unit_files.states(repo, changes),
        _views(sysroot, situation, target, changes),
    )
    overrides = settings.load_or_default().units
    return changes, unit_planning.plan_units(repo, affected, policy=policy, overrides=overrides)


def _views(
    sysroot: Sysroot, situation: Situation, target: str, changes: Iterable[PathChange]
) -> tuple[View, ...]:
    """Return what of each view of this boot, the oldest first, `target` lacks or has in another version.

    changes: what lies between the present view and the target.
    """
    shown = [(0.0, situation.booted.checksum), *((g.created, g.target) for g in situation.generations)]
    known: dict[str, dict[str, str]] = {}
    for _since, commit in shown:
        if commit not in known:
            here = changes if commit == situation.commit else flatten(_usr_diff(sysroot, commit, target))
            known[commit] = outdated(here)
    return tuple(View(since, known[commit]) for since, commit in shown)


def _usr_diff(sysroot: Sysroot, old: str, new: str) -> DirDiff | None:
    return diff.diff_commits(sysroot.repo, old, new)


def _environment_refusals(situation: Situation, changes: tuple[PathChange, ...]) -> tuple[str, ...]:
    reasons = [*refusals.mount_refusals(changes, usrview.submounts(), usrview.USR)]
    if situation.booted.unlocked == "hotfix":
        reasons.append("the booted deployment is unlocked as a hotfix; its /usr is not the commit's")
    current = situation.current
    if current and usrview.generation() != current.id:
        reasons.append("something else is mounted over the live view of /usr")
    return tuple(reasons)


def _space_refusals(sysroot: Sysroot, changes: tuple[PathChange, ...]) -> tuple[str, ...]:
    free = {str(place): space.of(place) for place in (sysroot.state_dir.parent, ETC)}
    return refusals.space_refusals(free, changes)


def _unit_refusals(units: tuple[UnitStep, ...]) -> tuple[str, ...]:
    """Refuse to get in the way of units that are just starting or stopping."""
    return busy_refusals(systemd.units(step.unit for step in units if step.acts))
