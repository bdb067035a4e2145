"""Plans what a live change does to /etc: a decision for each path that the trees or overlays differ in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from apt_ostree.model.filestate import ABSENT, FileState, three_way
from apt_ostree.model.generation import EtcRecord, Generation
from apt_ostree.model.overlay import Applied, Goal
from apt_ostree.model.overlay_content import Node
from apt_ostree.model.plan import EtcAction, EtcStep
from apt_ostree.model.treediff import PathChange
from apt_ostree.system import files
from apt_ostree.system.ostree import overlays as trees
from apt_ostree.system.ostree.repo import Repo

ETC = Path("/etc")
#: Account files are never merged: users are added to them (systemd-sysusers(8)). The rest is the host's.
NOT_MERGED = frozenset(
    {f"{n}{end}" for n in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid") for end in ("", "-")}
    | {"machine-id", ".updated", ".pwd.lock", "hostname", "fstab", "resolv.conf", "mtab"}
)


@dataclass(frozen=True, slots=True)
class Cover:
    """Which paths of /etc overlays show, before and after a change.

    sides: what both trees ship of these paths; expected: path -> digest of the state that its overlay was
    made against; without: what a path holds without the overlays that show it now.
    """

    before: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()
    sides: Mapping[str, tuple[FileState, FileState]] = field(default_factory=dict)
    expected: Mapping[str, str] = field(default_factory=dict)
    without: Mapping[str, FileState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EtcPlan:
    """What a change does to /etc.

    steps: in the order they are taken; states: path -> the state that it gets, of each path that is written
    or removed; seen: what these paths held when that was decided; held: paths that overlays show from now on
    and that hold it already.
    """

    steps: tuple[EtcStep, ...] = ()
    states: Mapping[str, FileState] = field(default_factory=dict)
    seen: Mapping[str, FileState] = field(default_factory=dict)
    held: Mapping[str, FileState] = field(default_factory=dict)

    @property
    def changed(self) -> tuple[str, ...]:
        """Return the paths that are written or removed, in order."""
        return tuple(step.path for step in self.steps if step.action is not EtcAction.KEEP)


def cover(
    repo: Repo,
    source: Goal,
    target: Goal,
    *,
    expected: Mapping[str, str],
    without: Mapping[str, FileState],
) -> Cover:
    """Find out which paths overlays show in the trees before and after a change."""
    before, after = (covered(repo, goal.base, goal.overlays) for goal in (source, target))
    if not (before or after):
        return Cover()
    paths = [f"etc/{path}" for path in before | after]
    old, new = (trees.of_base(repo, commit, paths) for commit in (source.commit, target.commit))
    sides = {
        path: (_of_node(repo, old.get(f"etc/{path}")), _of_node(repo, new.get(f"etc/{path}")))
        for path in before | after
    }
    seen = {path.removeprefix("etc/"): state for path, state in expected.items()}
    return Cover(before, after, sides, seen, without)


def covered(repo: Repo, base: str, overlays: Iterable[Applied]) -> frozenset[str]:
    """Return the paths of /etc, relative to it, that overlays show or hide; of directories, new ones."""
    found = [trees.read(repo, overlay.layer, "etc").items() for overlay in overlays]
    directories = {path for nodes in found for path, node in nodes if node.kind == "directory"}
    known = trees.of_base(repo, base, [f"etc/{path}" for path in directories])
    return frozenset(
        path
        for nodes in found
        for path, node in nodes
        if node.kind != "directory" or f"etc/{path}" not in known
    )


def without_overlays(
    repo: Repo, base: str, steps: Iterable[tuple[Generation, Sequence[EtcRecord]]], target: str
) -> dict[str, FileState]:
    """Return what paths of /etc that overlays show would hold without them.

    base: the booted commit; steps: the generations of this boot with their records, the oldest first;
    target: the base that the system is to show.
    """
    found: dict[str, tuple[FileState, str]] = {}
    shown: frozenset[str] = frozenset()
    for generation, records in steps:
        now = covered(repo, generation.base, generation.overlays)
        fresh = {r.path: (r.before, base) for r in records if r.path in now - shown}
        found = {path: row for path, row in found.items() if path in now} | fresh
        shown, base = now, generation.base
    return {path: _as_in(repo, path, state, then, target) for path, (state, then) in found.items()}


def _as_in(repo: Repo, path: str, state: FileState, then: str, target: str) -> FileState:
    """Return what a path would hold by now: the new base's version, unless it had been edited."""
    if then == target:
        return state
    name = f"etc/{path}"
    old, new = (_of_node(repo, trees.of_base(repo, commit, [name]).get(name)) for commit in (then, target))
    decision = three_way(old, new, state)
    return new if decision and decision[0] is not EtcAction.KEEP else state


def _of_node(repo: Repo, node: Node | None) -> FileState:
    return _state(repo, node.checksum if node else "", is_dir=node is not None and node.kind == "directory")


def digest(state: FileState) -> str:
    """Return what tells a state from others."""
    parts = (state.type, state.mode, state.uid, state.gid, state.content, state.xattrs)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def decide(
    path: str, old: FileState, new: FileState, current: FileState, *, hidden: Cover
) -> tuple[EtcAction, str, FileState] | None:
    """Decide about one path: what happens, why, and which state it gets; None when there is nothing to do."""
    if path in hidden.after and path not in hidden.before:
        if current == new:
            return None
        if current == old or digest(current) == hidden.expected.get(path):
            return _action(new), "an overlay shows it", new
        return EtcAction.KEEP, "it was edited since the overlay was made", new
    if path in hidden.before and path not in hidden.after:
        goal = hidden.without.get(path, new)
        if current == goal:
            return None
        if current == old:
            return _action(goal), "as it is without the overlay", goal
        return EtcAction.KEEP, "it was edited while an overlay showed it", goal
    decision = three_way(old, new, current)
    return (*decision, new) if decision else None


def _action(state: FileState) -> EtcAction:
    return EtcAction.REMOVE if state.type == "absent" else EtcAction.WRITE


def plan_etc(repo: Repo, changes: tuple[PathChange, ...], hidden: Cover) -> EtcPlan:
    """Decide about each path below /usr/etc that differs between the trees."""
    steps: list[EtcStep] = []
    states: dict[str, FileState] = {}
    seen: dict[str, FileState] = {}
    sides = _etc_sides(repo, changes) | dict(sorted(hidden.sides.items()))
    for path, (old, shipped) in sides.items():
        current = files.read_state(ETC / path)
        decision = decide(path, old, shipped, current, hidden=hidden)
        if decision is None:
            continue
        action, reason, new = decision
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
    held = {path: files.read_state(ETC / path) for path in hidden.after - hidden.before - states.keys()}
    return EtcPlan(_in_order(steps, states, seen), states, seen, held)


def _etc_sides(repo: Repo, changes: tuple[PathChange, ...]) -> dict[str, tuple[FileState, FileState]]:
    """Return what the trees ship, before and after, of each path of /etc that differs; parents come first."""
    sides: dict[str, tuple[FileState, FileState]] = {}
    for change in changes:
        path = change.path.removeprefix("etc/")
        if path == change.path or path in NOT_MERGED:
            continue
        old = _state(repo, change.old, is_dir=change.is_dir)
        new = _state(repo, change.new, is_dir=change.is_dir)
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


def _state(repo: Repo, checksum: str, *, is_dir: bool) -> FileState:
    if not checksum:
        return ABSENT
    return repo.directory_state(checksum) if is_dir else repo.file_state(checksum)
