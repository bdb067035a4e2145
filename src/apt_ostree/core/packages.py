"""The package verbs: install, uninstall, upgrade. Each computes a new origin, builds, and deploys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apt_ostree.core import host, layering, live, live_undo
from apt_ostree.core.inventory import packages_of
from apt_ostree.core.layering import Built, Options, Recipe
from apt_ostree.errors import UsageError
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.events import Message, Report, task
from apt_ostree.model.origin import LocalPackage, Origin, add_requests, drop_requests, request_name
from apt_ostree.model.package import diff_packages
from apt_ostree.system import settings, statedb
from apt_ostree.system.ostree.sysroot import Sysroot


@dataclass(frozen=True, slots=True)
class Target:
    """The deployment to make: its origin, and the recipe of its commit (None: the base commit itself)."""

    origin: Origin
    base: str
    recipe: Recipe | None


def install(
    report: Report,
    *,
    packages: Sequence[str],
    uninstall: Sequence[str] = (),
    idempotent: bool = False,
    allow_inactive: bool = False,
    **options: Any,
) -> Mapping[str, Any]:
    """Layer packages (names, NAME=VERSION, .deb files) on the next deployment."""
    with host.changing("install packages") as sysroot:
        merge = host.merge_deployment(sysroot.deployments())
        names, local = _split_local(packages)
        names = _new_requests(sysroot, merge, names, idempotent=idempotent, allow_inactive=allow_inactive)
        origin = add_requests(merge.origin, names, local)
        if uninstall:
            origin = _without(origin, uninstall, idempotent=idempotent)
        target = _recompute(sysroot, merge, origin) if uninstall else _extend(sysroot, merge, origin)
        return _deploy(report, sysroot, merge, target, options)


def uninstall(
    report: Report,
    *,
    packages: Sequence[str] = (),
    install: Sequence[str] = (),
    everything: bool = False,
    idempotent: bool = False,
    **options: Any,
) -> Mapping[str, Any]:
    """Drop layered packages from the next deployment."""
    with host.changing("uninstall packages") as sysroot:
        merge = host.merge_deployment(sysroot.deployments())
        gone = tuple(sorted(merge.origin.names)) if everything else tuple(packages)
        origin = _without(merge.origin, gone, idempotent=idempotent)
        names, local = _split_local(install)
        target = _recompute(sysroot, merge, add_requests(origin, names, local))
        return _deploy(report, sysroot, merge, target, options)


def upgrade(
    report: Report,
    *,
    base: bool = True,
    packages: bool = True,
    check: bool = False,
    **options: Any,
) -> Mapping[str, Any]:
    """Follow the base's remote and bring the packages to the archives' newest versions."""
    with host.changing("upgrade the system") as sysroot:
        merge = host.merge_deployment(sysroot.deployments())
        commit = sysroot.repo.base_of(merge.checksum)
        if base and (newer := _newer_base(report, sysroot, merge.origin)):
            commit = newer
        origin = replace(merge.origin, upgraded=merge.origin.upgraded or packages)
        unchanged_base = commit == sysroot.repo.base_of(merge.checksum)
        start = merge.checksum if unchanged_base else commit
        requests = () if unchanged_base else origin.requested
        recipe = Recipe(commit, start, requests, () if unchanged_base else origin.local, upgrade=packages)
        wanted = packages or not unchanged_base
        target = Target(origin, commit, recipe if wanted and (packages or origin.layered) else None)
        return _deploy(
            report, sysroot, merge, target, {**options, "dry_run": options.get("dry_run") or check}
        )


def _newer_base(report: Report, sysroot: Sysroot, origin: Origin) -> str | None:
    if not origin.refspec:
        return None
    if origin.remote:
        with task(report, f"Pulling {origin.refspec}"):
            sysroot.repo.pull(origin.refspec, report)
    return sysroot.repo.resolve_or_none(origin.refspec)


def _new_requests(
    sysroot: Sysroot, merge: Deployment, names: tuple[str, ...], *, idempotent: bool, allow_inactive: bool
) -> tuple[str, ...]:
    """Check requests against what is requested and present already; return those that are new."""
    known = set(merge.origin.requested)
    present = {p.name for p in packages_of(sysroot.repo, sysroot.repo.base_of(merge.checksum))}
    fresh = []
    for request in names:
        if request in known or request_name(request) in merge.origin.names - {request_name(request)}:
            _or_idempotent(f"package {request!r} is already requested", idempotent)
        elif request in present and not allow_inactive:
            _or_idempotent(f"package {request!r} is already part of the base", idempotent)
        else:
            fresh.append(request)
    return tuple(fresh)


def _without(origin: Origin, packages: Sequence[str], *, idempotent: bool) -> Origin:
    for name in packages:
        if name not in origin.names:
            _or_idempotent(f"package {name!r} is not requested", idempotent, hint=_requested_hint(origin))
    return drop_requests(origin, frozenset(packages))


def _or_idempotent(message: str, idempotent: bool, hint: str = "add --idempotent to accept that") -> None:
    if not idempotent:
        raise UsageError(message, hint=hint)


def _requested_hint(origin: Origin) -> str:
    names = ", ".join(sorted(origin.names)) or "none"
    return f"requested packages: {names}"


def _split_local(packages: Sequence[str]) -> tuple[tuple[str, ...], tuple[LocalPackage, ...]]:
    """Separate package names from .deb files; the files are kept for later rebuilds."""
    names = tuple(word for word in packages if not word.endswith(".deb"))
    files = [word for word in packages if word.endswith(".deb")]
    if not files:
        return names, ()
    from apt_ostree.system.apt import local

    return names, tuple(local.keep(Path(word)) for word in files)


def _extend(sysroot: Sysroot, merge: Deployment, origin: Origin) -> Target:
    """Build on the current commit: right as long as packages are only added."""
    base = sysroot.repo.base_of(merge.checksum)
    added = tuple(r for r in origin.requested if r not in merge.origin.requested)
    local = tuple(p for p in origin.local if p not in merge.origin.local)
    recipe = Recipe(base, merge.checksum, added, local) if added or local else None
    return Target(origin, base, recipe)


def _recompute(sysroot: Sysroot, merge: Deployment, origin: Origin) -> Target:
    """Build from the base: nothing of a dropped package can stay behind."""
    base = sysroot.repo.base_of(merge.checksum)
    if not origin.layered:
        return Target(origin, base, None)
    newer: Sequence[tuple[str, str]] = ()
    if origin.upgraded:
        newer = layering.layered_versions(
            packages_of(sysroot.repo, base), packages_of(sysroot.repo, merge.checksum)
        )
    recipe = Recipe(base, base, origin.requested, origin.local, at_least=tuple(newer))
    return Target(origin, base, recipe)


def _deploy(
    report: Report, sysroot: Sysroot, merge: Deployment, target: Target, options: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Build the target's commit and stage it, unless nothing would change."""
    given = dict(options)
    apply_live, replace_packages = given.pop("apply_live", False), given.pop("allow_replacement", False)
    limits = settings.load()
    wanted = Options(script_timeout=limits.script_timeout, **given)
    built = layering.build(report, sysroot, target.recipe, wanted) if target.recipe else None
    commit = built.commit if built else target.base
    outcome = _outcome(sysroot, merge, built, commit)
    if wanted.dry_run or wanted.download_only:
        return outcome | {"staged": False}
    if commit is None or (commit == merge.checksum and target.origin == merge.origin):
        report(Message("No change."))
        return outcome | {"staged": False, "changed": False}
    if not apply_live:
        _stage(report, sysroot, commit, target, merge)
        return outcome | {"staged": True}
    with statedb.opened() as db:
        # Planned before anything is staged: a refused `-A` must leave no deployment behind.
        live_undo.recover_interrupted(report, sysroot, db)
        change = live.plan(report, sysroot, db, commit, allow_replacement=replace_packages)
        _stage(report, sysroot, commit, target, merge)
        return outcome | {"staged": True} | live.carry_out(report, sysroot, db, change)


def _stage(report: Report, sysroot: Sysroot, commit: str, target: Target, merge: Deployment) -> None:
    with task(report, "Staging the deployment"):
        sysroot.stage(commit, target.origin, merge)


def _outcome(sysroot: Sysroot, merge: Deployment, built: Built | None, commit: str | None) -> dict[str, Any]:
    if built:
        transaction = built.transaction
        return {"transaction": transaction.to_json(), "commit": commit, "changed": bool(transaction)}
    diff = diff_packages(
        packages_of(sysroot.repo, merge.checksum), packages_of(sysroot.repo, commit or merge.checksum)
    )
    return {"transaction": None, "commit": commit, "changed": bool(diff) or commit != merge.checksum}
