"""Resolves package requests to a transaction, with libapt's own resolver.

`acquire` downloads its packages and `install` runs dpkg. Requires `config.use_build_root` first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import apt_pkg

from apt_ostree.errors import Refused
from apt_ostree.model.newer import Newer, follow, security_updates
from apt_ostree.model.package_plan import PackagePlan, Step
from apt_ostree.system.apt import config, dropping, kernels, reasons, recommended, requests
from apt_ostree.system.apt.config import explained
from apt_ostree.system.apt.reasons import final_version
from apt_ostree.system.apt.requests import Problem
from apt_ostree.system.apt.versions import is_installed, is_security, newer, origin_text

#: The reason of a removal that nobody asked for.
_CONFLICT = "conflict"
#: Sets of security updates that are tried in place of requested versions; each takes half a second.
_ATTEMPTS = 16


@dataclass(frozen=True, slots=True)
class PackageGoal:
    """The packages that a build root is to have, relative to those that it has.

    install: requests (NAME, NAME=VERSION, NAME:ARCH).
    upgrade: upgrade every other package to the archives' newest version.
    keep: NAME or NAME:ARCH -> version in use, which is preferred to newer ones; no package is
        downgraded below it.
    kept: the same of packages that only the present tree offers.
    along: further requests. If not None, only these and `install` may change: dependencies are not added, and
        unmet ones are refused.
    drop: names of packages whose requests were dropped; they go, with what only they needed.
    remove: names of packages that are not to be there, whatever needs them.
    pinned: requests with a version (NAME=VERSION) that stay; the plan names newer versions of these.
    yielding: those of them that give way to a security update.
    requested: names of all requested packages, those that are there already included.
    recommends: name of a request -> whether what it recommends comes with it, where the cache does not add
        recommended packages; of others, apt's configuration says that.
    needed: with `drop`, the names of all packages that the base holds or that are still requested.
    protected: packages that are requested, too, if nothing that is requested needs them any more; what others
        of them need comes after these.
    """

    install: tuple[str, ...] = ()
    upgrade: bool = False
    keep: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    along: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    needed: frozenset[str] = frozenset()
    protected: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()
    yielding: frozenset[str] = frozenset()
    requested: frozenset[str] = frozenset()
    recommends: Mapping[str, bool] = field(default_factory=dict)


class Resolver:
    """An opened package cache and the decisions made on it."""

    def __init__(self, scratch: Path, *, recommends: bool | None = None) -> None:
        """Open the cache. recommends: whether it adds recommended packages; None: as apt is configured."""
        self._recommends = recommended.configured()
        self._adds_recommended = self._recommends if recommends is None else recommends
        refresh = "run 'apt-ostree refresh-md'"
        with recommended.followed(recommends), explained("read the package lists", hint=refresh):
            self.cache = apt_pkg.Cache(None)
            self.depcache: Any = apt_pkg.DepCache(self.cache)  # python-apt's stubs lack half of it
            self.sources = apt_pkg.SourceList()
            self.sources.read_main_list()
        self._local = f"file:{config.local_directory(scratch)}/"
        self._kept = f"file:{config.kept_directory(scratch)}/"
        self._requested: frozenset[str] = frozenset()
        self._dropped: frozenset[int] = frozenset()  # ids
        self._removed: frozenset[int] = frozenset()  # ids
        self._unneeded: frozenset[int] = frozenset()  # ids
        self._superseded: frozenset[int] = frozenset()  # ids
        self._chosen: dict[int, Any] = {}  # package id -> requested version

    def resolve(self, goal: PackageGoal) -> PackagePlan:
        """Return the transaction for a goal; UsageError for an unknown package, Refused for a conflict."""
        plan, requested = self._resolve_securely(goal), list[str]()
        for name in goal.protected:
            if any(map(self._is_lost, self._named([name]))):
                requested.append(name)
                self.reset()
                plan = self._resolve_securely(replace(goal, install=(*goal.install, *requested)))
        return replace(plan, protected=tuple(requested))

    def _is_lost(self, pkg: apt_pkg.Package) -> bool:
        return not self._will_be_installed(pkg) or bool(self.depcache.is_garbage(pkg))

    def _resolve_securely(self, goal: PackageGoal) -> PackagePlan:
        for taken in _subsets(security_updates(self._newer(goal), goal.yielding)):
            # Packages of the present tree may be those that an update is to replace.
            for kept in ({}, goal.kept) if goal.kept else ({},):
                with suppress(Refused):  # what else is new is not held back
                    return self._resolve_taking(taken, replace(goal, kept=kept))
                self.reset()
        return self._resolve_with_kept(goal)

    def _resolve_taking(self, taken: Sequence[Newer], goal: PackageGoal) -> PackagePlan:
        """Return the transaction with security updates in place of requested versions."""
        install, pinned = (follow(names, taken) for names in (goal.install, goal.pinned))
        secure = replace(goal, install=install, pinned=pinned)
        untaken = self._newer(secure)
        return replace(self._resolve(secure, exact=True), taken=tuple(taken), newer=untaken)

    def _newer(self, goal: PackageGoal) -> tuple[Newer, ...]:
        with explained("read the package lists", hint="run 'apt-ostree refresh-md'"):
            return newer(self.cache, self.depcache, goal.pinned)

    def _resolve_with_kept(self, goal: PackageGoal) -> PackagePlan:
        untaken = self._newer(goal)
        try:
            plan = self._resolve(goal, exact=True)
        except Refused:
            if not (goal.keep or goal.kept):
                raise
            self.reset()  # newer versions than those in use may be needed
            plan = self._resolve(goal, exact=False)
        return replace(plan, newer=untaken)

    def reset(self) -> None:
        """Discard all decisions."""
        self.depcache.init()
        self._chosen = {}

    def _resolve(self, goal: PackageGoal, *, exact: bool) -> PackagePlan:
        if goal.along is not None:
            return self._resolve_alone(goal.install, goal.along)
        solver = apt_pkg.ProblemResolver(self.depcache)
        with explained("resolve the packages"):
            self._keep({**goal.keep, **goal.kept}, exact=exact)
        targets = self._targets(goal.install)
        self._requested = frozenset(pkg.name for pkg in targets)
        with explained("resolve the packages"):
            if goal.upgrade:
                self._upgrade_all(but=goal.drop)
            for pkg in targets:
                solver.clear(pkg)
                solver.protect(pkg)
            self._remove(goal.remove, solver)
            marking: Any = apt_pkg.ActionGroup(self.depcache)  # else each mark checks all packages: 8 ms
            with marking:
                for pkg in targets:
                    self.depcache.mark_install(pkg, True, True)
            if goal.drop:
                self._drop(goal)
        self._solve(solver, targets)
        if not self._adds_recommended:
            named = (
                (request.partition("=")[0], pkg) for request, pkg in zip(goal.install, targets, strict=True)
            )
            comes = (pkg for name, pkg in named if goal.recommends.get(name, self._recommends))
            with explained("resolve the packages"):
                recommended.add(self.depcache, comes)
            self._refuse_broken()
        self._refuse_other_versions(goal.install, targets)
        return self._decided(self._requested | goal.requested)

    def _refuse_other_versions(self, names: Sequence[str], targets: Sequence[apt_pkg.Package]) -> None:
        """Refuse requested versions that are not chosen: libapt drops one without its dependencies."""
        requests_of = zip(names, targets, strict=True)
        other = {request: pkg for request, pkg in requests_of if "=" in request and not self._is_chosen(pkg)}
        if other:
            rest = list(other.values())
            raise Refused(
                f"cannot install {', '.join(other)} with what it depends on",
                details=(*reasons.conflicts(self._chosen, rest), *reasons.missing(self._chosen, rest)),
                hint="choose other packages or versions; nothing was changed",
            )

    def _resolve_alone(self, install: Sequence[str], along: Sequence[str]) -> PackagePlan:
        targets = self._targets((*install, *along))
        requested = targets[: len(install)]
        self._requested = frozenset(pkg.name for pkg in requested)
        marking: Any = apt_pkg.ActionGroup(self.depcache)
        with explained("resolve the packages"), marking:
            for pkg in targets:
                automatic = self.depcache.is_auto_installed(pkg) if pkg.current_ver else pkg not in requested
                self.depcache.mark_install(pkg, False, True)
                self.depcache.mark_auto(pkg, automatic)
        held = [pkg.name for pkg in targets if not self._is_chosen(pkg)]
        if held or self.depcache.broken_count:
            raise Refused(
                "the packages cannot be changed without others",
                details=(
                    *reasons.unmet(self.cache, self.depcache),
                    *(f"{name} cannot be changed" for name in held),
                ),
                hint="choose other packages or versions; nothing was changed",
            )
        return self._decided(self._requested)

    def _targets(self, names: Sequence[str]) -> list[apt_pkg.Package]:
        """Return the packages of requests; UsageError names all requests without a package."""
        results = [self._target(request) for request in names]
        problems = [target for target in results if isinstance(target, Problem)]
        if problems:
            raise requests.refusal(problems, self.cache)
        return [target for target in results if not isinstance(target, Problem)]

    def _target(self, request: str) -> apt_pkg.Package | Problem:
        name, _, version = request.partition("=")
        pkg = requests.find(self.cache, name)
        if isinstance(pkg, Problem):
            return pkg
        if version:
            same = [v for v in pkg.version_list if v.ver_str == version]
            # A local package takes precedence over what is installed, and that over the archives.
            preferred = (*filter(self._is_local, same), *filter(is_installed, same), *same)
            candidate = next(iter(preferred), None)
            if candidate is None:
                return requests.no_version(pkg, name, version)
            self.depcache.set_candidate_ver(pkg, candidate)
        self._chosen[pkg.id] = self.depcache.get_candidate_ver(pkg)
        if not self._chosen[pkg.id]:
            return Problem(name, "has no version that may be installed")
        return pkg

    def is_ours(self, version: apt_pkg.Version) -> bool:
        """Return whether a version comes from a file, or from the present tree, and from no archive."""
        return self._is_local(version)  # the directory of the present tree's is below that of files

    def is_file(self, version: apt_pkg.Version) -> bool:
        """Return whether a version comes from a .deb file."""
        return self._is_local(version) and not self._is_kept(version)

    def _is_local(self, version: apt_pkg.Version) -> bool:
        return self._is_below(self._local, version)

    def _is_kept(self, version: apt_pkg.Version) -> bool:
        return self._is_below(self._kept, version)

    def _is_below(self, uri: str, version: apt_pkg.Version) -> bool:
        indexes = (self.sources.find_index(row[0]) for row in version.file_list)
        return any(index and index.archive_uri("").startswith(uri) for index in indexes)

    def _upgrade_all(self, *, but: Sequence[str]) -> None:
        for pkg in self._named(but):  # else what only their new versions need would be installed
            if pkg.current_ver:
                self.depcache.set_candidate_ver(pkg, pkg.current_ver)
        self.depcache.upgrade(True)
        if not self.depcache.del_count:
            return
        doomed = [pkg for pkg in self.cache.packages if self.depcache.marked_delete(pkg)]
        # Never remove a package for an upgrade: hold back upgrades that need it, as `apt upgrade` does.
        solver = apt_pkg.ProblemResolver(self.depcache)
        for pkg in doomed:
            self.depcache.mark_keep(pkg)
            solver.clear(pkg)
            solver.protect(pkg)
        solver.resolve_by_keep()

    def _keep(self, versions: Mapping[str, str], *, exact: bool) -> None:
        """Select these versions, or the newest if they are not offered; newer packages are not changed."""
        upgrades = []
        for name, version in versions.items():
            pkg = self.cache[name] if name in self.cache else None  # noqa: SIM401  # a cache has no get()
            installed = pkg.current_ver if pkg else None
            newer_by = apt_pkg.version_compare(installed.ver_str, version) if installed else -1
            if not pkg or newer_by > 0:
                continue
            same = [v for v in pkg.version_list if v.ver_str == version]
            if same and exact:
                # That of the present tree differs from one that cannot be reached if a field does.
                self.depcache.set_candidate_ver(pkg, next(filter(self._is_kept, same), same[0]))
            if installed and newer_by < 0:
                upgrades.append(pkg)
        for pkg in upgrades:
            self.depcache.mark_install(pkg, True, not self.depcache.is_auto_installed(pkg))

    def _remove(self, names: Sequence[str], solver: apt_pkg.ProblemResolver) -> None:
        """Mark packages for removal, so that the solver keeps none; refuse those that no system can lack."""
        present: list[Any] = [pkg for pkg in self._named(names) if pkg.current_ver]
        if vital := [pkg.name for pkg in present if pkg.essential or pkg.important]:
            raise Refused(f"{', '.join(vital)} cannot be removed: no Debian system works without")
        self._removed = frozenset(pkg.id for pkg in present)
        for pkg in present:
            solver.clear(pkg)
            solver.remove(pkg)
            solver.protect(pkg)
            self.depcache.mark_delete(pkg, False)

    def _drop(self, goal: PackageGoal) -> None:
        dropped, needed = (list(self._named(names)) for names in (goal.drop, (*goal.install, *goal.needed)))
        ids = {pkg.id for pkg in needed}
        dropped = [pkg for pkg in dropped if pkg.id not in ids]
        self._dropped = frozenset(pkg.id for pkg in dropped)
        self._unneeded = dropping.mark(self._installed, self.depcache, dropped, ids)

    def _named(self, names: Iterable[str]) -> Iterator[apt_pkg.Package]:
        packages = (requests.find(self.cache, name.partition("=")[0]) for name in names)
        return (pkg for pkg in packages if not isinstance(pkg, Problem))

    def _solve(self, solver: apt_pkg.ProblemResolver, targets: Sequence[apt_pkg.Package]) -> None:
        failure: Exception | None = None
        if self.depcache.broken_count:
            try:
                solver.resolve(True)
            except (apt_pkg.Error, SystemError) as error:
                failure = error
        self._refuse_broken(failure)
        kept = [pkg.name for pkg in targets if not (self._will_be_installed(pkg))]
        if kept:
            raise Refused(
                f"cannot install {', '.join(kept)} without breaking other packages",
                details=(*reasons.conflicts(self._chosen, targets), *reasons.missing(self._chosen, targets)),
                hint="choose other packages or versions; nothing was changed",
            )

    def _refuse_broken(self, failure: Exception | None = None) -> None:
        if failure or self.depcache.broken_count:
            raise Refused(
                "the packages cannot be installed together",
                details=tuple(reasons.unmet(self.cache, self.depcache)) or (str(failure),),
                hint="choose other packages or versions; nothing was changed",
            ) from failure

    def _is_chosen(self, pkg: apt_pkg.Package) -> bool:
        """Return whether a package will have the version that was requested."""
        return bool(final_version(self.depcache, pkg) == self._chosen[pkg.id])

    def _will_be_installed(self, pkg: apt_pkg.Package) -> bool:
        marked = self.depcache.marked_install(pkg) or self.depcache.marked_upgrade(pkg)
        return bool(marked or (pkg.current_ver and not self.depcache.marked_delete(pkg)))

    def _decided(self, requested: frozenset[str]) -> PackagePlan:
        """Return the transaction that was decided, with the removal of superseded kernels.

        requested: names of all requested packages, which are not superseded.
        """
        changed = self._without_unneeded(self._changed())
        self._superseded = kernels.drop_superseded(self.cache, self.depcache, changed, requested)
        if self._superseded:
            self._refuse_broken()
            changed = self._changed()
        transaction = self._transaction(changed)
        self._refuse_removals(transaction, changed)
        return transaction

    def _without_unneeded(self, changed: list[apt_pkg.Package]) -> list[apt_pkg.Package]:
        """Leave out new packages that nothing needs, as apt-get does; return what is changed still.

        libapt does not take back the dependencies of an alternative that gave way to another one.
        """
        depcache = self.depcache
        asked = self._chosen.keys()
        unneeded = [p for p in changed if not p.current_ver and p.id not in asked and depcache.is_garbage(p)]
        if not unneeded:
            return changed
        group: Any = apt_pkg.ActionGroup(depcache)
        with group:
            for pkg in unneeded:
                depcache.mark_delete(pkg, False)
        # What is in the tree stays, with what it needs now, even if nothing needs it.
        for pkg in filter(depcache.is_inst_broken, changed):
            depcache.mark_install(pkg, True, not depcache.is_auto_installed(pkg))
        self._refuse_broken()
        return self._changed()

    @cached_property
    def _installed(self) -> list[apt_pkg.Package]:
        return [pkg for pkg in self.cache.packages if pkg.current_ver]

    def _changed(self) -> list[apt_pkg.Package]:
        """Return the packages that are changed; this takes 60 ms for the packages of an archive."""
        packages = self.cache.packages if self.depcache.inst_count else self._installed
        return [pkg for pkg in packages if not self.depcache.marked_keep(pkg)]

    def _refuse_removals(self, transaction: PackagePlan, changed: Sequence[apt_pkg.Package]) -> None:
        unrequested = {(s.name, s.architecture) for s in transaction.remove if s.reason == _CONFLICT}
        if unrequested:
            selected = (pkg for pkg in changed if (pkg.name, pkg.architecture) in unrequested)
            removed = sorted(selected, key=lambda pkg: pkg.name)
            names = ", ".join(pkg.name for pkg in removed)
            raise Refused(
                f"this would remove {len(removed)} packages that are not requested to be removed: {names}",
                details=[reasons.removal(self.depcache, pkg, changed) for pkg in removed],
                hint="'apt-ostree override remove' removes packages of the base if all of them are named; "
                "nothing was changed",
            )

    def _transaction(self, changed: Sequence[apt_pkg.Package]) -> PackagePlan:
        depcache = self.depcache
        rest = sorted(changed, key=lambda pkg: pkg.name)
        steps = []
        # libapt takes what is new for an upgrade, too.
        for mark in (depcache.marked_install, depcache.marked_upgrade, depcache.marked_downgrade):
            steps.append(tuple(self._step(pkg) for pkg in rest if mark(pkg)))
            rest = [pkg for pkg in rest if not mark(pkg)]
        return PackagePlan(
            install=steps[0],
            upgrade=steps[1],
            downgrade=steps[2],
            remove=tuple(self._removal(pkg) for pkg in rest if depcache.marked_delete(pkg)),
            download_bytes=int(depcache.deb_size),
            disk_bytes=int(depcache.usr_size),
        )

    def _removal(self, pkg: apt_pkg.Package) -> Step:
        return Step(pkg.name, pkg.architecture, pkg.current_ver.ver_str, "", self._removal_reason(pkg))

    def _removal_reason(self, pkg: apt_pkg.Package) -> str:
        if pkg.id in self._dropped | self._removed:
            return "requested"
        if pkg.id in self._unneeded:
            return "no longer needed"
        return "superseded kernel" if pkg.id in self._superseded else _CONFLICT

    def _step(self, pkg: apt_pkg.Package) -> Step:
        version = self.depcache.get_candidate_ver(pkg)
        reason = "dependency"
        if pkg.name in self._requested:
            reason = "requested"
        elif pkg.current_ver:
            reason = "upgrade"
        return Step(
            name=pkg.name,
            architecture=version.arch,
            old=pkg.current_ver.ver_str if pkg.current_ver else "",
            new=version.ver_str,
            reason=reason,
            origin="present tree" if self._is_kept(version) else origin_text(version),
            size=version.size,
            security=is_security(version),
        )

    def refuse_untrusted(self, transaction: PackagePlan) -> None:
        """Raise Refused for packages that no signed and verified archive offers."""
        untrusted = []
        for step in (*transaction.install, *transaction.upgrade, *transaction.downgrade):
            version = self.depcache.get_candidate_ver(self.cache[step.name, step.architecture])
            indexes = [self.sources.find_index(row[0]) for row in version.file_list]
            if not any(index and index.is_trusted for index in indexes):
                untrusted.append(f"{step.name} {step.new} from {step.origin}")
        if untrusted:
            raise Refused(
                f"{len(untrusted)} packages come from an archive that is not signed",
                details=untrusted,
                hint="sign the archive and name its key with Signed-By in its sources file",
            )


def _subsets(updates: Sequence[Newer]) -> Iterator[tuple[Newer, ...]]:
    """Yield the sets of updates to try, the largest first."""
    sizes = range(len(updates), 0, -1)
    return islice((taken for size in sizes for taken in combinations(updates, size)), _ATTEMPTS)
