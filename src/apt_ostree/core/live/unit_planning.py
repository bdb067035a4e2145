"""Plans what a live change means for the units that run: gathers facts, asks the rules; touches nothing."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from apt_ostree.core.live import unit_files
from apt_ostree.model import layout, maintscript, unitfile, unitrules
from apt_ostree.model import plan as rules
from apt_ostree.model.filestate import FileState
from apt_ostree.model.never_restart import never
from apt_ostree.model.package import PackageDiff
from apt_ostree.model.plan import EtcAction, EtcStep, RestartPolicy, UnitAction, UnitStep
from apt_ostree.model.treediff import Kind, PathChange
from apt_ostree.model.unitrules import Decision, Facts, Need
from apt_ostree.system import running, systemd
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.repo import Repo
from apt_ostree.system.running import Process
from apt_ostree.system.systemd import Unit

_PID1 = "init.scope"
#: What takes along the units that depend on a unit, and what a restart that comes with it makes up for.
_ENDING = (UnitAction.RESTART, UnitAction.STOP)
_LESS = (UnitAction.RELOAD, UnitAction.REFRESH, UnitAction.SKIP)


@dataclass(frozen=True, slots=True)
class View:
    """What of a view that /usr showed the target lacks or has in another version.

    since: when it was shown first, in seconds since 1970; files: paths below /usr, each with the object that
    it becomes ("" where it goes).
    """

    since: float
    files: Mapping[str, str]


@dataclass(frozen=True)
class UnitChange:
    """What a live change does, as far as it matters to units.

    new_states: the new state of each unit file and drop-in that differs, by its path; etc: paths of /etc
    that change; views: those of this boot, the oldest first, since a process may still use any of them.
    """

    packages: PackageDiff
    target: str
    changes: tuple[PathChange, ...]
    etc: tuple[EtcStep, ...] = ()
    new_states: Mapping[str, FileState] = field(default_factory=dict)
    views: tuple[View, ...] = ()

    @cached_property
    def files(self) -> Mapping[str, str]:
        """Return what differs from any view."""
        return {path: new for view in self.views for path, new in view.files.items()}

    def files_since(self, started: float) -> Mapping[str, str]:
        """Return what differs from the view that a program saw which was started then (0: unknown)."""
        seen = [view for view in self.views if view.since <= started]
        return seen[-1].files if started and seen else self.files

    @cached_property
    def etc_paths(self) -> frozenset[str]:
        """Return the paths of /etc that change or go, and that a running service may have read.

        What packages add is for their own services, which start with it; an overlay adds to what runs.
        """
        changed = {step.path for step in self.etc if step.action is not EtcAction.KEEP}
        added = {c.path.removeprefix("etc/") for c in self.changes if c.kind is Kind.ADDED}
        if not self.packages:
            return frozenset(f"/etc/{path}" for path in changed - {"ld.so.cache"})
        return frozenset(f"/etc/{path}" for path in changed - added - {"ld.so.cache"})


@dataclass(frozen=True, slots=True)
class _Ownership:
    """What changed packages own of what matters here, and what their scripts do with units."""

    units: Mapping[str, str] = field(default_factory=dict)  # path of a unit file -> package
    configuration: Mapping[str, str] = field(default_factory=dict)  # path of /etc -> package
    restarts: Mapping[str, bool] = field(default_factory=dict)  # unit -> restarted on upgrade


@dataclass(frozen=True, slots=True)
class _Context:
    """What deciding about one unit needs besides the unit."""

    change: UnitChange
    owned: _Ownership
    active: Mapping[str, Unit]
    overrides: Mapping[str, Need]


def plan_units(
    repo: Repo,
    change: UnitChange,
    *,
    policy: RestartPolicy = RestartPolicy.NONE,
    overrides: Mapping[str, Need] | None = None,
) -> tuple[UnitStep, ...]:
    """Decide about every unit that the change affects, with a reason for each."""
    active = _active_units(change)
    stale = _stale_processes(repo, change)
    context = _Context(change, _ownership(repo, change, active.values()), active, overrides or {})
    steps: list[UnitStep] = []
    for name, unit in sorted(active.items()):
        if name.endswith(".scope"):
            continue
        processes = stale.get(name, {})
        others = {process: processes[process] for process in processes if not _is_manager(process, unit)}
        if decision := _decide(unit, others, context):
            steps += _to_steps(decision, others, policy)
    steps = with_dependents(steps, active)
    steps += _managers(stale, active, policy)
    steps += _scopes(stale, active)
    steps += _newly_enabled(change, active, {step.unit for step in steps}, context.overrides)
    return _with_clients([_allowed(step) for step in steps], active)


def _active_units(change: UnitChange) -> dict[str, Unit]:
    """Return the active units that the change may affect: all, unless it only adds to the system."""
    if change.files or change.new_states or change.etc_paths:
        return systemd.active_units()
    enabled = _enabled(change)
    concerned = {*enabled, *(target for targets in enabled.values() for target in targets)}
    return {name: unit for name, unit in systemd.units(concerned).items() if unit.is_active}


# -- what runs old code ---------------------------------------------------------------------------


def _stale_processes(repo: Repo, change: UnitChange) -> dict[str, dict[Process, tuple[str, ...]]]:
    """Return by unit the processes that execute files which the target lacks or has in another version."""
    found: dict[str, dict[Process, tuple[str, ...]]] = {}
    if not change.files:
        return found
    ourselves = {os.getpid(), os.getppid()}
    inodes: dict[str, int] = {}
    for process in running.processes():
        if process.pid in ourselves or not process.unit:
            continue
        files = []
        for path, inode in process.mapped:
            name = _below_usr(path, change.files)
            if name is None:
                continue
            checksum = change.files[name]
            if checksum and checksum not in inodes:
                inodes[checksum] = repo.inode(checksum)
            if not checksum or inodes[checksum] != inode:
                files.append(f"/usr/{name}")
        if files:
            found.setdefault(process.unit, {})[process] = tuple(sorted(files))
    return found


def _below_usr(path: str, files: Mapping[str, str]) -> str | None:
    """Return a mapped path relative to /usr, if it is one of `files`; a detached view shows no /usr in it."""
    for name in (path.removeprefix("/usr/"), path.removeprefix("/")):
        if name in files:
            return name
    return None


# -- facts and decisions --------------------------------------------------------------------------


def _decide(unit: Unit, stale: Mapping[Process, tuple[str, ...]], context: _Context) -> Decision | None:
    change, owned = context.change, context.owned
    old, new, gone = unit_files.definitions(unit, change.new_states)
    if old is None and new is None:
        old = new = unit_files.on_disk(unit)
    definition = new or old or unit_files.on_disk(unit)
    programs = unitfile.executables(definition)
    files = change.files_since(unit.started)
    used = {*unitfile.configuration(definition), *unitfile.environment_files(definition)}
    package = owned.units.get(unit.fragment, "")
    facts = Facts(
        name=unit.name,
        unit_type=unit["Type"],
        remain_after_exit=unit["RemainAfterExit"] == "yes",
        can_reload=unit["CanReload"] == "yes",
        refuse_manual_stop=unit["RefuseManualStop"] == "yes",
        old=old,
        new=new,
        gone=gone,
        stale=tuple(sorted({path for paths in stale.values() for path in paths})),
        programs=tuple(sorted(p for p in programs if _is_changed_script(p, files))),
        configuration=tuple(
            sorted(
                path
                for path in change.etc_paths
                if path in used or (package and owned.configuration.get(path) == package)
            )
        ),
        package=package,
        package_restarts=owned.restarts.get(unit.name, owned.restarts.get(unitfile.template(unit.name))),
        old_view=bool(change.files) and unit.main_pid > 1 and running.keeps_view(unit.main_pid),
        own=unit.name == _own_unit(),
        sockets=tuple(
            s for s in unit["TriggeredBy"].split() if s.endswith(".socket") and s in context.active
        ),
        override=context.overrides.get(unit.name, context.overrides.get(unitfile.template(unit.name))),
    )  # fmt: skip
    return unitrules.decide(facts)


def _to_steps(
    decision: Decision, stale: Mapping[Process, tuple[str, ...]], policy: RestartPolicy
) -> Iterator[UnitStep]:
    restarting = policy is not RestartPolicy.NONE
    actions = {
        Need.STOP: (UnitAction.STOP, restarting or not decision.start_again),
        Need.RELOAD: (UnitAction.RELOAD, restarting),
        Need.RESTART: (UnitAction.RESTART, restarting),
        Need.REFRESH: (UnitAction.REFRESH, False),
        Need.DEFER: (UnitAction.DEFER, False),
        Need.SKIP: (UnitAction.SKIP, False),
    }
    if decision.need not in actions:
        return
    action, acts = actions[decision.need]
    if action is UnitAction.REFRESH and policy is RestartPolicy.ALL:
        action, acts = UnitAction.RESTART, True
    processes = tuple(process.label for process in sorted(stale, key=lambda p: p.pid))
    step = UnitStep(decision.unit, action, decision.reason, decision.evidence, processes, acts)
    yield step
    if decision.start_again:
        yield replace(step, action=UnitAction.START, reason="stopped before the switch", processes=())


def with_dependents(steps: Sequence[UnitStep], active: Mapping[str, Unit]) -> list[UnitStep]:
    """Add the services that systemd stops or restarts together with those of the plan, and by which reason.

    A unit that would take one along that is never restarted has to wait as well.
    """
    found = {step.unit: step for step in steps}
    started = {step.unit for step in steps if step.action is UnitAction.START}
    along: set[str] = set()
    result = []
    for step in steps:
        if step.unit in along:
            continue
        taken = _dependents(step, active) if step.action in _ENDING else ()
        untouchable = [name for name in taken if never(name)]
        if untouchable and step.action is UnitAction.RESTART:
            reason = f"{untouchable[0]} would be restarted with it, which never is"
            result.append(replace(step, action=UnitAction.DEFER, reason=reason, acts=False))
            continue
        result.append(step)
        for name in taken:
            planned = found.get(name)
            if planned is None or planned.action in _LESS or (step.acts and not planned.acts):
                found[name] = replace(step, unit=name, reason=f"it goes with {step.unit}", processes=())
                along.add(name)
                result = [other for other in result if other.unit != name]
                result.append(found[name])
                if step.action is UnitAction.STOP and step.unit in started:
                    result.append(replace(found[name], action=UnitAction.START))
    return result


def _dependents(step: UnitStep, active: Mapping[str, Unit]) -> tuple[str, ...]:
    """Return the running services that stop when a unit does what is planned, also by way of others."""
    restarting = step.action is UnitAction.RESTART
    found: dict[str, None] = {}
    waiting = [step.unit]
    while waiting:
        unit = active.get(waiting.pop(0))
        for name in sorted(unit.dependents(restarting=restarting) if unit else ()):
            if name in active and name not in found and name != step.unit and name.endswith(".service"):
                found[name] = None
                waiting.append(name)
    return tuple(found)


def _is_changed_script(path: str, files: Mapping[str, str]) -> bool:
    """Tell whether an interpreter runs this changed file; a binary that runs is known by its mapping."""
    name = unitfile.merged(path)
    if name.removeprefix("/usr/") not in files:
        return False
    try:
        with Path(name).open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return True


def _managers(
    stale: Mapping[str, Mapping[Process, tuple[str, ...]]], active: Mapping[str, Unit], policy: RestartPolicy
) -> Iterator[UnitStep]:
    """Yield systemd itself and the users' managers, where they run old code: they can replace themselves."""
    for name, found in sorted(stale.items()):
        for process, files in found.items():
            if name in active and _is_manager(process, active[name]):
                yield UnitStep(
                    name,
                    UnitAction.REEXEC,
                    "systemd runs old code and can execute itself anew",
                    files,
                    (process.label,),
                    acts=policy is not RestartPolicy.NONE,
                )


def _scopes(
    stale: Mapping[str, Mapping[Process, tuple[str, ...]]], active: Mapping[str, Unit]
) -> Iterator[UnitStep]:
    """Yield the scopes whose processes run old code: nobody but their users can end them."""
    for name, found in sorted(stale.items()):
        if name.endswith(".scope") and name != _PID1 and name in active:
            files = tuple(sorted({path for paths in found.values() for path in paths}))
            labels = tuple(process.label for process in sorted(found, key=lambda p: p.pid))
            yield UnitStep(
                name, UnitAction.DEFER, "its processes run old code until they end", files, labels, acts=False
            )


def _is_manager(process: Process, unit: Unit) -> bool:
    """Tell whether a process is systemd, the system's or a user's."""
    if unit.name == _PID1:
        return process.pid == 1
    return unit.name.startswith("user@") and process.pid == unit.main_pid


def _with_clients(steps: Sequence[UnitStep], active: Mapping[str, Unit]) -> tuple[UnitStep, ...]:
    """Tell of each unit that is to be restarted or stopped how many clients lose their connection."""
    ending = [step for step in steps if step.action in _ENDING]
    found = running.clients({step.unit for step in ending if not active[step.unit].keeps_connections})
    return tuple(replace(s, clients=found.get(s.unit, 0)) if s in ending else s for s in steps)


def _newly_enabled(
    change: UnitChange,
    active: Mapping[str, Unit],
    planned: Collection[str],
    overrides: Mapping[str, Need],
) -> Iterator[UnitStep]:
    """Yield the units that the change enables for something that runs: installing a package starts them."""
    for unit, targets in sorted(_enabled(change).items()):
        wanted = sorted(targets & active.keys())
        startable = systemd.is_unit_name(unit) and not unit_files.is_masked(unit)
        if not wanted or unit in active or unit in planned or not startable:
            continue
        if overrides.get(unit) in (Need.SKIP, Need.DEFER):
            yield UnitStep(unit, UnitAction.SKIP, "the configuration says so", acts=False)
        else:
            yield UnitStep(unit, UnitAction.START, f"newly enabled for {wanted[0]}")


def _enabled(change: UnitChange) -> dict[str, set[str]]:
    """Return the units that the change enables, each with the units that want it."""
    kept = {f"etc/{step.path}" for step in change.etc if step.action is EtcAction.KEEP}
    found: dict[str, set[str]] = {}
    for entry in change.changes:
        link = rules.enabled_unit(entry.path)
        if link and entry.kind is Kind.ADDED and entry.path not in kept:
            found.setdefault(link[1], set()).add(link[0])
    return found


def _allowed(step: UnitStep) -> UnitStep:
    """Ask the administrator's policy about what is to be done."""
    words = {UnitAction.START: "start", UnitAction.STOP: "stop", UnitAction.RESTART: "restart",
             UnitAction.RELOAD: "reload"}  # fmt: skip
    if not step.acts or step.action not in words or systemd.is_allowed(step.unit, words[step.action]):
        return step
    return replace(
        step, action=UnitAction.SKIP, reason=f"policy-rc.d forbids to {words[step.action]} it", acts=False
    )


# -- packages -------------------------------------------------------------------------------------


def _ownership(repo: Repo, change: UnitChange, active: Collection[Unit]) -> _Ownership:
    """Find out which packages own active units and changed configuration, and what their scripts do."""
    info = diff.directory_of(repo, change.target, f"{layout.DPKG_ADMINDIR}/info")
    if info is None or not (change.packages.changed or change.etc_paths):
        return _Ownership()
    files = diff.read_tree(repo, info[0])[0]

    def read(name: str) -> str:
        return repo.file_state(files[name]).content.decode(errors="replace") if name in files else ""

    changed = {_info_name(files, package.name, package.architecture): package.name
               for package in change.packages.changed}  # fmt: skip
    restarts: dict[str, bool] = {}
    for name in changed:
        restarts |= maintscript.restarts(read(f"{name}.postinst"), read(f"{name}.prerm"))
    # An overlay changes configuration of packages that stay as they are, and adds to their directories.
    names = {name.removesuffix(".list") for name in files if name.endswith(".list")}
    wanted = changed.keys() if change.packages else names
    fragments = {unit.fragment for unit in active if unit.fragment}
    directories = frozenset() if change.packages else {str(Path(path).parent) for path in change.etc_paths}
    sought = fragments | change.etc_paths | directories
    owners: dict[str, set[str]] = {}
    for name in sorted(wanted):
        for path in {unitfile.merged(line) for line in read(f"{name}.list").splitlines()} & sought:
            owners.setdefault(path, set()).add(name.partition(":")[0])
    owner = {path: next(iter(found)) for path, found in owners.items() if len(found) == 1}
    configuration = {p: owner.get(p) or owner.get(str(Path(p).parent), "") for p in change.etc_paths}
    return _Ownership({p: owner[p] for p in fragments & owner.keys()}, configuration, restarts)


def _info_name(files: Collection[str], package: str, architecture: str) -> str:
    """Return how dpkg calls a package's files: those of some have the architecture in their names."""
    return package if f"{package}.list" in files else f"{package}:{architecture}"


def _own_unit() -> str:
    return running.unit_of_cgroup(Path("/proc/self/cgroup").read_text())
