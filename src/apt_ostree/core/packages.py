"""The verbs that build a deployment: install, uninstall, upgrade, run. Each computes a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from apt_ostree.core import driver, trust, updates
from apt_ostree.core.deploy import Recipe, Target, deploy
from apt_ostree.core.images import following
from apt_ostree.core.state.inventory import layered_packages, packages_of
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused
from apt_ostree.model import layout
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.origin import (
    LocalPackage,
    Origin,
    active_requests,
    add_command,
    add_requests,
    added_requests,
    new_local,
    new_requests,
    pinned_requests,
    without_command,
    without_layers,
    without_requests,
    yielding_requests,
)
from apt_ostree.model.package import Package
from apt_ostree.model.refspec import Refspec
from apt_ostree.model.requests.packages import BaseRequest, Install, Run, Uninstall, Upgrade
from apt_ostree.model.result import Result
from apt_ostree.system import dpkg_query
from apt_ostree.system.ostree import remotes


def install(tx: Transaction, request: Install) -> Result:
    """Layer packages on the next deployment.

    Returns the result of `deploy`. Raises UsageError for a request that changes nothing or a file that is not
    a package, and what `deploy` raises.
    """
    with tx.changing("install packages"):
        merge, idempotent = tx.merge_deployment, request.idempotent
        shipped = set() if request.allow_inactive else {*_shipped(tx)}
        shipped -= {package for package in shipped if package.name in merge.origin.removed}
        local = new_local(local_packages(tx, request.files), shipped, idempotent=idempotent)
        base = {package.name for package in shipped}
        requests = new_requests(merge.origin, request.packages, base, idempotent=idempotent)
        recommends, replaces = request.recommends, request.replace_files
        origin = add_requests(merge.origin, requests, local, recommends=recommends, replaces=replaces)
        if request.uninstall:
            origin = without_requests(origin, request.uninstall, idempotent=idempotent)
        return deploy(tx, changed(tx, origin), request.deploy)


def uninstall(tx: Transaction, request: Uninstall) -> Result:
    """Remove layered packages from the next deployment.

    Returns the result of `deploy`. Raises UsageError for a package that is not requested, and what `deploy`
    raises.
    """
    with tx.changing("drop packages"):
        local = local_packages(tx, request.files)
        origin = tx.merge_deployment.origin
        if request.everything:
            origin = without_layers(origin, names_in_base(tx))
        origin = without_requests(origin, request.packages, idempotent=request.idempotent)
        origin = add_requests(origin, request.install, local, recommends=request.recommends)
        return deploy(tx, changed(tx, origin), request.deploy)


def upgrade(tx: Transaction, request: Upgrade) -> Result:
    """Pull the base from its remote and upgrade the packages to the archives' newest versions.

    Returns the result of `deploy`, and raises what `deploy` and the pull raise.
    """
    options = request.deploy
    with tx.changing("upgrade the system"):
        driver.require_none_else(tx, bypass=request.bypass_driver or request.check or options.dry_run)
        only_shown = request.check or (options.dry_run and options.live is None)
        looks = request.base and only_shown
        if looks and (awaiting := following.awaiting(tx, cache_only=options.cache_only)):
            if request.check:
                updates.note_image(tx, awaiting.details["image"]["digest"])
            return awaiting
        target = upgrade_target(tx, request)
        if not request.check:
            return deploy(tx, target, options)
        result = deploy(tx, target, replace(options, dry_run=True, live=None))
        if request.base and request.packages and not request.changes_packages:
            updates.note(tx, target, result.details["transaction"])
        return result


def upgrade_target(tx: Transaction, request: Upgrade) -> Target:
    """Pull the base from its remote, or fetch its image; return the target of an upgrade.

    Raises UsageError for a package to drop that is not requested, and what the pull or the fetch raises.
    """
    origin, newer = tx.merge_deployment.origin, None
    if request.base:
        _require_configured(origin)
    if request.base and origin.image:
        cache_only, allow_older = request.deploy.cache_only, request.allow_downgrade
        origin, newer = following.newest(tx, origin, cache_only=cache_only, allow_older=allow_older)
    elif request.base:
        newer = _newer_base(tx, origin, request)
    origin = with_packages(tx, origin, request, newer or _base(tx))
    return _upgraded(tx, origin, newer, packages=request.packages)


def run(tx: Transaction, request: Run) -> Result:
    """Run a program in the next deployment, as if it were a script of a package.

    It is recorded, and run again in trees that are built on another base.

    Returns the result of `deploy`. Raises UsageError when a command to forget was not run, and what `deploy`
    raises.
    """
    with tx.changing("run a program in the next deployment"):
        merge, base = tx.merge_deployment, _base(tx)
        if request.forget:
            origin = without_command(merge.origin, request.command_line)
            target = (
                rebuilt(tx, origin, base, keep=_versions_in_use(tx, origin))
                if origin.layered
                else Target(origin, base)
            )
        else:
            origin = add_command(merge.origin, request.command_line)
            target = Target(origin, merge.checksum, Recipe(base, commands=(request.command_line,)))
        return deploy(tx, target, request.deploy)


# --- targets


def with_packages(tx: Transaction, origin: Origin, request: BaseRequest, base: str) -> Origin:
    """Return an origin without the packages that a request drops, and with those that it layers.

    base: the commit that they are to be layered on; what it has needs no request, nor does what is requested.
    Raises UsageError for a package to drop that is not requested, and a file that is not a package.
    """
    local = local_packages(tx, request.files)
    origin = without_requests(origin, request.uninstall)
    names = _names(tx, base) - {*origin.removed}
    requests = new_requests(origin, request.install, names, idempotent=True)
    return add_requests(origin, requests, local, recommends=request.recommends)


def changed(tx: Transaction, origin: Origin) -> Target:
    """Return the target for other requests: packages are added to the present tree and removed from it.

    The scripts of the packages that stay do not run again, so that keys and accounts that they made stay.
    """
    merge, base = tx.merge_deployment, _base(tx)
    if origin == merge.origin:
        return Target(origin, merge.checksum)
    drop = _dropped(tx, origin)
    returns = tuple(sorted({*merge.origin.removed} - {*origin.removed} & names_in_base(tx)))
    if returns or (origin.layered and _made_of(merge.origin) != _made_of(origin)):
        # The scripts of what returns run again: what they had made of the machine went with it.
        if origin.layered:
            return rebuilt(tx, origin, base, keep=_versions_in_use(tx, origin), configure=returns)
        return Target(origin, base, Recipe(base, only_scripts=True, configure=returns))
    if not origin.layered:
        return without_layers_on(tx, origin, base)
    if drop and not _only_adds(tx, base, origin, drop):
        return rebuilt(tx, origin, base, keep=_versions_in_use(tx, origin))
    requests, local = added_requests(merge.origin, origin)
    remove = tuple(name for name in origin.removed if name not in merge.origin.removed)
    if not (requests or local or drop or remove):
        return Target(origin, merge.checksum)
    needed = names_in_base(tx) | origin.names
    return Target(
        origin, merge.checksum, Recipe(base, requests, local, drop=drop, remove=remove, needed=needed)
    )


def _made_of(origin: Origin) -> tuple[object, ...]:
    """Return what makes a tree besides its packages."""
    return origin.commands, origin.initramfs, origin.initramfs_etc


def _only_adds(tx: Transaction, base: str, origin: Origin, drop: Sequence[str]) -> bool:
    """Return whether the present tree has all that the base is to have, and nothing of that is dropped.

    Otherwise the base's own packages have to come back: one that was replaced, or a kernel that another one
    has superseded.
    """
    repo = tx.sysroot.repo
    present, shipped = (packages_of(repo, commit) for commit in (tx.merge_deployment.checksum, base))
    names = {package.name for package in shipped} - set(origin.removed)
    return names <= {package.name for package in present} and not names & set(drop)


def without_layers_on(tx: Transaction, origin: Origin, base: str) -> Target:
    """Return the target of a base itself.

    What packages that it does not have made of /etc is taken back by their own scripts.
    """
    present, names = tx.merge_deployment.checksum, _names(tx, base)
    drop = tuple(name for name in _dropped(tx, origin) if name not in names)
    if not drop or present == _base(tx):
        return Target(origin, base)
    return Target(origin, present, Recipe(base, drop=drop, needed=names, only_scripts=True))


def rebuilt(
    tx: Transaction,
    origin: Origin,
    base: str,
    *,
    keep: tuple[tuple[str, str], ...],
    configure: tuple[str, ...] = (),
) -> Target:
    """Return a target that is built from a base. keep, configure: see Recipe."""
    names = _names(tx, base)
    active = active_requests(origin, names)
    recipe = Recipe(
        base,
        active.requested,
        active.local,
        keep=keep,
        drop=_dropped(tx, origin),
        remove=origin.removed,
        needed=names | active.names,
        configure=configure,
        commands=origin.commands,
        initramfs=origin.changes_initramfs,
    )
    return Target(origin, base, recipe)


def _upgraded(tx: Transaction, origin: Origin, newer: str | None, *, packages: bool) -> Target:
    """Return the target of an upgrade, built on the current commit, or on the new base if there is one."""
    base = _base(tx)
    newer = newer or base
    drop = _dropped(tx, origin)
    if newer == base and not packages:
        return changed(tx, origin)
    if newer == base and (not drop or _only_adds(tx, base, origin, drop)):
        return _upgraded_here(tx, origin)
    if not (packages or origin.layered):
        return without_layers_on(tx, origin, newer)
    keep = held(tx) if packages else _versions_in_use(tx, origin)
    names = _names(tx, newer)
    active = active_requests(origin, names)
    recipe = Recipe(
        newer,
        active.requested,
        active.local,
        packages,
        yielding=_yielding(tx, origin) if packages else frozenset(),
        keep=keep,
        drop=drop,
        remove=origin.removed,
        needed=names | active.names,
        commands=origin.commands,
    )
    return Target(origin, newer, recipe)


def _upgraded_here(tx: Transaction, origin: Origin) -> Target:
    """Return the target of an upgrade of the present tree's packages, with the changes of requests."""
    merge, base = tx.merge_deployment, _base(tx)
    requests, local = added_requests(merge.origin, origin)
    recipe = Recipe(
        base,
        tuple(dict.fromkeys((*pinned_requests(origin), *requests))),
        local,
        upgrade=True,
        yielding=_yielding(tx, origin),
        drop=_dropped(tx, origin),
        needed=names_in_base(tx) | origin.names,
    )
    return Target(origin, merge.checksum, recipe)


def _dropped(tx: Transaction, origin: Origin) -> tuple[str, ...]:
    """Return the names of requested packages that an origin does not request."""
    return tuple(sorted(tx.merge_deployment.origin.names - origin.names))


def _require_configured(origin: Origin) -> None:
    """Raise Refused for a branch or an image that cannot be followed yet."""
    followed = origin.image or origin.refspec
    if followed and origin.unconfigured:
        raise Refused(
            f"{followed} cannot be followed: {origin.unconfigured}",
            hint="'apt-ostree rebase' follows another one",
        )


def _newer_base(tx: Transaction, origin: Origin, request: Upgrade) -> str | None:
    """Pull the base's ref from its remote; return its commit, or None for a base without a ref."""
    if not origin.refspec:
        return None
    repo = tx.sysroot.repo
    if origin.remote and not request.deploy.cache_only:
        with tx.task(f"Pulling {origin.refspec}"):
            allow_older = request.allow_downgrade
            remotes.pull(repo, origin.refspec, tx.report, allow_older=allow_older, newer_than=_base(tx))
    find = repo.resolve_or_none if origin.remote else repo.local_ref
    newest = find(origin.refspec)
    if newest is None or not repo.has_commit(newest):
        return None
    if newest != _base(tx):
        trust.require_signed(tx, Refspec.parse(origin.refspec), newest)
        if not request.allow_downgrade:
            trust.refuse_older(tx, newest, remotes.OLDER)
    return newest


# --- present state


def _base(tx: Transaction) -> str:
    """Return the commit that the present packages are layered on."""
    return tx.sysroot.repo.base_of(tx.merge_deployment.checksum)


def names_in_base(tx: Transaction) -> frozenset[str]:
    """Return the names of the base's packages."""
    return _names(tx, _base(tx))


def _shipped(tx: Transaction) -> frozenset[Package]:
    """Return the base's packages."""
    return packages_of(tx.sysroot.repo, _base(tx))


def _names(tx: Transaction, commit: str) -> frozenset[str]:
    return frozenset(package.name for package in packages_of(tx.sysroot.repo, commit))


def _versions_in_use(tx: Transaction, origin: Origin) -> tuple[tuple[str, str], ...]:
    """Return the packages that differ from the base's, whose versions a rebuild for an origin is to keep.

    Those of the base whose requests are dropped become its own again.
    """
    layered = layered_packages(tx.sysroot.repo, tx.merge_deployment.checksum)
    reset = (tx.merge_deployment.origin.names - origin.names) & names_in_base(tx)
    return tuple((p.qualified, p.version) for p in sorted(layered) if p.name not in reset)


def versions_of_layered(tx: Transaction) -> tuple[tuple[str, str], ...]:
    """Return names and versions of the packages that the base does not have."""
    base = names_in_base(tx)
    layered = layered_packages(tx.sysroot.repo, tx.merge_deployment.checksum)
    return tuple((p.qualified, p.version) for p in sorted(layered) if p.name not in base)


def held(tx: Transaction) -> tuple[tuple[str, str], ...]:
    """Return names and versions of the packages on hold; a tree on a new base has no holds at first."""
    merge = tx.merge_deployment
    admindir = tx.sysroot.directory(merge) / layout.DPKG_ADMINDIR
    held_back = {package for package in packages_of(tx.sysroot.repo, merge.checksum) if _is_held(tx, package)}
    on_hold = sorted({*dpkg_query.held(admindir), *held_back})
    return tuple((package.qualified, package.version) for package in on_hold)


def _is_held(tx: Transaction, package: Package) -> bool:
    return tx.policy.hold_of(package.name) is not None


def _yielding(tx: Transaction, origin: Origin) -> frozenset[str]:
    """Return the requests with a version whose packages are not on hold."""
    pinned = any("=" in request for request in origin.requested)
    return yielding_requests(origin, [name for name, _version in held(tx)]) if pinned else frozenset()


def local_packages(tx: Transaction, files: Sequence[OpenFile]) -> tuple[LocalPackage, ...]:
    """Copy .deb files to our directory; those that no deployment needs are removed at the end."""
    if not files:
        return ()
    from apt_ostree.system.apt import local

    tx.tidy_at_end()
    return tuple(map(local.keep, files))
