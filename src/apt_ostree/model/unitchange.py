"""What a live change does, as far as it matters to units. A value, gathered by core.live."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from apt_ostree.model.filestate import FileState
from apt_ostree.model.package import PackageDiff
from apt_ostree.model.plan import EtcAction, EtcStep, enabled_unit
from apt_ostree.model.treediff import Kind, PathChange

#: What below /usr no process runs: defaults of /etc, the databases of packages, and what is read at boot.
_NOT_RUN = ("etc/", "lib/sysimage/", "lib/tmpfiles.d/", "lib/sysusers.d/")


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


def below_usr(path: str, files: Mapping[str, str]) -> str | None:
    """Return a mapped path relative to /usr, if it is one of `files`; a detached view shows no /usr in it."""
    for name in (path.removeprefix("/usr/"), path.removeprefix("/")):
        if name in files:
            return name
    return None


def enabled(change: UnitChange) -> dict[str, set[str]]:
    """Return the units that the change enables, each with the units that want it."""
    kept = {f"etc/{step.path}" for step in change.etc if step.action is EtcAction.KEEP}
    found: dict[str, set[str]] = {}
    for entry in change.changes:
        link = enabled_unit(entry.path)
        if link and entry.kind is Kind.ADDED and entry.path not in kept:
            found.setdefault(link[1], set()).add(link[0])
    return found


def outdated(changes: Iterable[PathChange]) -> dict[str, str]:
    """Return the files of a view that a target lacks or has in another version, for a `View`.

    changes: what lies between the two.
    """
    return {
        change.path: change.new
        for change in changes
        if change.kind is not Kind.ADDED and not change.is_dir and not change.path.startswith(_NOT_RUN)
    }
