"""The steps of a compose as verbs of their own: `compose install`, `postprocess`, `commit` and `rootfs`.

A root filesystem is made or changed in a directory beside its place, and put there by one rename: after a
failure or a crash there is what was there before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from apt_ostree.core.compose import account_ids, committing, inputs, packages, places, publish, rootfs
from apt_ostree.core.compose.cache import Base, Cache, open_cache
from apt_ostree.core.compose.committing import Origin
from apt_ostree.core.compose.packages import Plan
from apt_ostree.core.compose.postprocess import Work, postprocess
from apt_ostree.core.compose.tree import planned, working
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import account_ids as ids_text
from apt_ostree.model import accounts, layout, rootfs_record
from apt_ostree.model import treefile as treefiles
from apt_ostree.model.requests.compose import (
    ComposeCommit,
    ComposeInstall,
    ComposePostprocess,
    ComposeRootfs,
)
from apt_ostree.model.result import Result
from apt_ostree.model.rootfs_record import Record, Stage
from apt_ostree.model.treefile import Treefile
from apt_ostree.system import copies, dpkg_query, exchange, files, rootstate, signals, source_date
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import commit as commits

_ROOTFS = "rootfs"


def install(tx: Transaction, request: ComposeInstall) -> Result:
    """Install the packages of a treefile in DESTDIR/rootfs.

    Returns `rootfs` and the number of `packages`, or `treefile` (print_only), or the list of `packages`
    (dry_run, download_only). Raises UsageError for an error in the treefile or the request, Refused without
    root's rights or for a directory that is not empty.
    """
    tree = inputs.read_treefile(request.treefile)
    if request.print_only:
        return Result(changed=False, details={"treefile": treefiles.to_json(tree)})
    committing.require_root()
    ids = _read_ids(request.ids) if request.ids else _kept_ids(tree, request.repo)
    needed = request.cache_only or request.download_only
    cache = _cache(request, Path(request.destdir), needed=needed)
    with planned(tx, tree, request, cache) as plan:
        if request.download_only:
            packages.download(tx, plan, cache)
        if request.dry_run or request.download_only:
            return packages.listed(plan, changed=True)
        with (
            places.new_directory(request.destdir) as dest,
            working(tx, dest, f"compose install {request.treefile}") as work,
        ):
            base = packages.make_root(tx, tree, plan, work, cache)
            root = work / "root"
            record = _installed(tree, plan, ids)
            if request.postprocess:
                record = _finish(tx, root, tree, record, base=base, cache=cache)
            _write(root, record)
            failpoint("compose.rootfs-installed")
            signals.ignore()  # what follows is done at once, and cannot be undone
            root.rename(dest / _ROOTFS)
            failpoint("compose.rootfs-placed")
    if cache:
        cache.prune()
    return _made(dest / _ROOTFS)


def postprocess_rootfs(tx: Transaction, request: ComposePostprocess) -> Result:
    """Give a root filesystem the form of a tree, after the settings of a treefile.

    Returns `rootfs` and the number of `packages`. Raises Refused without root's rights, for a root filesystem
    that has the form already, and for a treefile with other packages than were installed.
    """
    tree = inputs.read_treefile(request.treefile) if request.treefile else Treefile()
    committing.require_root()
    root = places.existing_root(request.rootfs)
    record = _read(root)
    if (record and record.stage is Stage.POSTPROCESSED) or (root / "usr/etc").exists():
        raise Refused(
            f"{request.rootfs} has the form of a tree already",
            hint="commit it with 'apt-ostree compose commit', or install it anew",
        )
    if not places.has_packages(root):
        raise Refused(f"{request.rootfs} has no packages of Debian", hint="make it with 'compose install'")
    _refuse_other_packages(request, tree, record)
    record = _known(tx, root, record, _kept_ids(tree, None))
    with working(tx, root.parent, f"compose postprocess {request.rootfs}") as work:
        copy = work / "root"
        copies.copy_tree(root, copy)
        files.remove_all(copy / rootfs_record.NAME)
        if not record.installed_from:  # by another program than ours
            rootfs.drop_host_files(copy)
            rootfs.move_state(copy)
        _write(copy, _finish(tx, copy, tree, record, is_applied=request.treefile is not None))
        failpoint("compose.rootfs-postprocessed")
        signals.ignore()  # what follows is done at once, and cannot be undone
        exchange.exchange(copy, root)
        failpoint("compose.rootfs-exchanged")
    return _made(root)


def commit(tx: Transaction, request: ComposeCommit) -> Result:
    """Commit a root filesystem in the form of a tree, which stays as it is.

    Returns what `compose tree` returns. Raises Refused for a root filesystem that has not this form, that was
    postprocessed with another treefile, or that has files which nobody in it owns.
    """
    tree = inputs.treefile_of_commit(request.treefile, request)
    job = committing.job_of(tree, request)
    root = places.existing_root(request.rootfs)
    record = _read(root)
    _refuse_unfinished(request, root, record)
    if record and record.applied not in ("", inputs.applied_digest(tree)):
        raise Refused(
            f"{request.treefile} is not what {request.rootfs} was postprocessed with",
            hint="install and postprocess it anew with this treefile",
        )
    committing.refuse_special_files(root)
    _refuse_unknown_owners(root)
    head = commits.head(job.repo, job.ref)
    _refuse_other_ids(root, account_ids.kept(tree, job.repo, head))
    job = job.at(source_date.settle(record.timestamp if record else None))
    result = committing.commit_tree(tx, job, root, _origin(tx, tree, root, record), consume=False)
    return publish.with_static_delta(tx, job.repo, head, result) if request.static_delta else result


def rootfs_for_others(tx: Transaction, request: ComposeRootfs) -> Result:
    """Make a root filesystem in the form of a tree at a path, for other tools.

    Returns `rootfs` and the number of `packages`. Raises what `install` raises.
    """
    tree = inputs.read_treefile(request.treefile)
    committing.require_root()
    dest = places.new_root(request.dest)
    ids = _kept_ids(tree, request.repo)
    cache = _cache(request, dest, needed=request.cache_only)
    with (
        planned(tx, tree, request, cache) as plan,
        working(tx, dest.parent, f"compose rootfs {request.treefile}") as work,
    ):
        base = packages.make_root(tx, tree, plan, work, cache)
        _finish(tx, work / "root", tree, _installed(tree, plan, ids), base=base, cache=cache)
        committing.refuse_special_files(work / "root")
        failpoint("compose.rootfs-for-others")
        signals.ignore()  # what follows is done at once, and cannot be undone
        (work / "root").rename(dest)
        failpoint("compose.rootfs-for-others-placed")
    if cache:
        cache.prune()
    return _made(dest)


# --- the steps


def _cache(request: ComposeInstall | ComposeRootfs, dest: Path, *, needed: bool) -> Cache | None:
    others = {"the root filesystem": dest}
    others |= {"the repository": Path(request.repo)} if request.repo else {}
    return open_cache(request.cachedir, apart_from=others, needed=needed)


def _kept_ids(tree: Treefile, repo: str | None) -> ids_text.Ids:
    """Return the ids that accounts have to keep; without a repository, those of the treefile's file."""
    path = Path(repo or "").absolute()
    return account_ids.kept(tree, path, commits.head(path, committing.ref_of(tree)) if repo else None)


def _read_ids(path: str) -> ids_text.Ids:
    try:
        return ids_text.parse_record(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"the ids of accounts in {path} cannot be read: {error}") from error


def _installed(tree: Treefile, plan: Plan, ids: ids_text.Ids) -> Record:
    return Record(
        stage=Stage.INSTALLED,
        timestamp=source_date.settle(),
        source_date=plan.source_date,
        sources=plan.sources,
        packages=plan.packages,
        installed_from=inputs.installed_digest(tree),
        ids=ids_text.format_ids(ids),
    )


def _known(tx: Transaction, root: Path, record: Record | None, own_ids: ids_text.Ids) -> Record:
    """Return the record of a root filesystem; if nobody has written one, what can be said of it."""
    if record is None:
        now = source_date.settle()
        ids = ids_text.format_ids(own_ids)
        return Record(stage=Stage.INSTALLED, timestamp=now, source_date=now, ids=ids, is_pure=False)
    settled = source_date.settle(record.timestamp)
    return replace(record, timestamp=settled, is_pure=_is_pure(tx, root, record))


def _is_pure(tx: Transaction, root: Path, record: Record) -> bool:
    """Return whether a root filesystem is as the step before has left it."""
    if record.is_pure and rootstate.fingerprint(root, (rootfs_record.NAME,)) != record.content:
        tx.message(f"{root} was changed by others, and 'compose tree' would make it differently")
        return False
    return record.is_pure


def _finish(
    tx: Transaction,
    root: Path,
    tree: Treefile,
    record: Record,
    *,
    base: Base | None = None,
    cache: Cache | None = None,
    is_applied: bool = True,
) -> Record:
    """Postprocess a root directory; return its new record."""
    ids = ids_text.parse_record(record.ids)
    postprocess(tx, root, tree, Work(record.timestamp, record.source_date, ids, base, cache))
    applied = inputs.applied_digest(tree) if is_applied else ""
    return replace(record, stage=Stage.POSTPROCESSED, applied=applied)


def _origin(tx: Transaction, tree: Treefile, root: Path, record: Record | None) -> Origin:
    if record and record.applied and _is_pure(tx, root, record):
        return Origin(record.sources, inputs.inputs_digest(tree, record.packages))
    return Origin(record.sources if record else (), None)


def _write(root: Path, record: Record) -> None:
    content = rootstate.fingerprint(root, (rootfs_record.NAME,))
    files.replace_text(
        root / rootfs_record.NAME, rootfs_record.format_record(replace(record, content=content))
    )


def _read(root: Path) -> Record | None:
    text = places.read_text(root, rootfs_record.NAME)
    return rootfs_record.parse(text, name=str(root / rootfs_record.NAME)) if text else None


def _made(root: Path) -> Result:
    count = len(dpkg_query.installed(root / layout.DPKG_ADMINDIR))
    return Result(changed=True, details={"rootfs": str(root), "packages": count})


# --- what is refused


def _refuse_other_packages(request: ComposePostprocess, tree: Treefile, record: Record | None) -> None:
    if not (request.treefile and record and record.installed_from):
        return
    if record.installed_from != inputs.installed_digest(tree):
        raise Refused(
            f"{request.treefile} asks for other packages than {request.rootfs} was installed with",
            hint="install it anew with this treefile",
        )


def _refuse_unfinished(request: ComposeCommit, root: Path, record: Record | None) -> None:
    if record and record.stage is Stage.INSTALLED:
        raise Refused(
            f"{request.rootfs} has not been postprocessed",
            hint=f"run 'apt-ostree compose postprocess {request.rootfs} {request.treefile}'",
        )
    if problems := places.unlike_a_tree(root):
        raise Refused(
            f"{request.rootfs} has not the form of a tree", details=problems, hint="see 'compose postprocess'"
        )


def _refuse_unknown_owners(root: Path) -> None:
    users = accounts.parse_passwd(files.text_of(root / "usr/etc/passwd"))
    groups = accounts.parse_group(files.text_of(root / "usr/etc/group"))
    uids, gids = {0, *(user.uid for user in users)}, {0, *(group.gid for group in groups)}
    if found := rootstate.owned_by_others(root, uids, gids):
        raise Refused(
            f"{len(found)} files belong to accounts that the tree does not have",
            details=found,
            hint="give them to root, or to an account of the tree (chown(1))",
        )


def _refuse_other_ids(root: Path, kept: ids_text.Ids) -> None:
    own = ids_text.parse_record(files.text_of(root / layout.ACCOUNT_IDS))
    moved = [*_moved("user", own.users, kept.users), *_moved("group", own.groups, kept.groups)]
    if moved:
        raise Refused(
            "accounts would get other ids than in the ref's last commit; machines have files of the old ids",
            details=moved,
            hint="name the repository with --repo when you install it",
        )


def _moved(kind: str, own: Mapping[str, int], kept: Mapping[str, int]) -> list[str]:
    return [
        f"{kind} {name}: {number} before, {own.get(name, 'none')} now"
        for name, number in sorted(kept.items())
        if own.get(name) != number
    ]
