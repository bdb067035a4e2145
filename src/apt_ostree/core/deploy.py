"""Makes deployments: build the commit, plan, stage, apply live. A failure undoes all of it.

A verb computes a `Target`. This module builds and deploys it in the same way for every verb.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from apt_ostree.core import policing
from apt_ostree.core.build import layering
from apt_ostree.core.build.layering import Built, Label, Sources
from apt_ostree.core.build.work import OwnInitramfs
from apt_ostree.core.live import engine, undo
from apt_ostree.core.live.planning import Change
from apt_ostree.core.overlays import stack
from apt_ostree.core.state import account_files, etc_deltas, leftovers, marks, opt, reserve
from apt_ostree.core.state.inventory import layered_packages, packages_of
from apt_ostree.core.steps import Step, take
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused
from apt_ostree.model import layout, refusals
from apt_ostree.model.etc_delta import Delta
from apt_ostree.model.events import PlanShown
from apt_ostree.model.newer import follow
from apt_ostree.model.origin import (
    Command,
    LocalPackage,
    Origin,
    adds_recommended,
    named_architectures,
    pinned_requests,
)
from apt_ostree.model.package import diff_packages
from apt_ostree.model.policy import Incoming
from apt_ostree.model.requests.options import DeployOptions, LiveOptions
from apt_ostree.model.result import Result
from apt_ostree.model.update import packages_after
from apt_ostree.model.verdict import Way
from apt_ostree.system import files, newer_versions
from apt_ostree.system.ostree import bootfs


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a commit is built on that of a target.

    base: the commit that the packages are layered on.
    install: the requested packages, see system.apt.resolver.PackageGoal.
    local: packages that were given as files.
    upgrade: whether all other packages are upgraded, too.
    yielding: requests with a version that give way to a security update.
    keep: names and versions in use, see system.apt.resolver.PackageGoal.
    drop: names of packages whose requests were dropped. Where the commit is built on another tree than the
        present one, that never has them, and only their scripts are run before.
    remove, needed: names of packages, see system.apt.resolver.PackageGoal.
    only_scripts: whether the base itself is deployed, after the removal's scripts have run.
    configure: packages of the base whose scripts run as if they were installed: they come back.
    commands: commands that are run after the packages were changed.
    initramfs: make what the initramfs has of the machine, though nothing else changes.
    """

    base: str
    install: tuple[str, ...] = ()
    local: tuple[LocalPackage, ...] = ()
    upgrade: bool = False
    yielding: frozenset[str] = frozenset()
    keep: tuple[tuple[str, str], ...] = ()
    drop: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    needed: frozenset[str] = frozenset()
    only_scripts: bool = False
    configure: tuple[str, ...] = ()
    commands: tuple[Command, ...] = ()
    initramfs: bool = False

    @property
    def only_makes_initramfs(self) -> bool:
        """Return whether nothing else is made than what the initramfs has of the machine."""
        return self == Recipe(self.base, initramfs=True)

    @property
    def is_local(self) -> bool:
        """Return whether nothing is needed from the archives."""
        changes = self.removes or self.commands or self.configure or self.initramfs
        return bool(changes) and not (self.install or self.local or self.upgrade)

    @property
    def removes(self) -> bool:
        """Return whether packages are removed."""
        return bool(self.drop or self.remove)

    @property
    def only_runs(self) -> bool:
        """Return whether only commands are run."""
        return self.is_local and not (self.removes or self.configure or self.initramfs)


@dataclass(frozen=True, slots=True)
class Target:
    """The deployment to make.

    origin: the origin of the new deployment.
    commit: the commit to deploy; with a recipe, the commit that the new one is built on.
    recipe: how to build the commit; None deploys `commit` itself.
    kernel_arguments: the new kernel arguments; None keeps the present ones.
    """

    origin: Origin
    commit: str
    recipe: Recipe | None = None
    kernel_arguments: tuple[str, ...] | None = None


def deploy(tx: Transaction, target: Target, options: DeployOptions) -> Result:
    """Build the target's commit, stage it and apply it live as requested, unless nothing would change.

    Returns `transaction`, `commit`, `packages` and `staged`, and what `engine.carry_out` returns of a live
    change. Raises Refused when the packages or the live change are refused, and ExternalFailure or Incomplete
    when a step fails.
    """
    # A live change can only be planned once its tree exists, so the commit is built for a dry run, too.
    live = options.live if not (options.download_only or options.only_judged) else None
    # What a command does is not known before it was run, either.
    only_runs = target.recipe is not None and target.recipe.only_runs and not options.only_judged
    requested = target.origin.names - tx.merge_deployment.origin.names
    policing.require_packages(tx, [Incoming(name.partition(":")[0]) for name in requested])
    tx.subject = asdict(target)
    built = _build(tx, target, options, dry_run=options.dry_run and not (live or only_runs))
    start, target = target.commit, _with_commit(tx, target, built)
    _refuse_occupied(tx, target.commit)
    _refuse_small_boot(tx, target.commit)
    account_files.refuse_shared_ids(tx.sysroot.repo, target.commit)
    outcome = _outcome(tx, target, built, dry_run=options.dry_run)
    if outcome["changed"]:
        if not options.download_only:
            outcome |= _require_unfailed(tx, target, built, options)
        policing.require_approval(tx)
    if options.dry_run and not (live or options.judge):
        _show_difference(tx, start, target.commit, built)
    if options.download_only or (options.dry_run and not live):
        return _result({**outcome, "commit": None if built and built.commit else outcome["commit"]})
    if not outcome["changed"]:
        return _make_pending_live(tx, outcome, options)
    policing.require_scanned(tx, tx.merge_deployment.checksum, target.commit)
    if not options.dry_run:
        policing.require_open(tx)
    _warn_about_accounts(tx, target.commit)
    with etc_deltas.provided(target.commit, _delta(tx, target, built), keep=not options.dry_run):
        if not live:
            _warn_about_overlays(tx, target.commit)
            if options.test or engine.is_tested(tx, target.commit, (tx.merge_deployment.checksum,)):
                engine.test(tx, stack.goal_on(tx, target.commit), delta=etc_deltas.read(target.commit))
            take([_staging(tx, target, options, last=True)])
            return _result(outcome, staged=True)
        if options.dry_run:
            return _plan_live(tx, outcome, target.commit, live)
        return _deploy_live(tx, outcome, target, options, ask=built is None)


# --- build


def _build(tx: Transaction, target: Target, options: DeployOptions, *, dry_run: bool) -> Built | None:
    """Build the target's commit, if it has a recipe."""
    recipe = target.recipe
    if recipe is None:
        return None
    from apt_ostree.system.apt.resolver import PackageGoal

    if recipe.removes and recipe.is_local:
        reserve.release(tx.sysroot, for_removal=True)
    anew = target.commit != tx.merge_deployment.checksum
    sources = _sources(tx, target.origin, recipe, cache_only=options.cache_only, anew=anew)
    only_planned = dry_run or options.download_only
    before = _without_dropped(tx, recipe) if anew and not only_planned else None
    with layering.opened(tx, target.commit, sources, before=before) as session:
        requests = PackageGoal(
            (*recipe.install, *session.exact),
            recipe.upgrade,
            dict(recipe.keep),
            session.kept,
            drop=() if anew else recipe.drop,
            remove=recipe.remove,
            needed=recipe.needed,
            pinned=pinned_requests(target.origin),
            yielding=recipe.yielding,
            requested=target.origin.names,
            recommends=dict(target.origin.recommends),
        )
        built = layering.install(
            session,
            requests,
            Label(recipe.base, deployed=recipe.base if recipe.only_scripts else ""),
            commands=recipe.commands,
            configure=recipe.configure,
            initramfs=_own_initramfs(target, recipe, anew=anew),
            replaces=target.origin.replacing,
            dry_run=dry_run,
            download_only=options.download_only,
            ask=not options.dry_run,
        )
    if built.commit and built.plan.download_bytes:
        _prune_cache(tx, built.commit)
    if sources.archives and (not options.dry_run or target.origin == tx.merge_deployment.origin):
        newer_versions.write((*built.plan.taken, *built.plan.newer))
    return built


def _sources(tx: Transaction, origin: Origin, recipe: Recipe, *, cache_only: bool, anew: bool) -> Sources:
    """Return where the packages come from. anew: they are layered on another tree than the present one."""
    return Sources(
        recipe.local,
        recipe.install if anew else (),  # else they are there
        layered_packages(tx.sysroot.repo, tx.merge_deployment.checksum) if anew else frozenset(),
        origin.names,
        upgrade=recipe.upgrade,
        cache_only=cache_only or recipe.is_local,
        archives=not recipe.is_local,
        architectures=named_architectures(origin, _architectures(tx)),
        recommends=adds_recommended(origin, recipe.install, recipe.local, upgrade=recipe.upgrade),
    )


def _without_dropped(tx: Transaction, recipe: Recipe) -> Delta | None:
    """Return what scripts did to /etc, with those of dropped packages that another base never has.

    None if there are no such packages.
    """
    from apt_ostree.system.apt.resolver import PackageGoal

    if not set(recipe.drop) - recipe.needed:
        return None
    present = tx.merge_deployment.checksum
    with layering.opened(tx, present, Sources(cache_only=True, archives=False)) as session:
        goal = PackageGoal(drop=recipe.drop, needed=recipe.needed)
        return layering.run_removal(session, goal, tx.sysroot.repo.base_of(present))


def _own_initramfs(target: Target, recipe: Recipe, *, anew: bool) -> OwnInitramfs | None:
    origin = target.origin
    if not (origin.changes_initramfs or recipe.initramfs):
        return None
    return OwnInitramfs(origin.initramfs, origin.initramfs_etc, anew or recipe.initramfs)


def _prune_cache(tx: Transaction, commit: str) -> None:
    """Keep the cache of archives to its size. commit: the new one, of which archives are kept, too."""
    from apt_ostree.system.apt import cache

    commits = {commit, *(deployment.checksum for deployment in tx.deployments.all)}
    kept = {package for one in commits for package in layered_packages(tx.sysroot.repo, one)}
    if removed := cache.prune(tx.settings.cache_size, kept):
        tx.message(f"{len(removed)} archives were removed from the cache, so that it keeps to its size.")


def _architectures(tx: Transaction) -> list[str]:
    """Return the architectures of the present deployment's dpkg, if it has others than the native one."""
    directory = tx.sysroot.directory(tx.merge_deployment)
    return files.text_of(directory / layout.DPKG_ADMINDIR / "arch").split()


def _with_commit(tx: Transaction, target: Target, built: Built | None) -> Target:
    """Return the target with the commit that was built.

    Its origin notes whether base packages changed, and the versions that replace requested ones.
    """
    if built is None or target.recipe is None:
        return target
    if target.recipe.only_runs and not built.commit:  # the commands have changed nothing
        return replace(target, origin=tx.merge_deployment.origin)
    # There may have been nothing to install.
    commit = built.commit or (target.recipe.base if target.recipe.only_scripts else target.commit)
    base, now = (packages_of(tx.sysroot.repo, name) for name in (target.recipe.base, commit))
    upgraded = bool(diff_packages(base, now).changed)
    origin = replace(target.origin, upgraded=upgraded)
    requested = {*follow(origin.requested, built.plan.taken), *built.plan.protected}
    origin = replace(origin, requested=tuple(sorted(requested)))
    return replace(target, origin=origin, commit=commit)


def _delta(tx: Transaction, target: Target, built: Built | None) -> Delta:
    """Return what scripts did to /etc for the target; what they did for the booted deployment is there."""
    if built and built.commit:
        return built.delta
    merge = tx.merge_deployment
    return {} if merge.booted and target.commit == merge.checksum else etc_deltas.read(target.commit)


def _outcome(tx: Transaction, target: Target, built: Built | None, *, dry_run: bool) -> dict[str, Any]:
    """Return the outcome as JSON keys; `packages` compares with the deployment that is replaced.

    `packages` is absent while the commit is not built.
    """
    merge, repo = tx.merge_deployment, tx.sysroot.repo
    remakes = dry_run and target.recipe is not None and target.recipe.initramfs
    only_planned = built is not None and built.commit is None and (bool(built.plan) or remakes)
    same = target.commit == merge.checksum and target.origin == merge.origin
    same = same and target.kernel_arguments in (None, merge.kernel_arguments)
    outcome: dict[str, Any] = {
        "transaction": built.plan.to_json() if built else None,
        "commit": None if only_planned else target.commit,
        "changed": only_planned or not same,
    }
    if not only_planned:
        difference = diff_packages(packages_of(repo, merge.checksum), packages_of(repo, target.commit))
        outcome["packages"] = asdict(difference)
    return outcome


def _show_difference(tx: Transaction, start: str, commit: str, built: Built | None) -> None:
    """Show how packages differ from the present ones, if their plan is none, or says what is laid on a base.

    start: the commit that the plan is carried out on. commit: what is deployed without it.
    """
    repo, present = tx.sysroot.repo, tx.merge_deployment.checksum
    plan = built.plan.to_json() if built and built.plan else None
    if plan and start == present:
        return
    after = packages_after(packages_of(repo, commit), plan) if plan else packages_of(repo, commit)
    if difference := diff_packages(packages_of(repo, present), after):
        tx.report(PlanShown("packages", asdict(difference)))


def _require_unfailed(
    tx: Transaction, target: Target, built: Built | None, options: DeployOptions
) -> dict[str, dict[str, str]]:
    """Raise Refused for a tree of which a boot has failed.

    For a preview, return what has failed as the key `failed`: way -> when and why.
    """
    repo, merge = tx.sysroot.repo, tx.merge_deployment

    def content(origin: Origin | None) -> str:
        if target.recipe is None or built is None or built.commit or not built.plan:
            return marks.content_of(repo, target.commit, origin)
        packages = packages_after(packages_of(repo, target.commit), built.plan.to_json())
        return marks.identity(target.recipe.base, packages, origin)

    arguments = merge.kernel_arguments if target.kernel_arguments is None else target.kernel_arguments
    boot = marks.of_planned(lambda: content(target.origin), Way.BOOT, arguments)
    # The same packages boot with another initramfs: that may be what mends them.
    allowed = options.may_have_failed or (target.recipe is not None and target.recipe.only_makes_initramfs)
    policing.require_unfailed(tx, boot, allowed=allowed, preview=options.dry_run)
    live = marks.of_planned(lambda: content(None), Way.LIVE) if options.dry_run else None
    return {"failed": {mark.way: mark.describe() for mark in (boot, live) if mark}}


def _result(outcome: dict[str, Any], *, staged: bool = False) -> Result:
    details = {**outcome, "staged": staged}
    return Result(details.pop("changed"), details.pop("live", None), next_boot=staged, details=details)


def _refuse_occupied(tx: Transaction, commit: str) -> None:
    """Raise Refused if something of the administrator's is at the place of a package's directory in /opt."""
    reasons = refusals.opt_refusals(opt.places(tx.sysroot.repo, commit))
    if reasons:
        message = "files of packages have no place in /opt"
        raise Refused(message, details=reasons, hint="nothing was changed")


def _refuse_small_boot(tx: Transaction, commit: str) -> None:
    """Raise Refused if ostree could not write the boot files of the deployment at shutdown."""
    merge = tx.merge_deployment
    if commit == merge.checksum:
        return
    refusal = bootfs.read(tx.sysroot, commit, merge.osname).refusal()
    if refusal:
        raise refusal


def _warn_about_accounts(tx: Transaction, commit: str) -> None:
    """Warn about accounts of a new base that have other ids here: files of the tree may belong to others."""
    for note in account_files.notes_on(tx.sysroot.repo, commit, tx.merge_deployment.checksum):
        tx.warning(note)


# --- stage


def _staging(tx: Transaction, target: Target, options: DeployOptions, *, last: bool = False) -> Step:
    """Return the step that stages the target; last: no step of the request follows it."""
    merge, before = tx.merge_deployment, tx.sysroot.deployments()
    pending = () if merge.booted else (merge.checksum,)

    def stage() -> None:
        tx.tidy_at_end()
        with tx.task("Staging the deployment"):
            etc_deltas.set_due(*pending, target.commit)
            tx.sysroot.stage(
                target.commit,
                target.origin,
                merge,
                kernel_arguments=target.kernel_arguments,
                locked=options.lock_finalization,
                last=last,
            )
            etc_deltas.set_due(target.commit)
        tx.reread()
        undo.hold_until_finalized()

    def unstage(_failure: BaseException) -> None:
        """Drop the staged deployment; what was pending before is pending again."""
        etc_deltas.set_due(*pending)
        if tx.sysroot.deployments() == before:
            return
        with tx.task("Dropping the staged deployment"):
            tx.sysroot.keep(lambda deployment: not deployment.staged)
            if not merge.booted:
                tx.sysroot.stage(merge.checksum, merge.origin, merge, locked=merge.locked)

    return Step("stage", stage, unstage)


@contextmanager
def _previous_pinned(tx: Transaction) -> Iterator[None]:
    """Keep the pending deployment's commit from being pruned while another deployment is staged."""
    tx.sysroot.repo.set_ref(leftovers.PREVIOUS, tx.merge_deployment.checksum)
    try:
        yield
    finally:
        tx.sysroot.repo.set_ref(leftovers.PREVIOUS, None)


def _warn_about_overlays(tx: Transaction, commit: str) -> None:
    """Warn about conflicts between enabled overlays and the new deployment."""
    for note in stack.notes_on(tx, commit):
        tx.warning(note)


# --- live


def _deploy_live(
    tx: Transaction, outcome: dict[str, Any], target: Target, options: DeployOptions, *, ask: bool
) -> Result:
    """Apply the target live, and stage it while units settle; ask: the user was not asked before."""
    assert options.live
    undo.recover_interrupted(tx)
    # Planned before anything is staged: a refused `-A` must leave no deployment behind.
    change = _plan(tx, target.commit, options.live, ask=ask)
    with _previous_pinned(tx):
        staging = _staging(tx, target, options)
        live = engine.carry_out(tx, change, options.live, while_settling=[staging])
    return _result({**outcome, **live, "changed": True}, staged=True)


def _plan(tx: Transaction, commit: str, options: LiveOptions, *, ask: bool) -> Change:
    return engine.plan(tx, stack.goal_on(tx, commit), options, delta=etc_deltas.read(commit), ask=ask)


def _make_pending_live(tx: Transaction, outcome: dict[str, Any], options: DeployOptions) -> Result:
    """Apply the pending deployment live, unless it is shown: an earlier `-A` may have been killed."""
    tx.message("No change.")
    merge = tx.merge_deployment
    if options.live is None or options.download_only or merge.booted:
        return _result(outcome)
    undo.recover_interrupted(tx, dry_run=options.dry_run)
    if tx.live.base == merge.checksum:
        return _result(outcome)
    change = _plan(tx, merge.checksum, options.live, ask=not options.dry_run)
    live = engine.carry_out(tx, change, options.live, dry_run=options.dry_run)
    return _result({**outcome, **live})


def _plan_live(tx: Transaction, outcome: dict[str, Any], commit: str, options: LiveOptions) -> Result:
    """Show the plan of applying a commit live, which was built only for that."""
    undo.recover_interrupted(tx, dry_run=True)
    live: dict[str, Any] = {}
    if tx.live.base != commit:
        change = _plan(tx, commit, options, ask=False)
        live = engine.carry_out(tx, change, options, dry_run=True)
    return _result({**outcome, **live, "commit": None})
