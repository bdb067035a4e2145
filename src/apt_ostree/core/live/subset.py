"""Builds a commit with a part of the pending deployment, or of the archives, to apply it live.

The commit is layered on the tree that the running system shows. It is not deployed, so that the next boot
stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apt_ostree.core.build import layering
from apt_ostree.core.build.layering import Label, Session, Sources
from apt_ostree.core.state import etc_deltas
from apt_ostree.core.state.inventory import packages_of
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import layout
from apt_ostree.model import selection as rules
from apt_ostree.model.closure import Members, close
from apt_ostree.model.kernel import is_kernel
from apt_ostree.model.origin import LocalPackage
from apt_ostree.model.package import Package, diff_packages
from apt_ostree.model.selection import Selection
from apt_ostree.system.ostree import diff

if TYPE_CHECKING:
    from apt_ostree.system.apt.resolver import PackageGoal


@dataclass(frozen=True, slots=True)
class Source:
    """A tree from which packages are taken.

    commit: the commit of the tree.
    name: the name of the tree in messages.
    local: packages of the tree that were given as files.
    """

    commit: str
    name: str
    local: tuple[LocalPackage, ...] = ()


@dataclass(frozen=True, slots=True)
class _Choice:
    """What packages are chosen from.

    tx: the transaction.
    selection: the selection of the request.
    shown: the commit that the running system shows, without overlays.
    booted: the booted commit.
    """

    tx: Transaction
    selection: Selection
    shown: str
    booted: str

    def packages(self, commit: str) -> frozenset[Package]:
        """Return the packages of a commit."""
        return packages_of(self.tx.sysroot.repo, commit)

    def members(self, commit: str) -> Members:
        """Return the packages of a commit with their relations."""
        from apt_ostree.system.apt import status

        repo = self.tx.sysroot.repo
        database = diff.file_of(repo, commit, f"{layout.DPKG_ADMINDIR}/status")
        return status.members(repo.file_state(database).content) if database else {}


@contextmanager
def built(
    tx: Transaction,
    selection: Selection,
    source: Source | None,
    *,
    allow_removal: bool = False,
) -> Iterator[str]:
    """Yield a commit of the shown tree with the selected packages changed; the shown one if none differs.

    source: the tree from which the packages are taken; None: the pending deployment, or else the archives.
    allow_removal: whether packages may be removed.

    A commit that gets no ref is removed at the end of the transaction.

    Raises UsageError for a wrong selection, and Refused if the packages cannot be changed.
    """
    rules.check(selection)
    choice = _Choice(tx, selection, tx.live.base, tx.live.booted.checksum)
    source = source or _pending(tx)
    commit = choice.shown
    try:
        commit = _build_from_tree(choice, source) if source else _build_from_archives(choice)
        if not allow_removal:
            _refuse_removals(choice, commit)
        yield commit
    finally:
        if commit != choice.shown:
            etc_deltas.write(commit, {})  # it is never deployed


def _pending(tx: Transaction) -> Source | None:
    pending = tx.deployments.pending
    return Source(pending.checksum, "the pending deployment", pending.origin.local) if pending else None


def _build_from_tree(choice: _Choice, source: Source) -> str:
    """Build a commit with packages of a tree; return the shown one if none of them differs."""
    names = _names_from_tree(choice, source)
    if not names:
        return _unchanged(choice)
    changed = choice.packages(source.commit) - choice.packages(choice.shown)
    local = tuple(p for p in source.local if Package(p.name, p.version, p.architecture) in changed)
    # Package lists of any age are used: newer ones may lack the versions of the tree.
    with layering.opened(choice.tx, choice.shown, Sources(local, lists_age=math.inf)) as session:
        if choice.selection.security:
            names &= _security_names(choice, session, source)
        names = _without_kernels(choice, names)
        requests = _requests_of(choice, session, choice.members(source.commit), names)
        return _install(choice, session, requests, source)


def _build_from_archives(choice: _Choice) -> str:
    """Build a commit with the archives' newest versions; return the shown one if none of them differs."""
    # What is selected by name is not left out silently.
    sources = Sources(upgrade=not choice.selection.packages, lists_age=0)
    with layering.opened(choice.tx, choice.shown, sources) as session:
        names, target = _names_from_archives(choice, session)
        requests = _requests_of(choice, session, target, names)
        return _install(choice, session, requests, None)


def _install(choice: _Choice, session: Session, requests: PackageGoal, source: Source | None) -> str:
    """Install packages; the user is asked later, with the plan of the live change."""
    metadata = {rules.META_SELECTION: str(choice.selection)}
    if source:
        metadata[rules.META_SELECTED_FROM] = source.commit
    base = choice.tx.sysroot.repo.base_of(choice.shown)
    label = Label(base, f"live {choice.selection}", metadata)
    replaces = choice.tx.merge_deployment.origin.replacing
    built = layering.install(session, requests, label, replaces=replaces, ask=False)
    if not built.commit:
        return _unchanged(choice)
    etc_deltas.write(built.commit, built.delta)
    return built.commit


def _unchanged(choice: _Choice) -> str:
    choice.tx.message("The selected packages do not differ from those of the running system.")
    return choice.shown


# --- choice of packages


def _names_from_tree(choice: _Choice, source: Source) -> frozenset[str]:
    """Return the names of the selected packages that a tree has in other versions."""
    selection = choice.selection
    if selection.versioned:
        raise UsageError(
            f"{selection.versioned[0]!r} names a version, but {source.name} decides it",
            hint="leave the version out; 'apt-ostree cleanup -p' drops a pending deployment",
        )
    commits = (choice.shown, source.commit, choice.booted)
    shown, target, booted = (choice.packages(commit) for commit in commits)
    return rules.choose(
        selection,
        diff_packages(shown, target),
        source=source.name,
        all_names=frozenset(package.name for package in shown | target | booted),
        settled=diff_packages(booted, target).names,
    )


def _security_names(choice: _Choice, session: Session, source: Source) -> frozenset[str]:
    """Return the names of the packages with a security update in the source."""
    from apt_ostree.system.apt import choice as archives

    limits = {(p.name, p.architecture): p.version for p in choice.packages(source.commit)}
    updates = archives.security_updates(session.resolver, choice.packages(choice.shown), limits)
    return frozenset(name for name, _architecture in updates)


def _names_from_archives(choice: _Choice, session: Session) -> tuple[frozenset[str], Members]:
    """Return the names of the selected packages, and the packages of the tree after their installation."""
    from apt_ostree.system.apt import choice as archives
    from apt_ostree.system.apt.resolver import PackageGoal

    selection, shown, resolver = choice.selection, choice.packages(choice.shown), session.resolver
    installed = frozenset(package.name for package in shown)
    requests, names = selection.packages, selection.names
    if selection.security:
        updates = archives.security_updates(resolver, shown)
        offered = frozenset(name for name, _ in updates) & (selection.names or installed)
        names = _without_kernels(choice, offered.difference(selection.excluded))
        requests = tuple(f"{n}:{arch}={v}" for (n, arch), v in sorted(updates.items()) if n in names)
    everything = not (selection.packages or selection.security)
    plan = resolver.resolve(PackageGoal(requests, upgrade=everything))
    target = archives.after(resolver, plan, choice.members(choice.shown))
    resolver.reset()
    chosen = rules.choose(
        selection,
        diff_packages(shown, (member.package for member in target.values())),
        source="the archives' newest versions",
        all_names=installed | {name for name, _architecture in target},
        settled=installed if selection.security else selection.names,
    )
    if selection.security:
        return chosen & names, target
    return (_without_kernels(choice, chosen) if everything else chosen), target


def _without_kernels(choice: _Choice, names: frozenset[str]) -> frozenset[str]:
    """Return the names without kernels that were not selected by name: they take effect at a reboot only."""
    kernels = frozenset(filter(is_kernel, names)) - choice.selection.names
    if kernels:
        choice.tx.message(f"not applied before the reboot: {rules.enumerate_names(kernels)}")
    return names - kernels


def _requests_of(choice: _Choice, session: Session, target: Members, chosen: frozenset[str]) -> PackageGoal:
    """Return the requests for the chosen packages in the target's versions, and for their dependencies."""
    from apt_ostree.system.apt import choice as archives
    from apt_ostree.system.apt.resolver import PackageGoal

    excluded = frozenset(choice.selection.excluded)
    shown = choice.members(choice.shown)
    closure = close(shown, target, chosen, excluded=excluded, satisfies=archives.satisfies)
    if closure.blocked:
        raise Refused(
            "the selected packages cannot be changed without others",
            details=closure.blocked,
            hint="select fewer packages, or exclude fewer with --except; nothing was changed",
        )
    pulled = tuple(entry.package for entry in closure.pulled)
    _refuse_absent(archives.absent(session.resolver, (*closure.chosen, *pulled)))
    for entry in closure.pulled:
        choice.tx.message(f"{entry.package.label} is also changed: {entry.reason}")
    return PackageGoal(_requests(closure.chosen), along=_requests(pulled))


def _requests(packages: Iterable[Package]) -> tuple[str, ...]:
    return tuple(f"{p.name}:{p.architecture}={p.version}" for p in packages)


def _refuse_absent(packages: list[Package]) -> None:
    if packages:
        raise Refused(
            "the archives no longer offer what is selected",
            details=[package.label for package in packages],
            hint="the complete tree can still be applied: a pending deployment with 'apt-ostree apply-live "
            "--allow-replacement', an earlier generation with 'apt-ostree rollback --live'",
        )


def _refuse_removals(choice: _Choice, commit: str) -> None:
    removed = diff_packages(choice.packages(choice.shown), choice.packages(commit)).removed
    if removed:
        raise Refused(
            "the change would remove packages from the running system",
            details=[package.label for package in removed],
            hint="add --allow-replacement to remove them",
        )
