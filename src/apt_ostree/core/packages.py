"""The package verbs: install, uninstall, upgrade. Each computes a new origin, builds, and deploys."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from apt_ostree.core import host
from apt_ostree.core.build import layering
from apt_ostree.core.build.layering import Built, Options, Recipe
from apt_ostree.core.live import engine, undo
from apt_ostree.core.live.planning import look
from apt_ostree.core.state.inventory import packages_of
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.events import Message, Report, task
from apt_ostree.model.origin import (
    LocalPackage,
    Origin,
    add_requests,
    added_requests,
    new_requests,
    pinned_requests,
    without_requests,
)
from apt_ostree.model.package import diff_packages
from apt_ostree.system import settings, statedb
from apt_ostree.system.ostree.sysroot import Sysroot

#: Holds the pending deployment's commit while another one is staged that may have to be taken back.
_PREVIOUS = "apt-ostree/previous"


@dataclass(frozen=True, slots=True)
class Target:
    """The deployment to make: its origin, and the commit that it holds or, with a recipe, is built on."""

    origin: Origin
    commit: str
    recipe: Recipe | None = None


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
    with host.changing("install packages", report) as sysroot, _requests(sysroot, packages) as (names, local):
        merge = host.merge_deployment(sysroot.deployments())
        base = frozenset() if allow_inactive else _names_in_base(sysroot, merge)
        fresh = new_requests(merge.origin, names, base, idempotent=idempotent)
        origin = add_requests(merge.origin, fresh, local)
        if uninstall:
            origin = without_requests(origin, uninstall, idempotent=idempotent)
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
    with (
        host.changing("drop packages", report) as sysroot,
        _requests(sysroot, install) as (names, local),
    ):
        merge = host.merge_deployment(sysroot.deployments())
        gone = tuple(sorted(merge.origin.names)) if everything else tuple(packages)
        origin = without_requests(merge.origin, gone, idempotent=idempotent)
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
    with host.changing("upgrade the system", report) as sysroot:
        merge = host.merge_deployment(sysroot.deployments())
        pull = not options.get("cache_only")
        newer = _newer_base(report, sysroot, merge.origin, pull=pull) if base else None
        target = _upgraded(sysroot, merge, newer, packages=packages)
        if check:
            options |= {"dry_run": True, "apply_live": False}
        return _deploy(report, sysroot, merge, target, options)


def _newer_base(report: Report, sysroot: Sysroot, origin: Origin, *, pull: bool) -> str | None:
    if not origin.refspec:
        return None
    if origin.remote and pull:
        with task(report, f"Pulling {origin.refspec}"):
            sysroot.repo.pull(origin.refspec, report)
    return sysroot.repo.resolve_or_none(origin.refspec)


def _upgraded(sysroot: Sysroot, merge: Deployment, newer: str | None, *, packages: bool) -> Target:
    """Return the target of an upgrade: on the current commit where the base stays, else on the new base."""
    origin, base = merge.origin, sysroot.repo.base_of(merge.checksum)
    if newer in (None, base):
        if not packages:
            return Target(origin, merge.checksum)
        pinned = pinned_requests(origin)
        return _build(origin, Recipe(base, merge.checksum, pinned, origin.local, upgrade=True))
    assert newer is not None
    if not (packages or origin.layered):
        return Target(origin, newer)
    keep = () if packages else _versions_in_use(sysroot, merge)
    return _build(origin, Recipe(newer, newer, origin.requested, origin.local, packages, keep))


@contextlib.contextmanager
def _requests(
    sysroot: Sysroot, packages: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], tuple[LocalPackage, ...]]]:
    """Separate package names from .deb files, which are kept as long as a deployment may need them again."""
    names = tuple(word for word in packages if not word.endswith(".deb"))
    files = [word for word in packages if word.endswith(".deb")]
    if not files:
        yield names, ()
        return
    from apt_ostree.system.apt import local

    try:
        yield names, tuple(local.keep(Path(word)) for word in files)
    finally:
        used = frozenset(p.sha256 for d in sysroot.deployments().all for p in d.origin.local)
        local.remove_unused(used)


def _names_in_base(sysroot: Sysroot, merge: Deployment) -> frozenset[str]:
    return frozenset(p.name for p in packages_of(sysroot.repo, sysroot.repo.base_of(merge.checksum)))


def _extend(sysroot: Sysroot, merge: Deployment, origin: Origin) -> Target:
    """Build on the current commit: right as long as packages are only added."""
    base = sysroot.repo.base_of(merge.checksum)
    added, local = added_requests(merge.origin, origin)
    if not (added or local):
        return Target(origin, merge.checksum)
    return _build(origin, Recipe(base, merge.checksum, added, local))


def _recompute(sysroot: Sysroot, merge: Deployment, origin: Origin) -> Target:
    """Build from the base: nothing of a dropped package can stay behind."""
    base = sysroot.repo.base_of(merge.checksum)
    if origin == merge.origin:
        return Target(origin, merge.checksum)
    if not origin.layered:
        return Target(origin, base)
    keep = _versions_in_use(sysroot, merge)
    return _build(origin, Recipe(base, base, origin.requested, origin.local, keep=keep))


def _build(origin: Origin, recipe: Recipe) -> Target:
    return Target(origin, recipe.start, recipe)


def _versions_in_use(sysroot: Sysroot, merge: Deployment) -> tuple[tuple[str, str], ...]:
    """Return the packages that are not as in the base: what else is rebuilt is not to upgrade them."""
    base = packages_of(sysroot.repo, sysroot.repo.base_of(merge.checksum))
    return tuple((p.name, p.version) for p in sorted(packages_of(sysroot.repo, merge.checksum) - base))


def _deploy(
    report: Report, sysroot: Sysroot, merge: Deployment, target: Target, options: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Build the target's commit and stage it, unless nothing would change."""
    given = dict(options)
    apply_live, dry_run = given.pop("apply_live", False), bool(given.pop("dry_run", False))
    wishes = engine.Wishes(**{name: given.pop(name) for name in engine.WISHES & given.keys()})
    # What a live change means is known when its tree is there, so that it is built for a dry run, too.
    needed = apply_live and not given.get("download_only")
    given |= {"dry_run": dry_run and not needed, "confirm": given.get("confirm", False) and not dry_run}
    wanted = Options(script_timeout=settings.load().script_timeout, **given)
    built = layering.build(report, sysroot, target.recipe, wanted) if target.recipe else None
    target = _with_result(sysroot, target, built)
    outcome = _outcome(sysroot, merge, target, built)
    if wanted.dry_run or wanted.download_only:
        return outcome | {"staged": False}
    if not outcome["changed"]:
        report(Message("No change."))
        wishes = replace(wishes, confirm=wanted.confirm)
        # What is pending: an earlier `-A` may have been killed before it came to that.
        late = apply_live and not merge.booted
        live = _live(report, sysroot, merge.checksum, wishes, dry_run=dry_run) if late else {}
        return {**outcome, "staged": False, **live}
    if apply_live and dry_run:
        return {**outcome, "staged": False, **_plan_live(report, sysroot, target.commit, wishes)}
    if not apply_live:
        _tell_of_overlays(report, sysroot, target.commit)
        _stage(report, sysroot, target, merge, last=True)
        return outcome | {"staged": True}
    with statedb.opened() as db:
        # Planned before anything is staged: a refused `-A` must leave no deployment behind.
        undo.recover_interrupted(report, sysroot, db)
        asking = wanted.confirm and built is None  # else the transaction was confirmed
        wishes = replace(wishes, confirm=asking)
        change = engine.plan(report, sysroot, db, target.commit, wishes)
        stage = partial(_stage, report, sysroot, target, merge)
        with _unstaged_on_failure(report, sysroot, merge):
            live = engine.carry_out(report, sysroot, db, change, wishes, meanwhile=stage)
        return outcome | {"staged": True} | live


def _tell_of_overlays(report: Report, sysroot: Sysroot, commit: str) -> None:
    """Tell where overlays will get in the way of the new deployment, or it in theirs."""
    with statedb.read_only() as db:
        states = db.overlays() if db else ()
        if not any(state.enabled for state in states):
            return
        from apt_ostree.core.overlays import stack
        from apt_ostree.core.state import overlay_store

        known = overlay_store.load(sysroot.repo, states)
        for overlay in known.values():
            found = stack.effective(sysroot.repo, overlay, commit, known) if overlay.state.enabled else None
            for note in found.notes if found else ():
                report(Message(note, "warning"))


def _plan_live(report: Report, sysroot: Sysroot, commit: str, wishes: engine.Wishes) -> Mapping[str, Any]:
    """Show what applying a commit live would mean; what was built for that goes again."""
    try:
        return {**_live(report, sysroot, commit, wishes, dry_run=True), "commit": None}
    finally:
        layering.discard(report, sysroot)


def _live(
    report: Report, sysroot: Sysroot, commit: str, wishes: engine.Wishes, *, dry_run: bool
) -> Mapping[str, Any]:
    """Make a commit current, unless the system shows it already."""
    with statedb.opened() as db:
        undo.recover_interrupted(report, sysroot, db, dry_run=dry_run)
        if look(sysroot, db).base == commit:
            return {}
        change = engine.plan(report, sysroot, db, commit, wishes)
        return engine.carry_out(report, sysroot, db, change, wishes, dry_run=dry_run)


@contextmanager
def _unstaged_on_failure(report: Report, sysroot: Sysroot, merge: Deployment) -> Iterator[None]:
    """When the new deployment cannot be made live, take it back: what was pending before is pending again."""
    before = sysroot.deployments()
    sysroot.repo.set_ref(_PREVIOUS, merge.checksum)  # staging another one prunes it
    try:
        yield
    except BaseException:
        if sysroot.deployments() != before:
            with task(report, "Taking the deployment back"):
                sysroot.keep(lambda deployment: not deployment.staged)
                if not merge.booted:
                    sysroot.stage(merge.checksum, merge.origin, merge)
        raise
    finally:
        sysroot.repo.set_ref(_PREVIOUS, None)


def _with_result(sysroot: Sysroot, target: Target, built: Built | None) -> Target:
    """Return the target with the commit that was built, and whether its base's packages were upgraded."""
    if built is None or target.recipe is None:
        return target
    commit = built.commit or target.commit  # nothing to install is a result, too
    base, now = (packages_of(sysroot.repo, name) for name in (target.recipe.base, commit))
    upgraded = bool(diff_packages(base, now).changed)
    return Target(replace(target.origin, upgraded=upgraded), commit, target.recipe)


def _stage(
    report: Report, sysroot: Sysroot, target: Target, merge: Deployment, *, last: bool = False
) -> None:
    with task(report, "Staging the deployment"):
        sysroot.stage(target.commit, target.origin, merge, last=last)


def _outcome(sysroot: Sysroot, merge: Deployment, target: Target, built: Built | None) -> dict[str, Any]:
    """Return what came of it; the difference is to the deployment that is replaced, where it is known."""
    pending = built is not None and bool(built.transaction) and built.commit is None
    changed = pending or target.commit != merge.checksum or target.origin != merge.origin
    outcome: dict[str, Any] = {
        "transaction": built.transaction.to_json() if built else None,
        "commit": None if pending else target.commit,
        "changed": changed,
    }
    if not pending:
        diff = diff_packages(
            packages_of(sysroot.repo, merge.checksum), packages_of(sysroot.repo, target.commit)
        )
        outcome["packages"] = asdict(diff)
    return outcome
