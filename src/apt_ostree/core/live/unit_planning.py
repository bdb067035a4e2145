"""Plans the actions of a live change on units: gathers facts and applies the rules. It changes nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from apt_ostree.core.live import unit_files
from apt_ostree.model import (
    dpkg_lists,
    layout,
    maintscript,
    unitchange,
    unitfile,
    unitrules,
    unitsteps,
)
from apt_ostree.model.plan import RestartPolicy, UnitAction, UnitStep
from apt_ostree.model.unit import Process, Unit
from apt_ostree.model.unitchange import UnitChange, below_usr
from apt_ostree.model.unitrules import Decision, Facts, Need
from apt_ostree.system import running, systemd
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.repo import Repo


@dataclass(frozen=True, slots=True)
class _Ownership:
    """What changed packages own, and what their scripts do with units.

    units: the package of a unit file, by path.
    configuration: the package of a path of /etc.
    restarts: whether a unit is restarted on an upgrade.
    """

    units: Mapping[str, str] = field(default_factory=dict)
    configuration: Mapping[str, str] = field(default_factory=dict)
    restarts: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Context:
    """What a decision about a unit needs besides the unit.

    change: the change.
    owned: what the changed packages own.
    active: the active units.
    overrides: the administrator's settings of units.
    """

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
    """Return a step, with its reason, for every unit that the change affects.

    policy: which units are acted on.
    overrides: the administrator's settings of units.
    """
    enabled = _enabled(repo, change)
    stale = _stale_processes(repo, change)
    if not (enabled or stale) and _is_of_data(change):
        return ()
    active = _active_units(change, enabled)
    context = _Context(change, _ownership(repo, change, active.values()), active, overrides or {})
    steps: list[UnitStep] = []
    for name, unit in sorted(active.items()):
        if name.endswith(".scope"):
            continue
        processes = stale.get(name, {})
        remaining = {
            process: processes[process] for process in processes if not unitsteps.is_manager(process, unit)
        }
        if decision := _decide(unit, remaining, context):
            steps += unitsteps.to_steps(decision, remaining, policy)
    steps = unitsteps.with_dependents(steps, active)
    steps += unitsteps.managers(stale, active, policy)
    steps += unitsteps.scopes(stale, active)
    left_out = {step.unit for step in steps} | set(filter(unit_files.is_masked, enabled))
    steps += unitsteps.newly_enabled(enabled, active, left_out=left_out, overrides=context.overrides)
    return _with_clients([_allowed(step) for step in steps], active)


def _enabled(repo: Repo, change: UnitChange) -> dict[str, set[str]]:
    """Return unit that the change enables -> units that want it."""
    scripts = {
        unit: {"multi-user.target"}
        for unit in unitchange.enabled_scripts(change)
        if not unit_files.is_in_tree(repo, change.target, unit)
    }
    return scripts | unitchange.enabled(change)


def _is_of_data(change: UnitChange) -> bool:
    """Return whether a change cannot affect a unit, unless a process executes what it changes.

    What systemd knows of all units takes longer to ask for than the rest of a small change.
    """
    if change.new_states or change.etc_paths or change.packages.changed:
        return False
    return all(map(_is_data, change.files)) and not (change.files and running.is_a_view_kept())


def _is_data(path: str) -> bool:
    """Return whether a path of the present /usr is a file that is neither executable nor a script."""
    file = Path("/usr", path)
    try:
        mode = file.lstat().st_mode
        return stat.S_ISREG(mode) and not mode & 0o111 and not _is_script(file)
    except OSError:
        return False


def _active_units(change: UnitChange, enabled: Mapping[str, Collection[str]]) -> dict[str, Unit]:
    """Return the active units that the change may affect: all, unless it only adds to the system."""
    if change.files or change.new_states or change.etc_paths:
        return systemd.active_units()
    concerned = {*enabled, *(target for targets in enabled.values() for target in targets)}
    return {name: unit for name, unit in systemd.units(concerned).items() if unit.is_active}


# -- processes with old code ----------------------------------------------------------------------


def _stale_processes(repo: Repo, change: UnitChange) -> dict[str, dict[Process, tuple[str, ...]]]:
    """Return by unit the processes that execute files which are removed or changed in the target."""
    stale: dict[str, dict[Process, tuple[str, ...]]] = {}
    if not change.files:
        return stale
    # The parent is the command that waits, or PID 1, which runs a worker of the service.
    ourselves = {os.getpid(), os.getppid()} - {1}
    inodes: dict[str, int] = {}
    for process in running.processes():
        if process.pid in ourselves or not process.unit:
            continue
        files = []
        for path, inode in process.mapped:
            name = below_usr(path, change.files)
            if name is None:
                continue
            checksum = change.files[name]
            if checksum and checksum not in inodes:
                inodes[checksum] = repo.inode(checksum)
            if not checksum or inodes[checksum] != inode:
                files.append(f"/usr/{name}")
        if files:
            stale.setdefault(process.unit, {})[process] = tuple(sorted(files))
    return stale


# -- facts and decisions --------------------------------------------------------------------------


def _decide(unit: Unit, stale: Mapping[Process, tuple[str, ...]], context: _Context) -> Decision | None:
    change, owned = context.change, context.owned
    old, new, removed = unit_files.definitions(unit, change.new_states)
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
        removed=removed,
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
        aliases=unit.names[1:],
        override=context.overrides.get(unit.name, context.overrides.get(unitfile.template(unit.name))),
    )  # fmt: skip
    return unitrules.decide(facts)


def _is_changed_script(path: str, files: Mapping[str, str]) -> bool:
    """Return whether a changed file is a script; a changed binary that runs is detected by its mapping."""
    name = unitfile.in_tree(path)
    if name.removeprefix("/usr/") not in files:
        return False
    try:
        return _is_script(Path(name))
    except OSError:
        return True


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def _with_clients(steps: Sequence[UnitStep], active: Mapping[str, Unit]) -> tuple[UnitStep, ...]:
    ending = {step.unit for step in steps if step.action in unitsteps.ENDING}
    losing = {name for name in ending if not active[name].keeps_connections}
    return unitsteps.with_clients(steps, running.clients(losing))


def _allowed(step: UnitStep) -> UnitStep:
    """Return the step, or a skipped one if policy-rc.d forbids the action."""
    actions = {UnitAction.START: "start", UnitAction.STOP: "stop", UnitAction.RESTART: "restart",
               UnitAction.RELOAD: "reload"}  # fmt: skip
    if not step.acts or step.action not in actions or systemd.is_allowed(step.unit, actions[step.action]):
        return step
    return replace(
        step, action=UnitAction.SKIP, reason=f"policy-rc.d forbids to {actions[step.action]} it", acts=False
    )


# -- packages -------------------------------------------------------------------------------------


def _ownership(repo: Repo, change: UnitChange, active: Collection[Unit]) -> _Ownership:
    """Return which packages own active units and changed configuration, and what their scripts do."""
    info = diff.directory_of(repo, change.target, f"{layout.DPKG_ADMINDIR}/info")
    if info is None or not (change.packages.changed or change.etc_paths):
        return _Ownership()
    files = diff.read_dirtree(repo, info[0])[0]

    def read(name: str) -> str:
        return repo.file_state(files[name]).content.decode(errors="replace") if name in files else ""

    changed = {dpkg_lists.info_name(files, package.name, package.architecture): package.name
               for package in change.packages.changed}  # fmt: skip
    restarts: dict[str, bool] = {}
    for name in changed:
        restarts |= maintscript.restarts(read(f"{name}.postinst"), read(f"{name}.prerm"))
    # An overlay changes and adds configuration of packages that are not changed themselves.
    names = {name.removesuffix(".list") for name in files if name.endswith(".list")}
    candidates = changed.keys() if change.packages else names
    fragments = {unit.fragment for unit in active if unit.fragment}
    directories = frozenset() if change.packages else {str(Path(path).parent) for path in change.etc_paths}
    lists = {name: read(f"{name}.list") for name in candidates}
    owner = dpkg_lists.owners(lists, fragments | change.etc_paths | directories)
    configuration = {p: owner.get(p) or owner.get(str(Path(p).parent), "") for p in change.etc_paths}
    return _Ownership({p: owner[p] for p in fragments & owner.keys()}, configuration, restarts)


def _own_unit() -> str:
    return running.unit_of_cgroup(Path("/proc/self/cgroup").read_text())
