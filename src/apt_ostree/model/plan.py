"""The plan of a live change: what it does, with a reason on every line, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from apt_ostree.model.package import PackageDiff
from apt_ostree.model.treediff import Kind, PathChange

_UNIT_DIRECTORIES = ("lib/systemd/system/", "etc/systemd/system/")
_UNIT_SUFFIXES = (".service", ".socket", ".timer", ".path", ".mount", ".automount", ".target", ".slice")


class EtcAction(StrEnum):
    """What happens to one path of /etc."""

    WRITE = "write"
    REMOVE = "remove"
    KEEP = "keep"


class UnitAction(StrEnum):
    """What happens to one unit."""

    STOP = "stop"  # before the switch, with its old definition
    RELOAD = "reload"
    RESTART = "restart"
    START = "start"
    REEXEC = "reexec"  # systemd itself, or a user's manager
    REFRESH = "refresh view"  # it sees the old /usr until it is restarted
    DEFER = "defer"  # waits for a reboot, or for the session's end
    SKIP = "skip"  # left alone on purpose


class RestartPolicy(StrEnum):
    """Which units a live change acts on (--restart-services)."""

    NONE = "none"  # stop what goes and start what is newly enabled, as Debian would; name the rest
    NEEDED = "needed"  # restart and reload what the change affects
    ALL = "all"  # and what sees the old /usr for ever


class Impact(StrEnum):
    """What it takes until nothing old runs any more, the least first."""

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

    evidence: the files that are the reason; processes: "PID NAME" of those that run old code;
    acts: whether this run does it, or only names it;
    clients: of a unit to be restarted or stopped, how many connections it has accepted, which end with that.
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
    """Everything that applying `target` to a system that shows `source` does.

    refusals: reasons not to; deferred: what waits for the reboot;
    health_checks: what is run afterwards; the change is undone when a required one fails;
    overlays: what the administrator should know about them.
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

    @property
    def impact(self) -> Impact:
        """Return what it takes until nothing old runs any more."""
        if self.deferred or any(s.action is UnitAction.DEFER and not is_session(s.unit) for s in self.units):
            return Impact.REBOOT
        if any(s.action is UnitAction.DEFER for s in self.units):
            return Impact.SESSION
        if any(s.action not in (UnitAction.RELOAD, UnitAction.REEXEC, UnitAction.SKIP) for s in self.units):
            return Impact.SERVICE
        return Impact.PROCESS if self.units else Impact.NONE

    def acting(self, *actions: UnitAction) -> tuple[str, ...]:
        """Return the units on which this run takes one of the actions."""
        return tuple(step.unit for step in self.units if step.acts and step.action in actions)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON object (docs/live-plan.schema.json)."""
        return asdict(self) | {"impact": self.impact}


def is_session(unit: str) -> bool:
    """Tell whether a unit ends when its user logs out."""
    return unit.endswith(".scope") or unit.startswith(("user@", "session-"))


def replacement_refusals(packages: PackageDiff) -> tuple[str, ...]:
    """Return why a change is not a pure addition, with counts and names."""
    reasons = []
    if packages.removed:
        names = ", ".join(p.name for p in packages.removed)
        reasons.append(f"packages would be removed: {len(packages.removed)} ({names})")
    if packages.changed:
        names = ", ".join(p.name for p in packages.changed)
        reasons.append(f"packages would be changed: {len(packages.changed)} ({names})")
    return tuple(reasons)


def count_files(changes: Iterable[PathChange]) -> dict[str, int]:
    """Count the files (not directories) that are added, removed and changed."""
    counts = {str(kind): 0 for kind in Kind}
    for change in changes:
        if not change.is_dir:
            counts[str(change.kind)] += 1
    return counts


def kernel_notes(changes: Iterable[PathChange], running: str) -> tuple[str, ...]:
    """Return what about kernels waits for the reboot: paths are relative to /usr."""
    notes = []
    for change in changes:
        parts = change.path.split("/")
        if parts[:2] != ["lib", "modules"] or len(parts) != 4 or parts[3] not in ("vmlinuz", "initramfs.img"):
            continue
        version, what = parts[2], "kernel" if parts[3] == "vmlinuz" else "initramfs of"
        if change.kind is Kind.REMOVED:
            kept = " (its modules stay visible while it runs)" if version == running else ""
            if parts[3] == "vmlinuz":
                notes.append(f"kernel {version} goes with the reboot{kept}")
        else:
            notes.append(f"{what} {version} waits for the reboot")
    return tuple(notes)


def unit_of(path: str) -> str | None:
    """Return the unit that a unit file or a drop-in (relative to /usr) belongs to, or None."""
    for prefix in _UNIT_DIRECTORIES:
        if path.startswith(prefix):
            head, _, rest = path.removeprefix(prefix).partition("/")
            name = head.removesuffix(".d") if rest and head.endswith(".d") else head
            if (not rest or head.endswith(".d")) and name.endswith(_UNIT_SUFFIXES):
                return name
    return None


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
    """Tell whether any path lies below one of the prefixes (relative to /usr)."""
    return any(change.path.startswith(prefixes) for change in changes)
