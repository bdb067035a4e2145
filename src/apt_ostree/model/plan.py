"""The plan of a live change: its steps with their reasons, and the reasons for a refusal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from apt_ostree.model.initramfs import outdated_by, paths_text
from apt_ostree.model.package import PackageDiff
from apt_ostree.model.treediff import Kind, PathChange
from apt_ostree.model.triggers import TriggerStep

_UNIT_DIRECTORIES = ("lib/systemd/system/", "etc/systemd/system/")


class EtcAction(StrEnum):
    """The action for one path of /etc."""

    WRITE = "write"
    REMOVE = "remove"
    KEEP = "keep"


class UnitAction(StrEnum):
    """The action for one unit."""

    STOP = "stop"  # before the switch, with its old definition
    RELOAD = "reload"
    RESTART = "restart"
    START = "start"
    REEXEC = "reexec"  # systemd itself, or a user's manager
    REFRESH = "refresh view"  # it keeps seeing the old /usr until it is restarted
    DEFER = "defer"  # waits for a reboot, or for the session's end
    SKIP = "skip"  # not acted on, by a rule


class RestartPolicy(StrEnum):
    """Which units a live change acts on (--restart-services)."""

    NONE = "none"  # stop removed units and start newly enabled ones, as Debian would
    NEEDED = "needed"  # restart and reload what the change affects
    ALL = "all"  # and those that keep seeing the old /usr


class Impact(StrEnum):
    """What has to be restarted until no old code runs, the least first."""

    NONE = "none"
    PROCESS = "process"
    SERVICE = "service"
    SESSION = "session"
    REBOOT = "reboot"


@dataclass(frozen=True, slots=True)
class EtcStep:
    """One path of /etc.

    path: relative to /etc.
    package: the changed package that ships the path, or "".
    """

    path: str
    action: EtcAction
    reason: str
    package: str = ""


@dataclass(frozen=True, slots=True)
class UnitStep:
    """One unit.

    evidence: the files that are the reason.
    processes: "PID NAME" of those that run old code.
    acts: whether this operation takes the action, or only reports it.
    clients: number of accepted connections that a restart or stop ends.
    """

    unit: str
    action: UnitAction
    reason: str
    evidence: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    acts: bool = True
    clients: int = 0


@dataclass(frozen=True, slots=True)
class LivePlan:
    """The plan of applying `target` to a system that shows `source`.

    source, target: commits.
    files: "added", "removed" and "changed" -> number of files.
    deferred: changes that take effect with a reboot.
    refusals: reasons to refuse the change.
    health_checks: programs that are run after the change, which is undone if a required one fails.
    overlays: notes about overlays.
    triggers: what is run for changed files, in this order.
    """

    source: str
    target: str
    packages: PackageDiff
    files: Mapping[str, int]
    etc: tuple[EtcStep, ...]
    units: tuple[UnitStep, ...]
    deferred: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    restart_services: RestartPolicy = RestartPolicy.NONE
    health_checks: tuple[str, ...] = ()
    overlays: tuple[str, ...] = ()
    triggers: tuple[TriggerStep, ...] = ()

    @property
    def impact(self) -> Impact:
        """Return what has to be restarted until no old code runs."""
        if self.deferred or any(s.action is UnitAction.DEFER and not is_session(s.unit) for s in self.units):
            return Impact.REBOOT
        if any(s.action is UnitAction.DEFER for s in self.units):
            return Impact.SESSION
        if any(s.action not in (UnitAction.RELOAD, UnitAction.REEXEC, UnitAction.SKIP) for s in self.units):
            return Impact.SERVICE
        return Impact.PROCESS if self.units else Impact.NONE

    def units_with(self, *actions: UnitAction) -> tuple[str, ...]:
        """Return the units on which this run takes one of the actions."""
        return tuple(step.unit for step in self.units if step.acts and step.action in actions)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON object (docs/live-plan.schema.json)."""
        return asdict(self) | {"impact": self.impact}


def is_session(unit: str) -> bool:
    """Return whether a unit ends when its user logs out."""
    return unit.endswith(".scope") or unit.startswith(("user@", "session-"))


def replacement_refusals(packages: PackageDiff) -> tuple[str, ...]:
    """Return the reasons why a change does not only add packages, with counts and names."""
    reasons = []
    if packages.removed:
        names = ", ".join(p.name for p in packages.removed)
        reasons.append(f"packages would be removed: {len(packages.removed)} ({names})")
    if packages.changed:
        names = ", ".join(p.name for p in packages.changed)
        reasons.append(f"packages would be changed: {len(packages.changed)} ({names})")
    return tuple(reasons)


def count_files(changes: Iterable[PathChange]) -> dict[str, int]:
    """Return the numbers of files (not directories) that are added, removed and changed."""
    counts = {str(kind): 0 for kind in Kind}
    for change in changes:
        if not change.is_dir:
            counts[str(change.kind)] += 1
    return counts


def kernel_notes(
    changes: Sequence[PathChange], running: str, held: Callable[[str], Collection[str]]
) -> tuple[str, ...]:
    """Return notes about kernels and initramfs images, which take effect with the reboot.

    running: the version of the running kernel.
    held: returns the paths that the present initramfs of a kernel contains, by the kernel's version.
    """
    notes = []
    for change in changes:
        parts = change.path.split("/")
        if parts[:2] != ["lib", "modules"] or len(parts) != 4 or parts[3] not in ("vmlinuz", "initramfs.img"):
            continue
        version, what = parts[2], "kernel" if parts[3] == "vmlinuz" else "initramfs of"
        if change.kind is Kind.REMOVED:
            kept = " (its modules stay visible while it runs)" if version == running else ""
            if parts[3] == "vmlinuz":
                notes.append(f"kernel {version} is removed with the reboot{kept}")
        else:
            why = ""
            if what != "kernel" and change.kind is Kind.CHANGED:
                paths = outdated_by(version, (c.path for c in changes if not c.is_dir), held(version))
                why = f"; it was made anew, as {paths_text(paths)} changed" if paths else ""
            notes.append(f"{what} {version} waits for the reboot{why}")
    return tuple(notes)


def root_notes(before: Collection[str], after: Collection[str]) -> tuple[str, ...]:
    """Return notes about directories beside /usr, which a mounted root directory cannot get or lose."""
    come = [f"/{name} is made with the reboot" for name in sorted(set(after) - set(before))]
    return (*come, *(f"/{name} is removed with the reboot" for name in sorted(set(before) - set(after))))


def enabled_unit(path: str) -> tuple[str, str] | None:
    """Return (target, unit) of an enablement link (relative to /usr) such as X.target.wants/Y.service."""
    for prefix in _UNIT_DIRECTORIES:
        if path.startswith(prefix):
            head, _, unit = path.removeprefix(prefix).partition("/")
            target, dot, kind = head.rpartition(".")
            if dot and kind in ("wants", "requires") and unit and "/" not in unit:
                return target, unit
    return None


def touches(changes: Iterable[PathChange], *prefixes: str) -> bool:
    """Return whether any path lies below one of the prefixes (relative to /usr)."""
    return any(change.path.startswith(prefixes) for change in changes)
