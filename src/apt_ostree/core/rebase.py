"""deploy and rebase: builds the next deployment on another commit of what it follows, or on another one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from apt_ostree.core import driver, trust
from apt_ostree.core.deploy import Target, deploy
from apt_ostree.core.images import following
from apt_ostree.core.packages import (
    held,
    rebuilt,
    versions_of_layered,
    with_packages,
    without_layers_on,
)
from apt_ostree.core.state.inventory import packages_of
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import UsageError
from apt_ostree.model import image_reference
from apt_ostree.model.image_reference import ImageReference
from apt_ostree.model.origin import Origin
from apt_ostree.model.package import diff_packages
from apt_ostree.model.refspec import Refspec, Revision, is_checksum
from apt_ostree.model.requests.deployments import Deploy, Rebase
from apt_ostree.model.result import Result
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import image_refs, remotes

#: The number of commits that a message lists.
_SHOWN = 10
_OLDER = "leave --disallow-downgrade out to deploy it"


def deploy_revision(tx: Transaction, request: Deploy) -> Result:
    """Build the next deployment on a commit of the branch, or an image, that the present one follows.

    The layered packages keep their versions. Those of the base become the commit's, also if they were
    upgraded from the archives. If the present tree is that, nothing changes.

    Returns the result of `deploy`. Raises UsageError for a commit that the branch does not have or a package
    to drop that is not requested, Refused for an older commit if that is not wanted, and what `deploy` and
    the pull raise.
    """
    with tx.changing("deploy a commit"):
        if not request.revision:
            return driver.register(tx, request)
        driver.require_none_else(tx, bypass=request.bypass_driver or request.deploy.dry_run)
        origin, commit = _at_revision(tx, request)
        if request.disallow_downgrade:
            trust.refuse_older(tx, commit, _OLDER)
        if request.deploy.download_only:
            _keep(tx, Refspec.parse(origin.refspec), commit)
        origin = with_packages(tx, origin, request, commit)
        if _is_present(tx, origin, commit):
            target = Target(origin, tx.merge_deployment.checksum)
        else:
            target = _target(tx, origin, commit, keep=versions_of_layered(tx))
        result = deploy(tx, target, request.deploy)
        if request.register_driver:
            driver.register(tx, request)
        return result


def rebase(tx: Transaction, request: Rebase) -> Result:
    """Build the next deployment on another branch or image, which it follows from then on.

    The layered packages get the versions that the archives offer for the new base.

    Returns the result of `deploy`. Raises UsageError for the present branch, a remote or a commit that does
    not exist, or a package to drop that is not requested, Refused for an older commit if that is not wanted,
    and what `deploy` and the pull raise.
    """
    with tx.changing("rebase the system"):
        driver.require_none_else(tx, bypass=request.bypass_driver or request.deploy.dry_run)
        old = tx.merge_deployment.origin
        is_image = image_reference.is_image(request.refspec)
        origin, commit = (_on_image if is_image else _on_branch)(tx, old, request)
        if request.disallow_downgrade:
            trust.refuse_older(tx, commit, _OLDER)
        branch = Refspec.parse(origin.refspec)
        if request.deploy.download_only:
            _keep(tx, branch, commit)
        origin = with_packages(tx, origin, request, commit)
        target = _target(tx, origin, commit, keep=held(tx))
        result = deploy(tx, target, request.deploy)
        if result.next_boot and not request.skip_purge:
            _forget(tx, Refspec.parse(old.refspec), branch)
        if result.next_boot and not is_image:
            image_refs.await_image(tx.sysroot.repo, "")
        return result


# --- what is followed


def _at_revision(tx: Transaction, request: Deploy) -> tuple[Origin, str]:
    """Return the origin and the commit of a revision of what the system follows."""
    present = tx.merge_deployment.origin
    if present.image:
        return following.revision(tx, present, request.revision, cache_only=request.deploy.cache_only)
    pull, revision = not request.deploy.cache_only, Revision.parse(request.revision)
    branch = Refspec.parse(present.refspec)
    return present, _commit_of(tx, branch, revision, pull=pull, anywhere=request.skip_branch_check)


def _on_image(tx: Transaction, old: Origin, request: Rebase) -> tuple[Origin, str]:
    """Return an origin that follows an image, and the image's commit."""
    reference = ImageReference.parse(request.refspec)
    if request.revision is not None:
        raise UsageError(
            "an image has no revisions beside its name", hint="name its digest: HOST/REPOSITORY@sha256:..."
        )
    if str(reference) == old.image:
        raise UsageError(
            f"Old and new refs are equal: {reference}", hint="'apt-ostree upgrade' follows the present image"
        )
    return following.take(tx, old, reference, cache_only=request.deploy.cache_only)


def _on_branch(tx: Transaction, old: Origin, request: Rebase) -> tuple[Origin, str]:
    """Return an origin that follows a branch, and the commit of the branch that is asked for."""
    branch = _new_branch(tx, Refspec.parse(old.refspec), request.refspec)
    if str(branch) == old.refspec and request.revision is None:
        raise UsageError(
            f"Old and new refs are equal: {branch}",
            hint="'apt-ostree upgrade' follows the present branch",
        )
    origin = replace(old, refspec=str(branch), image="", image_digest="", unconfigured="")
    return origin, _newest(tx, branch, request)


# --- the commit


def _newest(tx: Transaction, branch: Refspec, request: Rebase) -> str:
    """Return the commit of a branch that is asked for, or its newest one."""
    repo, pull = tx.sysroot.repo, not request.deploy.cache_only
    if request.revision is not None:
        return _commit_of(tx, branch, Revision.parse(request.revision), pull=pull)
    if branch.remote and pull:
        with tx.task(f"Pulling {branch}"):
            remotes.pull(repo, str(branch), tx.report)
    return _acceptable(tx, branch, _head(tx, branch))


def _commit_of(
    tx: Transaction, branch: Refspec, revision: Revision, *, pull: bool, anywhere: bool = False
) -> str:
    """Return the commit of a branch's history that is asked for, with its tree.

    anywhere: a commit need not be of the branch.
    """
    repo = tx.sysroot.repo
    if revision.commit and (anywhere or not branch):
        commit = revision.commit
    else:
        commit = _in_history(tx, branch, revision, pull=pull)
    if branch.remote and pull and not repo.has_commit(commit):
        with tx.task(f"Pulling commit {commit[:12]}"):
            remotes.pull_commit(repo, branch.remote, commit, tx.report)
    # A commit that is not looked for in the branch is none of a local branch's, either.
    return _acceptable(tx, branch if branch.remote or not anywhere else Refspec(), commit)


def _acceptable(tx: Transaction, branch: Refspec, commit: str) -> str:
    """Return a commit that is here with its tree, and signed as it has to be.

    Raises UsageError for one that is not here, and Refused for one without a signature.
    """
    if not tx.sysroot.repo.has_commit(commit):
        raise UsageError(
            f"commit {commit[:12]} is not in the repository", hint="leave --cache-only out to pull it"
        )
    trust.require_signed(tx, branch, commit)
    return commit


def _in_history(tx: Transaction, branch: Refspec, revision: Revision, *, pull: bool) -> str:
    """Return the newest commit of a branch that a revision names; raise UsageError if there is none."""
    repo = tx.sysroot.repo
    if not branch:
        raise UsageError(
            "the deployment follows no branch, in which a version could be found", hint="name a commit"
        )
    if branch.remote and pull:
        with tx.task(f"Pulling the history of {branch}"):
            history = remotes.pull_history(repo, str(branch), tx.report)
    else:
        history = repo.ancestry(_head(tx, branch))
    for commit in history:
        if commit == revision.commit or (revision.version and repo.version(commit) == revision.version):
            return commit
    listed = "the newest commits of the branch are listed"
    raise UsageError(
        f"{branch} has no {revision}",
        details=[f"{commit[:12]} {repo.version(commit) or ''}".rstrip() for commit in history[:_SHOWN]],
        hint=f"{listed}; --skip-branch-check takes another one" if revision.commit else listed,
    )


def _head(tx: Transaction, branch: Refspec) -> str:
    """Return the newest commit of a branch that the repository has, or a commit that stands for a branch."""
    repo = tx.sysroot.repo
    is_local = branch and not branch.remote
    if is_local and repo.local_ref(branch.ref) is None:
        raise UsageError(f"there is no local branch {branch.ref!r}", hint="'ostree refs' lists the branches")
    return repo.resolve(str(branch))


# --- the branch


def _new_branch(tx: Transaction, present: Refspec, given: str) -> Refspec:
    """Return the branch that is asked for; parts that are not given are the present one's."""
    repo = tx.sysroot.repo
    if is_checksum(given):
        return Refspec(ref=given)
    wanted = Refspec.parse_partial(given, present)
    configured = remotes.names(repo)
    if wanted.remote and wanted.remote not in configured:
        raise UsageError(f"there is no remote {wanted.remote!r}", hint=_hint_on_remotes(configured))
    return wanted


def _hint_on_remotes(configured: Collection[str]) -> str:
    if configured:
        return f"there are: {', '.join(sorted(configured))}; 'ostree remote add' adds one"
    return "'ostree remote add' adds one"


def _keep(tx: Transaction, branch: Refspec, commit: str) -> None:
    """Have a remote's branch be at a newer commit that was pulled, where --cache-only looks for it."""
    repo = tx.sysroot.repo
    if branch.remote and repo.resolve_or_none(str(branch)) in (None, *repo.history(commit)):
        remotes.point(repo, str(branch), commit)


def _forget(tx: Transaction, old: Refspec, new: Refspec) -> None:
    """Forget what was pulled of the branch that the system has left; a local branch stays its owner's."""
    repo = tx.sysroot.repo
    if old.remote and old != new and repo.resolve_or_none(str(old)):
        failpoint("rebase.before-forget")
        remotes.forget(repo, str(old))


def _is_present(tx: Transaction, origin: Origin, commit: str) -> bool:
    """Return whether the present tree is what an origin asks for on a base whose packages stay its own."""
    merge, repo = tx.merge_deployment, tx.sysroot.repo
    if (origin, commit) != (merge.origin, repo.base_of(merge.checksum)):
        return False
    base, present = (packages_of(repo, name) for name in (commit, merge.checksum))
    return {change.name for change in diff_packages(base, present).changed} <= origin.names


def _target(tx: Transaction, origin: Origin, commit: str, *, keep: Sequence[tuple[str, str]]) -> Target:
    """Return the target for the requests of an origin on another base, whose own packages stay its own."""
    origin = replace(origin, upgraded=False)
    if not origin.layered:
        return without_layers_on(tx, origin, commit)
    return rebuilt(tx, origin, commit, keep=tuple(keep))
