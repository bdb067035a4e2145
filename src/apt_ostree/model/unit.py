"""A unit as systemd shows it, and a process of a unit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from apt_ostree.model.unitfile import merged

_UNIT_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]+\.[a-z]+")  # systemd.unit(5)

_RUNNING = ("active", "activating", "reloading", "refreshing")


@dataclass(frozen=True, slots=True)
class Unit:
    """A loaded unit.

    properties: name -> value, see org.freedesktop.systemd1(5).
    """

    name: str
    properties: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.properties.get(name, "")

    @property
    def names(self) -> tuple[str, ...]:
        """Return its name and its aliases."""
        return tuple(dict.fromkeys((self.name, *self["Names"].split())))

    @property
    def is_active(self) -> bool:
        """Return whether it is active or activating."""
        return self["ActiveState"] in _RUNNING

    @property
    def is_in_trouble(self) -> bool:
        """Return whether it has failed, or ended and waits to be started again (Restart=)."""
        return self["ActiveState"] == "failed" or self["SubState"] == "auto-restart"

    @property
    def main_pid(self) -> int:
        """Return the pid of its main process, or 0."""
        return int(self["MainPID"] or 0)

    @property
    def started(self) -> float:
        """Return when its main process was started, in seconds of CLOCK_MONOTONIC, or 0."""
        return int(self["ExecMainStartTimestampMonotonic"] or 0) / 1e6

    @property
    def active_since(self) -> float:
        """Return when it was last started, in seconds of CLOCK_MONOTONIC, or 0."""
        return int(self["InactiveExitTimestampMonotonic"] or 0) / 1e6

    @property
    def tried(self) -> float:
        """Return when systemd last began to start it, in seconds of CLOCK_MONOTONIC, or 0."""
        return int(self["ConditionTimestampMonotonic"] or 0) / 1e6

    @property
    def fragment(self) -> str:
        """Return the path of its unit file, or "" if it has none."""
        return merged(self["FragmentPath"])

    @property
    def drop_ins(self) -> tuple[str, ...]:
        """Return the paths of its drop-ins, in order."""
        return tuple(merged(path) for path in self["DropInPaths"].split())

    @property
    def keeps_connections(self) -> bool:
        """Return whether systemd can store its sockets during a restart (FileDescriptorStoreMax=)."""
        return self["FileDescriptorStoreMax"] not in ("", "0")

    def dependents(self, *, restarting: bool) -> frozenset[str]:
        """Return the units that stop when it stops, and are restarted when it is (systemd.unit(5)).

        restarting: include the service of a socket, which must not run when systemd opens the socket.
        """
        served = self["Triggers"] if restarting and self.name.endswith(".socket") else ""
        return frozenset(f"{self['RequiredBy']} {self['BoundBy']} {self['ConsistsOf']} {served}".split())

    @property
    def has_job(self) -> bool:
        """Return whether it has a queued or running job."""
        return self["Job"] not in ("", "0")


def is_unit_name(name: str) -> bool:
    """Return whether this is the name of one unit, and not of a template or a pattern."""
    return _UNIT_NAME.fullmatch(name) is not None and "@." not in name


@dataclass(frozen=True, slots=True)
class Process:
    """One process.

    unit: the unit of its control group, or empty.
    mapped: (path, inode) of each executable mapping. A path in a view that is no longer mounted has no /usr.
    """

    pid: int
    name: str
    unit: str
    mapped: frozenset[tuple[str, int]]

    @property
    def label(self) -> str:
        """Return "PID NAME"."""
        return f"{self.pid} {self.name}"
