"""Plans a live change: gathers facts and decides; touches nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from apt_ostree.core.inventory import packages_of
from apt_ostree.core.live import health, unit_files, unit_planning
from apt_ostree.core.live.unit_planning import View
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import plan as rules
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.filestate import ABSENT, FileState, three_way
from apt_ostree.model.generation import Generation
from apt_ostree.model.package import diff_packages
from apt_ostree.model.plan import EtcAction, EtcStep, LivePlan, RestartPolicy, UnitStep
from apt_ostree.model.settings import Settings
from apt_ostree.model.treediff import DirDiff, Kind, PathChange, flatten, without
from apt_ostree.system import files, settings, systemd, usrview
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.sysroot import Sysroot
from apt_ostree.system.statedb import StateDb, boot_id

ETC = Path("/etc")
#: What a live change may need beside the packages: the journal, pre-images, directories of the layer.
_HEADROOM, _BYTES_EACH, _INODES = 4_000_000, 200, 200
#: What below /usr no process runs: defaults of /etc, the databases of packages, and what is read at boot.
_NOT_RUN = ("etc/", "lib/sysimage/", "lib/tmpfiles.d/", "lib/sysusers.d/")
#: Account files are never merged: users are added to them (systemd-sysusers(8)). The rest is the host's.
NOT_MERGED = frozenset(
    {f"{n}{end}" for n in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid") for end in ("", "-")}
    | {"machine-id", ".updated", ".pwd.lock", "hostname", "fstab", "resolv.conf", "mtab"}
)


@dataclass(frozen=True, slots=True)
class Situation:
    """What the system shows now: the booted deployment and the live generations of this boot."""

    booted: Deployment
    generations: tuple[Generation, ...]

    @property
    def current(self) -> Generation | None:
        """Return the generation that /usr shows."""
        return self.generations[-1] if self.generations else None

    @property
    def commit(self) -> str:
        """Return the commit that /usr shows."""
        return self.current.target if self.current else self.booted.checksum


@dataclass(frozen=True, slots=True)
class Change:
    """A plan with the material to carry it out.

    view_diff: what lies between the booted /usr and the target (the layer); changes: what lies between the
    present /usr and the target; etc_states: the target's state of each path that is written or removed;
    etc_seen: what these paths held when that was decided.
    """

    plan: LivePlan
    view_diff: DirDiff | None
    changes: tuple[PathChange, ...]
    etc_states: dict[str, FileState] = field(default_factory=dict)
    etc_seen: dict[str, FileState] = field(default_factory=dict)
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
    return Situation(booted, tuple(g for g in known if g.boot_id == here))


def plan_change(
    sysroot: Sysroot,
    situation: Situation,
    target: str,
    *,
    allow_replacement: bool,
    policy: RestartPolicy = RestartPolicy.NONE,
    force: bool = False,
) -> Change:
    """Plan to make `target` current; force: refuse only what could not be done or undone."""
    repo, running = sysroot.repo, os.uname().release
    if diff.directory_of(repo, target, "usr") is None:
        raise UsageError(f"commit {target[:12]} is not a system's tree: it has no /usr")
    chosen = settings.load()
    now = _usr_diff(sysroot, situation.commit, target)
    view_diff = now
    if situation.commit != situation.booted.checksum:
        view_diff = _usr_diff(sysroot, situation.booted.checksum, target)
    changes = tuple(flatten(now))
    packages = diff_packages(packages_of(repo, situation.commit), packages_of(repo, target))
    etc, states, seen = _plan_etc(sysroot, changes)
    refusals = () if allow_replacement else rules.replacement_refusals(packages)
    affected = unit_planning.UnitChange(
        packages,
        target,
        changes,
        etc,
        unit_files.states(repo, changes, states),
        _views(sysroot, situation, target, changes),
    )
    units = unit_planning.plan_units(repo, affected, policy=policy, overrides=chosen.units)
    risks = () if force else (*_space_refusals(sysroot, changes), *_unit_refusals(units))
    plan = LivePlan(
        source=situation.commit,
        target=target,
        packages=packages,
        files=rules.count_files(changes),
        etc=etc,
        units=units,
        deferred=rules.kernel_notes(changes, running),
        refusals=(*refusals, *_environment_refusals(situation, changes), *risks),
        restart_services=policy,
        health_checks=health.checks(repo, target, states),
    )
    if view_diff is not None:
        kept = frozenset({Kind.REMOVED, Kind.CHANGED})
        view_diff = without(view_diff, f"lib/modules/{running}", kept)
    return Change(plan, view_diff, changes, states, seen, chosen)


def plan_units_back(
    sysroot: Sysroot, situation: Situation, target: str, policy: RestartPolicy
) -> tuple[tuple[PathChange, ...], tuple[UnitStep, ...]]:
    """Return what going back to `target` changes, and what that means for units."""
    repo, source = sysroot.repo, situation.commit
    changes = tuple(flatten(_usr_diff(sysroot, source, target)))
    packages = diff_packages(packages_of(repo, source), packages_of(repo, target))
    affected = unit_planning.UnitChange(
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
            known[commit] = {
                change.path: change.new
                for change in (
                    changes if commit == situation.commit else flatten(_usr_diff(sysroot, commit, target))
                )
                if change.kind is not Kind.ADDED
                and not change.is_dir
                and not change.path.startswith(_NOT_RUN)
            }
    return tuple(View(since, known[commit]) for since, commit in shown)


def _usr_diff(sysroot: Sysroot, old: str, new: str) -> DirDiff | None:
    return diff.diff_commits(sysroot.repo, old, new)


def _environment_refusals(situation: Situation, changes: tuple[PathChange, ...]) -> tuple[str, ...]:
    going = {f"{usrview.USR}/{change.path}" for change in changes if change.kind is Kind.REMOVED}
    reasons = [
        f"{target} is a mount point, and the new tree has no such path; unmount it first"
        for target in usrview.submounts()
        if going.intersection({target, *map(str, Path(target).parents)})
    ]
    if situation.booted.unlocked == "hotfix":
        reasons.append("the booted deployment is unlocked as a hotfix; its /usr is not the commit's")
    current = situation.current
    if current and usrview.generation() != current.id:
        reasons.append("something else is mounted over the live view of /usr")
    return tuple(reasons)


def _space_refusals(sysroot: Sysroot, changes: tuple[PathChange, ...]) -> tuple[str, ...]:
    """Refuse what would run out of space half-way; a layer is hardlinks, so that little is needed."""
    reasons = []
    needed, inodes = _HEADROOM + _BYTES_EACH * len(changes), _INODES + len(changes)
    for place in (sysroot.state_dir.parent, ETC):
        stats = os.statvfs(place)
        free = stats.f_bavail * stats.f_frsize
        if free < needed:
            reasons.append(
                f"the file system of {place} has {free // 1000} kB free; {needed // 1000} kB may be needed"
            )
        elif stats.f_files and stats.f_favail < inodes:
            reasons.append(
                f"the file system of {place} has {stats.f_favail} inodes free; {inodes} may be needed"
            )
    return tuple(reasons)


def _unit_refusals(units: tuple[UnitStep, ...]) -> tuple[str, ...]:
    """Refuse to get in the way of units that are just starting or stopping."""
    acting = [step.unit for step in units if step.acts]
    return tuple(
        f"{name} is {'waiting for a job' if unit.has_job else unit['ActiveState']}; try again later"
        for name, unit in systemd.units(acting).items()
        if unit.has_job or unit["ActiveState"] in ("activating", "deactivating", "reloading")
    )


def _plan_etc(
    sysroot: Sysroot, changes: tuple[PathChange, ...]
) -> tuple[tuple[EtcStep, ...], dict[str, FileState], dict[str, FileState]]:
    """Decide about each path below /usr/etc that differs between the trees.

    Return the steps in the order they are taken, and for each path that is changed its new state and the
    one that was found.
    """
    steps: list[EtcStep] = []
    states: dict[str, FileState] = {}
    seen: dict[str, FileState] = {}
    for path, (old, new) in _etc_sides(sysroot, changes).items():
        current = files.read_state(ETC / path)
        decision = three_way(old, new, current)
        if decision is None:
            continue
        action, reason = decision
        parent = str(Path(path).parent)
        shown = states.get(parent) or files.read_state(ETC / parent)
        if action is EtcAction.WRITE and shown.type != "directory":
            action, reason = EtcAction.KEEP, "the administrator removed its directory"
        if action is not EtcAction.KEEP:
            states[path], seen[path] = new, current
        steps.append(EtcStep(path, action, reason))
    going = {ETC / path for path, state in states.items() if state.type == "absent"}
    for index, step in enumerate(steps):
        if _replaces_directory(step, states, seen) and files.holds_others(ETC / step.path, going):
            steps[index] = EtcStep(step.path, EtcAction.KEEP, "the administrator has files in the directory")
            del states[step.path]
    return _in_order(steps, states, seen), states, seen


def _etc_sides(sysroot: Sysroot, changes: tuple[PathChange, ...]) -> dict[str, tuple[FileState, FileState]]:
    """Return what the trees ship, before and after, of each path of /etc that differs; parents come first."""
    sides: dict[str, tuple[FileState, FileState]] = {}
    for change in changes:
        path = change.path.removeprefix("etc/")
        if path == change.path or path in NOT_MERGED:
            continue
        old = _state(sysroot, change.old, is_dir=change.is_dir)
        new = _state(sysroot, change.new, is_dir=change.is_dir)
        if path in sides:  # a directory became a file, or a file a directory: two entries, one path
            known_old, known_new = sides[path]
            old, new = (known_old, new) if old == ABSENT else (old, known_new)
        sides[path] = (old, new)
    return sides


def _replaces_directory(
    step: EtcStep, states: Mapping[str, FileState], seen: Mapping[str, FileState]
) -> bool:
    if step.action is not EtcAction.WRITE or states[step.path].type == "directory":
        return False
    return seen[step.path].type == "directory"


def _in_order(
    steps: list[EtcStep], states: Mapping[str, FileState], seen: Mapping[str, FileState]
) -> tuple[EtcStep, ...]:
    """Order steps: directories are made before what is in them, and go after it.

    What is new comes first, but a directory that is replaced must be empty by then.
    """
    replaced = tuple(f"{step.path}/" for step in steps if _replaces_directory(step, states, seen))
    writes = [step for step in steps if step.action is not EtcAction.REMOVE]
    removals = [step for step in reversed(steps) if step.action is EtcAction.REMOVE]
    early = [step for step in removals if replaced and step.path.startswith(replaced)]
    return (*early, *writes, *(step for step in removals if step not in early))


def _state(sysroot: Sysroot, checksum: str, *, is_dir: bool) -> FileState:
    if not checksum:
        return ABSENT
    return sysroot.repo.directory_state(checksum) if is_dir else sysroot.repo.file_state(checksum)
