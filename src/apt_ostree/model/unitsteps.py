"""The steps of a plan for units: the actions, dependent units, and the order of restarts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from apt_ostree.model.never_restart import never
from apt_ostree.model.plan import RestartPolicy, UnitAction, UnitStep
from apt_ostree.model.unit import Process, Unit, is_unit_name
from apt_ostree.model.unitfile import template
from apt_ostree.model.unitrules import Decision, Need

_PID1 = "init.scope"

#: Actions that systemd extends to dependent units.
ENDING = (UnitAction.RESTART, UnitAction.STOP)

_LESS = (UnitAction.RELOAD, UnitAction.REFRESH, UnitAction.SKIP)


def to_steps(
    decision: Decision, stale: Mapping[Process, tuple[str, ...]], policy: RestartPolicy
) -> Iterator[UnitStep]:
    """Yield the steps for a unit: one, or two if it is stopped and started again.

    stale: process of the unit that runs old code -> files of that code.
    """
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
    """Return the steps with further ones for services that systemd stops or restarts together with a unit.

    A unit is deferred if a unit that must not be restarted would be restarted or stopped with it.
    """
    step_of = {step.unit: step for step in steps}
    started = {step.unit for step in steps if step.action is UnitAction.START}
    along: set[str] = set()
    deferred: set[str] = set()
    result: list[UnitStep] = []
    for step in steps:
        if step.unit in along or step.unit in deferred:
            continue
        taken = _dependents(step, active) if step.action in ENDING else ()
        untouchable = [name for name in taken if never(*active[name].names)]
        if untouchable:
            ended = "restarted" if step.action is UnitAction.RESTART else "stopped"
            reason = f"{untouchable[0]} would be {ended} with it, which is never restarted"
            result.append(replace(step, action=UnitAction.DEFER, reason=reason, acts=False))
            deferred.add(step.unit)
            continue
        result.append(step)
        for name in taken:
            planned = step_of.get(name)
            if planned is None or planned.action in _LESS or (step.acts and not planned.acts):
                step_of[name] = replace(step, unit=name, reason=f"together with {step.unit}", processes=())
                along.add(name)
                result = [other for other in result if other.unit != name]
                result.append(step_of[name])
                if step.action is UnitAction.STOP and step.unit in started:
                    result.append(replace(step_of[name], action=UnitAction.START))
    return result


def _dependents(step: UnitStep, active: Mapping[str, Unit]) -> tuple[str, ...]:
    return dependents_of(step.unit, active, restarting=step.action is UnitAction.RESTART)


def dependents_of(name: str, active: Mapping[str, Unit], *, restarting: bool) -> tuple[str, ...]:
    """Return the running services that stop when a unit is restarted or stopped, directly or indirectly."""
    dependents: dict[str, None] = {}
    waiting = [name]
    while waiting:
        unit = active.get(waiting.pop(0))
        for other in sorted(unit.dependents(restarting=restarting) if unit else ()):
            if other in active and other not in dependents and other != name and other.endswith(".service"):
                dependents[other] = None
                waiting.append(other)
    return tuple(dependents)


def managers(
    stale: Mapping[str, Mapping[Process, tuple[str, ...]]], active: Mapping[str, Unit], policy: RestartPolicy
) -> Iterator[UnitStep]:
    """Yield the steps for managers (systemd and users') that run old code: they can be re-executed."""
    for name, processes in sorted(stale.items()):
        for process, files in processes.items():
            if name in active and is_manager(process, active[name]):
                yield UnitStep(
                    name,
                    UnitAction.REEXEC,
                    "systemd runs old code and can re-execute itself",
                    files,
                    (process.label,),
                    acts=policy is not RestartPolicy.NONE,
                )


def scopes(
    stale: Mapping[str, Mapping[Process, tuple[str, ...]]], active: Mapping[str, Unit]
) -> Iterator[UnitStep]:
    """Yield the steps for scopes whose processes run old code, which only their users can end."""
    for name, processes in sorted(stale.items()):
        if name.endswith(".scope") and name != _PID1 and name in active:
            files = tuple(sorted({path for paths in processes.values() for path in paths}))
            labels = tuple(process.label for process in sorted(processes, key=lambda p: p.pid))
            yield UnitStep(
                name, UnitAction.DEFER, "its processes run old code until they end", files, labels, acts=False
            )


def is_manager(process: Process, unit: Unit) -> bool:
    """Return whether a process is systemd, the system's or a user's."""
    if unit.name == _PID1:
        return process.pid == 1
    return unit.name.startswith("user@") and process.pid == unit.main_pid


def rolling(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return groups of units to restart at the same time; the instances of a template are separate groups."""
    count = Counter(map(template, names))
    together = tuple(name for name in names if count[template(name)] == 1)
    one_by_one = [(name,) for name in names if count[template(name)] > 1]
    return [*([together] if together else []), *one_by_one]


def newly_enabled(
    enabled: Mapping[str, Collection[str]],
    active: Collection[str],
    *,
    left_out: Collection[str],
    overrides: Mapping[str, Need],
) -> Iterator[UnitStep]:
    """Yield the steps for units that a change enables for an active target: installing a package starts them.

    enabled: unit -> the units that want it.
    left_out: units that are masked, or in the plan already.
    overrides: the administrator's settings.
    """
    for unit, targets in sorted(enabled.items()):
        active_targets = sorted(target for target in targets if target in active)
        if not active_targets or unit in active or unit in left_out or not is_unit_name(unit):
            continue
        if overrides.get(unit) in (Need.SKIP, Need.DEFER):
            yield UnitStep(unit, UnitAction.SKIP, "the configuration says so", acts=False)
        else:
            yield UnitStep(unit, UnitAction.START, f"newly enabled for {active_targets[0]}")


def with_clients(steps: Iterable[UnitStep], clients: Mapping[str, int]) -> tuple[UnitStep, ...]:
    """Return the steps with the number of clients that lose their connection.

    clients: unit -> number of accepted connections.
    """
    return tuple(
        replace(step, clients=clients.get(step.unit, 0)) if step.action in ENDING else step for step in steps
    )


def busy_refusals(units: Mapping[str, Unit]) -> tuple[str, ...]:
    """Return why units cannot be acted on now: they are starting or stopping.

    One that fails again and again waits for its next start, and can be stopped meanwhile.
    """
    return tuple(
        f"{name} is {'waiting for a job' if unit.has_job else unit['ActiveState']}; try again later"
        for name, unit in units.items()
        if unit.has_job
        or (
            unit["ActiveState"] in ("activating", "deactivating", "reloading")
            and not unit["SubState"].startswith("auto-restart")
        )
    )
