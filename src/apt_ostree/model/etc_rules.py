"""The rules for a live change of /etc: what is done with each path that differs in trees or overlays.

Paths are relative to /etc.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from apt_ostree.model import accounts
from apt_ostree.model.etc_merge import three_way
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.never_restart import never
from apt_ostree.model.plan import EtcAction, EtcStep

#: Account files are never merged: users are added to them (systemd-sysusers(8)). The others are the host's.
#: Ids in namespaces are merged: nothing else would add what a script gives to root (subuid(5)).
NOT_MERGED = frozenset(
    {*accounts.WRITTEN, *(f"{name}-" for name in accounts.SUBORDINATE_IDS)}
    | {"machine-id", ".updated", ".pwd.lock", "hostname", "fstab", "resolv.conf", "mtab"}
)
#: Where links in /etc give a unit another name (systemctl(1), enable).
_UNIT_LINKS = "systemd/system/"


#: Path that overlays show -> its state before an overlay showed it, and what the base shipped at that time.
Hidden = Mapping[str, tuple[FileState, FileState]]


@dataclass(frozen=True, slots=True)
class OverlayEtc:
    """The paths of /etc that overlays show.

    before: the paths before the change.
    after: the paths after the change.
    sides: path -> states that the old and the new tree ship, overlays included.
    expected: path -> digest of the state that its overlay was made against.
    without: path -> state without the overlays that show it now.
    """

    before: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()
    sides: Mapping[str, tuple[FileState, FileState]] = field(default_factory=dict)
    expected: Mapping[str, str] = field(default_factory=dict)
    without: Mapping[str, FileState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EtcPlan:
    """The changes of /etc.

    steps: in the order of execution.
    states: path -> new state, of each path that is written or removed.
    seen: path -> state at the time of the plan, of the same paths.
    held: path -> state of the paths that overlays show after the change and that have this state already.
    """

    steps: tuple[EtcStep, ...] = ()
    states: Mapping[str, FileState] = field(default_factory=dict)
    seen: Mapping[str, FileState] = field(default_factory=dict)
    held: Mapping[str, FileState] = field(default_factory=dict)

    @property
    def changed(self) -> tuple[str, ...]:
        """Return the paths that are written or removed, in order."""
        return tuple(step.path for step in self.steps if step.action is not EtcAction.KEEP)


def digest(state: FileState) -> str:
    """Return a checksum of a state, which identifies it."""
    parts = (state.type, state.mode, state.uid, state.gid, state.content, state.xattrs)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def directory_of(path: str) -> str:
    """Return the parent directory of a path; "." is /etc itself."""
    return path.rpartition("/")[0] or "."


def join_sides(
    entries: Iterable[tuple[str, FileState, FileState]],
) -> dict[str, tuple[FileState, FileState]]:
    """Return path -> states that the old and the new tree ship, of entries (path, old, new).

    A directory that becomes a file, or a file that becomes a directory, has two entries.
    """
    sides: dict[str, tuple[FileState, FileState]] = {}
    for path, old, new in entries:
        first_old, first_new = sides.get(path, (ABSENT, ABSENT))
        sides[path] = (first_old if old == ABSENT else old, first_new if new == ABSENT else new)
    return sides


def decide(
    path: str, old: FileState, new: FileState, current: FileState, *, overlays: OverlayEtc
) -> tuple[EtcAction, str, FileState] | None:
    """Return the action for one path, its reason, and the new state; None if there is nothing to do."""
    if path in overlays.after and path not in overlays.before:
        if current == new:
            return None
        if current == old or digest(current) == overlays.expected.get(path):
            return _action(new), "an overlay shows it", new
        return EtcAction.KEEP, "it was edited since the overlay was made", new
    if path in overlays.before and path not in overlays.after:
        goal = overlays.without.get(path, new)
        if current == goal:
            return None
        if current == old:
            return _action(goal), "as it is without the overlay", goal
        return EtcAction.KEEP, "it was edited while an overlay showed it", goal
    decision = three_way(old, new, current)
    return (*decision, new) if decision else None


def _action(state: FileState) -> EtcAction:
    return EtcAction.REMOVE if state.type == "absent" else EtcAction.WRITE


def decide_all(
    sides: Mapping[str, tuple[FileState, FileState]],
    current: Mapping[str, FileState],
    overlays: OverlayEtc,
) -> EtcPlan:
    """Return the plan for all paths; its steps are not in the order of execution yet, see `in_order`.

    sides: as `join_sides` returns them, a directory before its contents.
    current: path -> present state, of these paths and of their parent directories.
    """
    steps: list[EtcStep] = []
    states: dict[str, FileState] = {}
    seen: dict[str, FileState] = {}
    for path, (old, shipped) in sides.items():
        decision = decide(path, old, shipped, current[path], overlays=overlays)
        if decision is None:
            continue
        action, reason, new = decision
        directory = directory_of(path)
        if action is EtcAction.WRITE and states.get(directory, current[directory]).type != "directory":
            action, reason = EtcAction.KEEP, "the administrator removed its directory"
        if action is not EtcAction.KEEP:
            states[path], seen[path] = new, current[path]
        steps.append(EtcStep(path, action, reason))
    return EtcPlan(tuple(steps), states, seen)


def replaced_directories(plan: EtcPlan) -> tuple[str, ...]:
    """Return the directories that are replaced by a path of another type."""
    return tuple(
        step.path
        for step in plan.steps
        if step.action is EtcAction.WRITE
        and plan.states[step.path].type != "directory"
        and plan.seen[step.path].type == "directory"
    )


def keep_occupied(plan: EtcPlan, occupied: Collection[str]) -> EtcPlan:
    """Return the plan without the removal of directories in which something else is."""
    return _keep(plan, dict.fromkeys(occupied, "something else is in the directory")) if occupied else plan


def keep_aliases(plan: EtcPlan, active: Collection[str]) -> EtcPlan:
    """Return the plan without links that put another unit in the place of one that is never restarted.

    systemd would take the running unit, such as dbus.service, for the other one.

    active: the names of the active units.
    """
    reasons = {
        path: f"{name} runs until the reboot"
        for path, state in plan.states.items()
        if (name := path.removeprefix(_UNIT_LINKS)) in active
        and state.type == "symlink"
        and state.content.rpartition(b"/")[2] not in (name.encode(), b"null")
        and never(name)
    }
    return _keep(plan, reasons)


def _keep(plan: EtcPlan, reasons: Mapping[str, str]) -> EtcPlan:
    """Return the plan without the changes of these paths."""
    return EtcPlan(
        tuple(
            EtcStep(step.path, EtcAction.KEEP, reasons[step.path]) if step.path in reasons else step
            for step in plan.steps
        ),
        {path: state for path, state in plan.states.items() if path not in reasons},
        {path: state for path, state in plan.seen.items() if path not in reasons},
        plan.held,
    )


def in_order(plan: EtcPlan) -> tuple[EtcStep, ...]:
    """Return the steps in the order of execution.

    Directories are written before and removed after their contents. Writes precede removals, except for
    removals below a directory that is replaced, which has to be empty. A plan in this order stays as it is.
    """
    replaced = tuple(f"{path}/" for path in replaced_directories(plan))
    writes = [step for step in plan.steps if step.action is not EtcAction.REMOVE]
    removals = sorted(
        (step for step in plan.steps if step.action is EtcAction.REMOVE), key=lambda s: s.path, reverse=True
    )
    early = [step for step in removals if step.path.startswith(replaced)]
    return (*early, *writes, *(step for step in removals if step not in early))


def hidden_after(earlier: Hidden, plan: EtcPlan, overlays: OverlayEtc) -> Hidden:
    """Return what overlays hide after a change.

    earlier: what they hide before it.
    plan: what the change does to /etc.
    """
    states = {**plan.seen, **plan.held}
    fresh = {
        path: (states[path], overlays.sides[path][0])
        for path in overlays.after - overlays.before
        if path in states
    }
    return {path: row for path, row in earlier.items() if path in overlays.after} | fresh


def on_new_base(old: FileState, new: FileState, hidden: FileState) -> FileState:
    """Return the state of a path without the overlay that hides it: the new base's, unless it was edited.

    old, new: the states that the base ships: when the overlay was shown first, and now.
    hidden: the state when the overlay was shown first.
    """
    decision = three_way(old, new, hidden)
    return new if decision and decision[0] is not EtcAction.KEEP else hidden
