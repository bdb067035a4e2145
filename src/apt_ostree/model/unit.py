"""A unit as systemd knows it, and a process that runs in one: plain values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from apt_ostree.model.unitfile import merged

_UNIT_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]+\.[a-z]+")  # systemd.unit(5)

_RUNNING = ("active", "activating", "reloading", "refreshing")


@dataclass(frozen=True, slots=True)
class Unit:
    """What systemd knows of a loaded unit (org.freedesktop.systemd1(5)), its properties by their names."""

    name: str
    properties: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.properties.get(name, "")

    @property
    def is_active(self) -> bool:
        """Tell whether it runs or is about to."""
        return self["ActiveState"] in _RUNNING

    @property
    def is_loaded(self) -> bool:
        """Tell whether it has a definition."""
        return self["LoadState"] == "loaded"

    @property
    def main_pid(self) -> int:
        """Return the process that stands for it, or 0."""
        return int(self["MainPID"] or 0)

    @property
    def started(self) -> float:
        """Return when its main process was started, in seconds of CLOCK_MONOTONIC, or 0."""
        return int(self["ExecMainStartTimestampMonotonic"] or 0) / 1e6

    @property
    def fragment(self) -> str:
        """Return the path of its unit file, or "" where it has none of its own."""
        return merged(self["FragmentPath"])

    @property
    def drop_ins(self) -> tuple[str, ...]:
        """Return the paths of its drop-ins, in their order."""
        return tuple(merged(path) for path in self["DropInPaths"].split())

    @property
    def keeps_connections(self) -> bool:
        """Tell whether it may give its sockets to systemd, which hands them to it again after a restart."""
        return self["FileDescriptorStoreMax"] not in ("", "0")

    def dependents(self, *, restarting: bool) -> frozenset[str]:
        """Return the units that stop when it stops, and are restarted when it is (systemd.unit(5)).

        restarting: of a socket its service as well, which must not run when systemd opens the socket.
        """
        served = self["Triggers"] if restarting and self.name.endswith(".socket") else ""
        return frozenset(f"{self['RequiredBy']} {self['BoundBy']} {self['ConsistsOf']} {served}".split())

    @property
    def has_job(self) -> bool:
        """Tell whether systemd is about to start or stop it."""
        return self["Job"] not in ("", "0")


def is_unit_name(name: str) -> bool:
    """Tell whether systemd takes this as the name of one unit: a template's, or a wild one's, it does not."""
    return _UNIT_NAME.fullmatch(name) is not None and "@." not in name


@dataclass(frozen=True, slots=True)
class Process:
    """One process.

    unit: the unit whose control group it is in; mapped: (path, inode) of each file it may execute code of.
    A path of a view that is no longer mounted lacks its /usr.
    """

    pid: int
    name: str
    unit: str
    mapped: frozenset[tuple[str, int]]

    @property
    def label(self) -> str:
        """Return "PID NAME"."""
        return f"{self.pid} {self.name}"
