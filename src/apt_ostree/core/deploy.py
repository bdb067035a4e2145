"""The one way to a deployment: build -> plan -> stage -> make it live, or all of it back.

A verb computes a `Target`; what becomes of it is decided here, the same for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from apt_ostree.core.build import layering
from apt_ostree.core.build.layering import Built, Label, Sources
from apt_ostree.core.live import engine, undo
from apt_ostree.core.overlays import stack
from apt_ostree.core.state.inventory import packages_of
from apt_ostree.core.steps import Step, take
from apt_ostree.core.transaction import Transaction
from apt_ostree.model.origin import LocalPackage, Origin
from apt_ostree.model.package import diff_packages
from apt_ostree.model.requests import DeployOptions, LiveOptions
from apt_ostree.model.result import Result

#: Holds the pending deployment's commit while another one is staged that may have to be taken back.
_PREVIOUS = "apt-ostree/previous"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the commit is built on the target's.

    base: the commit that the packages are layered on. install, upgrade, keep: see system.apt.resolver.Wanted.
    """

    base: str
    install: tuple[str, ...] = ()
    local: tuple[LocalPackage, ...] = ()
    upgrade: bool = False
    keep: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """The deployment to make.

    commit: what it holds or, with a recipe, is built on; kernel_arguments: None keeps the present ones.
    """

    origin: Origin
    commit: str
    recipe: Recipe | None = None
    kernel_arguments: tuple[str, ...] | None = None


def deploy(tx: Transaction, target: Target, options: DeployOptions) -> Result:
    """Build the target's commit, stage it and make it live as asked, unless nothing would change."""
    # What a live change means is known when its tree is there, so that it is built for a dry run, too.
    live = options.live if not options.download_only else None
    built = _build(tx, target, options, dry_run=options.dry_run and not live)
    target = _with_commit(tx, target, built)
    outcome = _outcome(tx, target, built)
    if options.download_only or (options.dry_run and not live):
        return _result(outcome)
    if not outcome["changed"]:
        return _make_pending_live(tx, outcome, options)
    if not live:
        _warn_about_overlays(tx, target.commit)
        take([_staging(tx, target, last=True)])
        return _result(outcome, staged=True)
    if options.dry_run:
        return _plan_live(tx, outcome, target.commit, live)
    return _deploy_live(tx, outcome, target, live, ask=built is None)


# --- build


def _build(tx: Transaction, target: Target, options: DeployOptions, *, dry_run: bool) -> Built | None:
    """Build the target's commit, where it is not there yet."""
    recipe = target.recipe
    if recipe is None:
        return None
    from apt_ostree.system.apt.resolver import Wanted

    sources = Sources(recipe.local, refresh=recipe.upgrade, cache_only=options.cache_only)
    with layering.opened(tx, target.commit, sources) as session:
        wanted = Wanted((*recipe.install, *session.exact), recipe.upgrade, dict(recipe.keep))
        return layering.install(
            session,
            wanted,
            Label(recipe.base),
            dry_run=dry_run,
            download_only=options.download_only,
            ask=not options.dry_run,
        )


def _with_commit(tx: Transaction, target: Target, built: Built | None) -> Target:
    """Return the target with the commit that was built, and whether its base's packages were upgraded."""
    if built is None or target.recipe is None:
        return target
    commit = built.commit or target.commit  # nothing to install is a result, too
    base, now = (packages_of(tx.sysroot.repo, name) for name in (target.recipe.base, commit))
    upgraded = bool(diff_packages(base, now).changed)
    return replace(target, origin=replace(target.origin, upgraded=upgraded), commit=commit)


def _outcome(tx: Transaction, target: Target, built: Built | None) -> dict[str, Any]:
    """Return what came of it; the difference is to the deployment that is replaced, where it is known."""
    merge, repo = tx.merge_deployment, tx.sysroot.repo
    foreseen = built is not None and bool(built.plan) and built.commit is None
    same = target.commit == merge.checksum and target.origin == merge.origin
    same = same and target.kernel_arguments in (None, merge.kernel_arguments)
    outcome: dict[str, Any] = {
        "transaction": built.plan.to_json() if built else None,
        "commit": None if foreseen else target.commit,
        "changed": foreseen or not same,
    }
    if not foreseen:
        difference = diff_packages(packages_of(repo, merge.checksum), packages_of(repo, target.commit))
        outcome["packages"] = asdict(difference)
    return outcome


def _result(outcome: dict[str, Any], *, staged: bool = False) -> Result:
    details = {**outcome, "staged": staged}
    return Result(details.pop("changed"), details.pop("live", None), next_boot=staged, details=details)


# --- stage


def _staging(tx: Transaction, target: Target, *, last: bool = False) -> Step:
    """Return the step that makes the target the next boot's; last: nothing of the request follows."""
    merge, before = tx.merge_deployment, tx.sysroot.deployments()

    def stage() -> None:
        with tx.task("Staging the deployment"):
            tx.sysroot.stage(
                target.commit, target.origin, merge, kernel_arguments=target.kernel_arguments, last=last
            )
        tx.reread()

    def unstage(_failure: BaseException) -> None:
        """Take it back: what was pending before is pending again."""
        if tx.sysroot.deployments() == before:
            return
        with tx.task("Taking the deployment back"):
            tx.sysroot.keep(lambda deployment: not deployment.staged)
            if not merge.booted:
                tx.sysroot.stage(merge.checksum, merge.origin, merge)

    return Step("stage", stage, unstage)


@contextmanager
def _previous_pinned(tx: Transaction) -> Iterator[None]:
    """Keep the pending deployment's commit, which staging another one would prune."""
    tx.sysroot.repo.set_ref(_PREVIOUS, tx.merge_deployment.checksum)
    try:
        yield
    finally:
        tx.sysroot.repo.set_ref(_PREVIOUS, None)


def _warn_about_overlays(tx: Transaction, commit: str) -> None:
    """Tell where overlays will get in the way of the new deployment, or it in theirs."""
    for note in stack.notes_on(tx, commit):
        tx.warning(note)


# --- live


def _deploy_live(
    tx: Transaction, outcome: dict[str, Any], target: Target, options: LiveOptions, *, ask: bool
) -> Result:
    """Make the target live, and stage it while units settle; ask: the packages' plan did not ask yet."""
    undo.recover_interrupted(tx)
    # Planned before anything is staged: a refused `-A` must leave no deployment behind.
    change = engine.plan(tx, stack.goal_on(tx, target.commit), options, ask=ask)
    with _previous_pinned(tx):
        live = engine.carry_out(tx, change, options, while_settling=[_staging(tx, target)])
    return _result({**outcome, **live, "changed": True}, staged=True)


def _make_pending_live(tx: Transaction, outcome: dict[str, Any], options: DeployOptions) -> Result:
    """Make what is pending live, unless it is: an earlier `-A` may have been killed before that."""
    tx.message("No change.")
    merge = tx.merge_deployment
    if options.live is None or options.download_only or merge.booted:
        return _result(outcome)
    undo.recover_interrupted(tx, dry_run=options.dry_run)
    if tx.live.base == merge.checksum:
        return _result(outcome)
    change = engine.plan(tx, stack.goal_on(tx, merge.checksum), options.live, ask=not options.dry_run)
    live = engine.carry_out(tx, change, options.live, dry_run=options.dry_run)
    return _result({**outcome, **live})


def _plan_live(tx: Transaction, outcome: dict[str, Any], commit: str, options: LiveOptions) -> Result:
    """Show what making a commit live would mean; what was built for that goes again."""
    try:
        undo.recover_interrupted(tx, dry_run=True)
        live: dict[str, Any] = {}
        if tx.live.base != commit:
            change = engine.plan(tx, stack.goal_on(tx, commit), options, ask=False)
            live = engine.carry_out(tx, change, options, dry_run=True)
        return _result({**outcome, **live, "commit": None})
    finally:
        layering.discard(tx)
