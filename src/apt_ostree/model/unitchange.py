"""The parts of a live change that affect units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from apt_ostree.model.filestate import FileState
from apt_ostree.model.package import PackageDiff
from apt_ostree.model.plan import EtcAction, EtcStep, enabled_unit
from apt_ostree.model.treediff import Kind, PathChange

#: A link that starts an init script in a runlevel that stands for multi-user.target; relative to /etc.
_RC_LINK = re.compile(r"rc[2-4]\.d/S\d\d([^/]+)")
#: Directories of /usr that no process uses: defaults of /etc, the databases of packages, files read at boot.
_NOT_RUN = ("etc/", "lib/sysimage/", "lib/tmpfiles.d/", "lib/sysusers.d/")


@dataclass(frozen=True, slots=True)
class View:
    """The difference between a view of this boot and the target.

    since: when the view was shown first, in seconds since 1970.
    files: path below /usr -> object in the target, or "" if it is removed.
    """

    since: float
    files: Mapping[str, str]


@dataclass(frozen=True)
class UnitChange:
    """The parts of a live change that affect units.

    packages: that change.
    target: the commit.
    changes: of paths below /usr.
    etc: the steps for /etc.
    new_states: path -> new state of each unit file, drop-in and init script that changes.
    views: those of this boot, the oldest first: a process may still use any of them.
    new_etc: the paths of /etc that are written and did not exist, such as links that enable units.
    """

    packages: PackageDiff
    target: str
    changes: tuple[PathChange, ...]
    etc: tuple[EtcStep, ...] = ()
    new_states: Mapping[str, FileState] = field(default_factory=dict)
    views: tuple[View, ...] = ()
    new_etc: frozenset[str] = frozenset()

    @cached_property
    def files(self) -> Mapping[str, str]:
        """Return path -> object in the target, of paths that differ from any view."""
        return {path: new for view in self.views for path, new in view.files.items()}

    def files_since(self, started: float) -> Mapping[str, str]:
        """Return `files` of the view at the start of a process (seconds of CLOCK_MONOTONIC; 0: unknown)."""
        views = [view for view in self.views if view.since <= started]
        return views[-1].files if started and views else self.files

    @cached_property
    def etc_paths(self) -> frozenset[str]:
        """Return the changed and removed paths of /etc that a running service may have read.

        New files of packages are left out: only their own services use them. Those of overlays are included.
        """
        changed = {step.path for step in self.etc if step.action is not EtcAction.KEEP}
        added = {c.path.removeprefix("etc/") for c in self.changes if c.kind is Kind.ADDED} | self.new_etc
        if not self.packages:
            return frozenset(f"/etc/{path}" for path in changed - {"ld.so.cache"})
        return frozenset(f"/etc/{path}" for path in changed - added - {"ld.so.cache"})


def below_usr(path: str, files: Mapping[str, str]) -> str | None:
    """Return a mapped path relative to /usr if it is in `files`, else None.

    In a detached view, the mapped path has no /usr.
    """
    for name in (path.removeprefix("/usr/"), path.removeprefix("/")):
        if name in files:
            return name
    return None


def enabled(change: UnitChange) -> dict[str, set[str]]:
    """Return unit that the change enables -> units that want it."""
    kept = {f"etc/{step.path}" for step in change.etc if step.action is EtcAction.KEEP}
    units: dict[str, set[str]] = {}
    for entry in change.changes:
        link = enabled_unit(entry.path)
        if link and entry.kind is Kind.ADDED and entry.path not in kept:
            units.setdefault(link[1], set()).add(link[0])
    for path in change.new_etc:
        if link := enabled_unit(f"etc/{path}"):
            units.setdefault(link[1], set()).add(link[0])
    return units


def enabled_scripts(change: UnitChange) -> frozenset[str]:
    """Return the units of init scripts that the change enables, see systemd-sysv-generator(8).

    The generator makes none for a script that has a unit file of the same name.
    """
    names = (_RC_LINK.fullmatch(path) for path in change.new_etc)
    return frozenset(f"{match[1].removesuffix('.sh')}.service" for match in names if match)


def outdated(replaced: Mapping[str, str]) -> dict[str, str]:
    """Return the `files` of a `View`.

    replaced: path -> object in the target, or "", of the files of the view that the target has not.
    """
    return {path: new for path, new in replaced.items() if not path.startswith(_NOT_RUN)}
