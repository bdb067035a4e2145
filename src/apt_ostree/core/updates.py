"""What an update changes: noted by a check, and told to whoever asks; and how two deployments differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from apt_ostree.core.state import reading
from apt_ostree.core.state.inventory import packages_of
from apt_ostree.errors import UsageError
from apt_ostree.model import layout
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.package import PackageDiff, diff_packages
from apt_ostree.model.queries import AvailableUpdate, DeploymentDiff
from apt_ostree.model.update import Update, packages_after
from apt_ostree.system import available_update as record
from apt_ostree.system.ostree import remotes
from apt_ostree.system.ostree.repo import Repo

if TYPE_CHECKING:  # the service, which asks, has no use for what makes deployments
    from apt_ostree.core.deploy import Target
    from apt_ostree.core.transaction import Transaction


def note(tx: Transaction, target: Target, plan: Mapping[str, Any] | None) -> None:
    """Note what an upgrade would change. plan: of its packages, on the target's commit; None without one."""
    repo, merge = tx.sysroot.repo, tx.merge_deployment
    old, new = repo.base_of(merge.checksum), target.recipe.base if target.recipe else target.commit
    start = packages_of(repo, target.commit)
    after = packages_after(start, plan) if plan else start
    diff = diff_packages(packages_of(repo, merge.checksum), after)
    record.write(_update(repo, merge, (old, new), new, diff))


def note_image(tx: Transaction, digest: str) -> None:
    """Note that the image that is followed is another one now, of which only the digest is known."""
    merge = tx.merge_deployment
    update = Update(
        against=merge.checksum,
        osname=merge.osname,
        origin=merge.origin.image,
        commit="",
        version=None,
        timestamp=0,
        new_base=True,
        gpg_enabled=False,
        diff=PackageDiff(),
        digest=digest,
    )
    record.write(update)


def available_update(_query: AvailableUpdate) -> Update | None:
    """Return what the last check found if that is still true, else what the pending deployment changes."""
    with reading.opened() as sysroot:
        deployments, repo = sysroot.deployments(), sysroot.repo
        booted, pending, merge = deployments.booted, deployments.pending, deployments.merge
        if noted := record.read(merge.checksum if merge else None):
            return noted
        if not (booted and pending) or booted.osname != pending.osname:
            return None
        bases = (repo.base_of(booted.checksum), repo.base_of(pending.checksum))
        diff = diff_packages(packages_of(repo, booted.checksum), packages_of(repo, pending.checksum))
        return _update(repo, booted, bases, pending.checksum, diff, deployment=pending.id)


def deployment_diff(query: DeploymentDiff) -> Mapping[str, Any]:
    """Return how the packages of two deployments differ; raise UsageError for an unknown id."""
    with reading.opened() as sysroot:
        by_id = {deployment.id: deployment for deployment in sysroot.deployments().all}
        for name in (query.one, query.two):
            if name not in by_id:
                raise UsageError(f"there is no deployment {name!r}", hint=f"there are: {', '.join(by_id)}")
        one, two = (packages_of(sysroot.repo, by_id[name].checksum) for name in (query.one, query.two))
        return asdict(diff_packages(one, two))


def _update(
    repo: Repo,
    present: Deployment,
    bases: tuple[str, str],
    commit: str,
    diff: PackageDiff,
    **more: str,
) -> Update:
    """Return the update of a deployment. bases: the present one and the new one."""
    origin = present.origin
    of_bases = {package.name for base in bases for package in packages_of(repo, base)}
    return Update(
        against=present.checksum,
        osname=present.osname,
        origin=origin.image or origin.refspec,
        commit=commit,
        version=repo.metadata(commit).get(layout.META_VERSION),
        timestamp=repo.timestamp(commit),
        new_base=bases[0] != bases[1],
        gpg_enabled=remotes.verification(repo, origin.remote) is remotes.Verification.REQUIRED,
        diff=diff,
        layered=tuple(sorted(diff.names - of_bases)),
        **more,
    )
