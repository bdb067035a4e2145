"""The first step of a compose: a root directory with the packages of a treefile.

Programs of this step see a time that depends on the archives alone (SOURCE_DATE_EPOCH), and not the time of
the commit. So what they make is the same at any time.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.core.compose import inputs, rootfs
from apt_ostree.core.compose.cache import Base, Cache, lists_digest
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused
from apt_ostree.model import layout, release
from apt_ostree.model.events import TaskBegin, TaskEnd
from apt_ostree.model.package import Package
from apt_ostree.model.result import Result
from apt_ostree.model.treefile import Treefile
from apt_ostree.system import dpkg_query, mmdebstrap, rootstate, sandbox, scratch, source_date
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.mmdebstrap import Bootstrap, Shelf

_LISTS_PREFIX = "apt-ostree-lists-"


@dataclass(frozen=True, slots=True)
class Plan:
    """Which packages are to be installed.

    digests: package -> the digests of its archives; those of all packages are only known with a cache.
    keys: digests of the archives' keyrings.
    sources: a description of each archive.
    source_date: the time that the packages' scripts see, in seconds since 1970.
    lists: a directory with the package lists.
    """

    bootstrap: Bootstrap
    digests: Mapping[Package, tuple[str, ...]]
    keys: tuple[str, ...]
    sources: tuple[str, ...]
    source_date: int
    lists: Path

    @property
    def packages(self) -> tuple[Package, ...]:
        """Return the packages, sorted."""
        return tuple(sorted(self.digests))


@contextmanager
def lists_of(bootstrap: Bootstrap, cache: Cache | None) -> Iterator[Path]:
    """Yield a directory with the present package lists."""
    # apt's user, which downloads, has to reach it.
    with scratch.directory(Path(tempfile.gettempdir()), _LISTS_PREFIX) as lists:
        lists.chmod(0o755)
        before = cache.restore_lists(bootstrap, lists) if cache else ""
        mmdebstrap.refresh(bootstrap, lists)
        if cache and lists_digest(lists) != before:
            cache.keep_lists(bootstrap, lists)
        yield lists


@contextmanager
def planned(
    tx: Transaction,
    tree: Treefile,
    locked: Mapping[str, str],
    cache: Cache | None,
    check: Callable[[Plan], object],
) -> Iterator[Plan]:
    """Yield what the archives make of a treefile.

    locked: the versions to take, by package.
    check: is called with it first.

    Raises Refused for a package that the treefile excludes.
    """
    keyrings = sorted({item.keyring for item in tree.archives if item.keyring})
    keys = tuple(hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in keyrings)
    begin = TaskBegin("Resolving packages")
    tx.report(begin)
    bootstrap = inputs.plan_bootstrap(tree, locked)
    with lists_of(bootstrap, cache) as lists:
        digests = cache.plan(bootstrap, lists, keys) if cache else None
        if digests is None:
            digests = _resolve(bootstrap, lists, with_digests=cache is not None)
            if cache:
                cache.keep_plan(bootstrap, lists, keys, digests)
        _refuse_excluded(tree, digests)
        releases = rootfs.read_releases(lists)
        sources = [source for source in map(release.parse_source, bootstrap.sources) if source]
        own_suite_first = sorted(sources, key=lambda source: source.suite != bootstrap.suite)
        plan = Plan(
            bootstrap,
            {package: tuple(found) for package, found in digests.items()},
            keys,
            release.describe(releases, sources),
            release.date_of(releases, own_suite_first),
            lists,
        )
        check(plan)
        tx.report(TaskEnd(begin.title))
        yield plan


def _resolve(bootstrap: Bootstrap, lists: Path, *, with_digests: bool) -> Mapping[Package, tuple[str, ...]]:
    packages = mmdebstrap.simulate(bootstrap, lists)
    if not with_digests:
        return dict.fromkeys(packages, ())
    from apt_ostree.system.apt import indexes  # not at the top: only a cache needs libapt

    return indexes.digests(lists, packages)


def _refuse_excluded(tree: Treefile, packages: Mapping[Package, object]) -> None:
    names = {package.name.partition(":")[0] for package in packages}
    if found := sorted(names & {*tree.exclude_packages}):
        raise Refused(
            f"the treefile excludes packages that others bring along: {', '.join(found)}",
            hint="drop the packages that need them, or their line from exclude-packages",
        )


def make_root(tx: Transaction, tree: Treefile, plan: Plan, work: Path, cache: Cache | None) -> Base | None:
    """Make work/root, a root directory with the packages; return what it is based on if there is a cache."""
    root = work / "root"
    title = f"Installing packages of {plan.bootstrap.suite}"
    tx.report(TaskBegin(title))
    key = cache.root_key(plan.bootstrap, plan.digests, plan.keys, plan.source_date) if cache else None
    digest = cache.restore_root(key, root) if cache and key else None
    kept = digest is not None
    if digest is None:
        _install(plan, work, cache)
        if cache and key:
            digest = cache.keep_root(key, root)
    failpoint("compose.root-made")
    base = Base(digest, rootstate.take(root)) if digest else None
    rootfs.copy_keyrings(root, [Path(item.keyring) for item in tree.archives if item.keyring])
    rootfs.drop_host_files(root)
    rootfs.move_state(root)
    count = len(dpkg_query.installed(root / layout.DPKG_ADMINDIR))
    tx.report(TaskEnd(title, f"{count} packages{', from the cache' if kept else ''}"))
    return base


def _install(plan: Plan, work: Path, cache: Cache | None) -> None:
    root = work / "root"
    shelf = Shelf(work / "archives", work / "downloaded") if cache else None
    if shelf and cache:
        for directory in (shelf.given, shelf.taken):
            directory.mkdir()
        cache.fill_shelf(shelf, plan.digests)
    with source_date.set_to(plan.source_date):
        mmdebstrap.make_root(plan.bootstrap, root, plan.lists, log=sandbox.output_log(root), shelf=shelf)
    if shelf and cache:
        cache.keep_archives(shelf, plan.digests)


def listed(plan: Plan) -> Result:
    """Return the result of a dry run: `packages`."""
    rows = [[package.name, package.version, package.architecture] for package in plan.packages]
    return Result(changed=False, details={"packages": rows})
