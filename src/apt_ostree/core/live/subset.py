"""A part of the pending deployment, or of what the archives offer, as a commit to apply live.

The commit is made from the tree that the running system shows, by the ordinary layering. No deployment is
made of it: what the next boot starts stays what it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apt_ostree.core.build import layering
from apt_ostree.core.build.layering import Options, Recipe
from apt_ostree.core.live.planning import Situation
from apt_ostree.core.state.inventory import packages_of
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import layout
from apt_ostree.model import selection as rules
from apt_ostree.model.closure import Members, close
from apt_ostree.model.events import Message, Report
from apt_ostree.model.origin import LocalPackage
from apt_ostree.model.package import Package, diff_packages
from apt_ostree.model.selection import Selection
from apt_ostree.system import settings
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.sysroot import Sysroot

if TYPE_CHECKING:
    from apt_ostree.system.apt.resolver import Resolver, Wanted


@dataclass(frozen=True, slots=True)
class Source:
    """A tree that packages are taken from; what: its name, for messages."""

    commit: str
    what: str
    local: tuple[LocalPackage, ...] = ()


@dataclass(frozen=True, slots=True)
class _Task:
    """What all steps need to know; source: where the packages are taken from, if not from the archives."""

    report: Report
    sysroot: Sysroot
    selection: Selection
    shown: str
    booted: str
    source: Source | None

    def packages(self, commit: str) -> frozenset[Package]:
        """Return a commit's packages."""
        return packages_of(self.sysroot.repo, commit)

    def members(self, commit: str) -> Members:
        """Return a commit's packages with their relations."""
        from apt_ostree.system.apt import status

        database = diff.file_of(self.sysroot.repo, commit, f"{layout.DPKG_ADMINDIR}/status")
        return status.members(self.sysroot.repo.file_state(database).content) if database else {}


@contextmanager
def built(
    report: Report,
    sysroot: Sysroot,
    situation: Situation,
    selection: Selection,
    *,
    source: Source | None = None,
    allow_removal: bool = False,
    keep: bool = True,
) -> Iterator[str]:
    """Give a commit of what is shown with the selected packages changed; it is the shown one if none differ.

    source: without one, it is the pending deployment, or else the archives.
    keep: what happens inside is to put a ref on the commit; unless it does, the commit is removed again.
    """
    source = source or _pending(sysroot)
    task = _Task(report, sysroot, selection, situation.base, situation.booted.checksum, source)
    commit = situation.base
    done = False
    try:
        commit = _build(task)
        if not allow_removal:
            _refuse_removals(task, commit)
        yield commit
        done = keep
    finally:
        if commit != situation.base and not done:
            layering.discard(report, sysroot)


def _build(task: _Task) -> str:
    rules.check(task.selection)
    recipe = _recipe_of_tree(task, task.source) if task.source else _recipe_of_archives(task)
    limits = Options(script_timeout=settings.load().script_timeout)
    result = layering.build(task.report, task.sysroot, recipe, limits) if recipe else None
    if result is None or result.commit is None:
        task.report(Message("Nothing of what was selected differs from what the system runs."))
        return task.shown
    return result.commit


# --- where the packages come from


def _pending(sysroot: Sysroot) -> Source | None:
    pending = sysroot.deployments().pending
    return Source(pending.checksum, "the pending deployment", pending.origin.local) if pending else None


def _recipe_of_tree(task: _Task, source: Source) -> Recipe | None:
    """Return how to take packages from a tree, or None when none of them differs."""
    selection = task.selection
    if selection.versioned:
        raise UsageError(
            f"{selection.versioned[0]!r} names a version, but {source.what} decides it",
            hint="leave the version out; 'apt-ostree cleanup -p' drops a pending deployment",
        )
    shown, target = task.packages(task.shown), task.packages(source.commit)
    booted = task.packages(task.booted)
    offered = diff_packages(shown, target)
    names = rules.choose(
        selection,
        offered,
        source=source.what,
        known=frozenset(package.name for package in shown | target | booted),
        settled=diff_packages(booted, target).names,
    )
    if not names:
        return None
    limits = {(package.name, package.architecture): package.version for package in target}

    def choose(resolver: Resolver) -> Wanted:
        from apt_ostree.system.apt import choice

        chosen = names
        if selection.security:
            updates = choice.security_updates(resolver, shown, limits)
            chosen = names & {name for name, _architecture in updates}
        members = task.members(source.commit)
        return _wanted(task, resolver, members, _without_kernels(task, chosen))

    local = tuple(p for p in source.local if Package(p.name, p.version, p.architecture) in target - shown)
    # Lists of any age will do: the tree was made with them, and newer ones may lack its versions.
    return _recipe(task, choose, lists_age=math.inf, local=local)


def _recipe_of_archives(task: _Task) -> Recipe:
    """Return how to take packages from the archives."""
    selection, shown = task.selection, task.packages(task.shown)
    installed = frozenset(package.name for package in shown)

    def choose(resolver: Resolver) -> Wanted:
        from apt_ostree.system.apt import choice
        from apt_ostree.system.apt.resolver import Wanted

        requests, names = selection.packages, selection.names
        if selection.security:
            found = choice.security_updates(resolver, shown)
            wanted = frozenset(name for name, _ in found) & (selection.names or installed)
            names = _without_kernels(task, wanted.difference(selection.excluded))
            requests = tuple(f"{n}:{arch}={v}" for (n, arch), v in sorted(found.items()) if n in names)
        everything = not (selection.packages or selection.security)
        transaction = resolver.resolve(Wanted(requests, upgrade=everything))
        before = task.members(task.shown)
        target = choice.after(resolver, transaction, before)
        resolver.reset()
        chosen = rules.choose(
            selection,
            diff_packages(shown, (member.package for member in target.values())),
            source="the archives' newest versions",
            known=installed | {name for name, _architecture in target},
            settled=installed if selection.security else selection.names,
        )
        if selection.security:
            chosen &= names
        elif everything:
            chosen = _without_kernels(task, chosen)
        return _wanted(task, resolver, target, chosen)

    return _recipe(task, choose, lists_age=0)


def _recipe(
    task: _Task,
    choose: Callable[[Resolver], Wanted],
    *,
    lists_age: float,
    local: tuple[LocalPackage, ...] = (),
) -> Recipe:
    metadata = {rules.META_SELECTION: str(task.selection)}
    if task.source:
        metadata[rules.META_SELECTED_FROM] = task.source.commit
    return Recipe(
        base=task.sysroot.repo.base_of(task.shown),
        start=task.shown,
        local=local,
        choose=choose,
        lists_age=lists_age,
        title=f"live {task.selection}",
        metadata=metadata,
    )


# --- what is chosen of them


def _without_kernels(task: _Task, names: frozenset[str]) -> frozenset[str]:
    """Leave kernels out that nobody asked for by name: they would wait for the reboot even when applied."""
    kernels = frozenset(filter(rules.is_kernel, names)) - task.selection.names
    if kernels:
        task.report(Message(f"left for the reboot: {rules.enumerate_names(kernels)}"))
    return names - kernels


def _wanted(task: _Task, resolver: Resolver, target: Members, chosen: frozenset[str]) -> Wanted:
    """Return the requests for the chosen packages, in the target's versions, and for what must come along."""
    from apt_ostree.system.apt import choice
    from apt_ostree.system.apt.resolver import Wanted

    excluded = frozenset(task.selection.excluded)
    shown = task.members(task.shown)
    closure = close(shown, target, chosen, excluded=excluded, satisfies=choice.satisfies)
    if closure.blocked:
        raise Refused(
            "the selected packages cannot be changed without others",
            details=closure.blocked,
            hint="select fewer packages, or do not except those; nothing was changed",
        )
    pulled = tuple(entry.package for entry in closure.pulled)
    _refuse_absent(choice.absent(resolver, (*closure.chosen, *pulled)))
    for entry in closure.pulled:
        task.report(Message(f"{entry.package.label} comes along: {entry.reason}"))
    return Wanted(_requests(closure.chosen), along=_requests(pulled))


def _requests(packages: Iterable[Package]) -> tuple[str, ...]:
    return tuple(f"{p.name}:{p.architecture}={p.version}" for p in packages)


def _refuse_absent(packages: list[Package]) -> None:
    if packages:
        raise Refused(
            "the archives no longer offer what is selected",
            details=[package.label for package in packages],
            hint="the whole can still be had: a pending deployment with 'apt-ostree apply-live "
            "--allow-replacement', an earlier generation with 'apt-ostree rollback --live'",
        )


def _refuse_removals(task: _Task, commit: str) -> None:
    removed = diff_packages(task.packages(task.shown), task.packages(commit)).removed
    if removed:
        raise Refused(
            "the change would remove packages from the running system",
            details=[package.label for package in removed],
            hint="add --allow-replacement to remove them",
        )
