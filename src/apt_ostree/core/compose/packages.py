"""The first step of a compose: a root directory with the packages of a treefile.

Programs of this step see a time that depends on the archives alone (SOURCE_DATE_EPOCH), and not the time of
the commit. So what they make is the same at any time.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from apt_ostree.system import aptget, dpkg_query, mmdebstrap, rootstate, sandbox, scratch, source_date
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
    offline: archives are taken from the cache alone, and there is no network.
    """

    bootstrap: Bootstrap
    digests: Mapping[Package, tuple[str, ...]]
    keys: tuple[str, ...]
    sources: tuple[str, ...]
    source_date: int
    lists: Path
    offline: bool = False

    @property
    def packages(self) -> tuple[Package, ...]:
        """Return the packages, sorted."""
        return tuple(sorted(self.digests))


@contextmanager
def lists_of(bootstrap: Bootstrap, cache: Cache | None, *, offline: bool = False) -> Iterator[Path]:
    """Yield a directory with the present package lists; if offline, those that the cache has.

    Raises Refused if it has none.
    """
    # apt's user, which downloads, has to reach it.
    with scratch.directory(Path(tempfile.gettempdir()), _LISTS_PREFIX) as lists:
        lists.chmod(0o755)
        before = cache.restore_lists(bootstrap, lists) if cache else ""
        if offline:
            _refuse_absent_lists(bootstrap, lists)
        else:
            mmdebstrap.refresh(bootstrap, lists)
            if cache and lists_digest(lists) != before:
                cache.keep_lists(bootstrap, lists)
        yield lists


def _refuse_absent_lists(bootstrap: Bootstrap, lists: Path) -> None:
    if not any(lists.iterdir()):
        raise Refused(
            "the package lists of these archives are not in the cache",
            details=bootstrap.sources,
            hint="compose without --cache-only first, or with --download-only; "
            "what other versions of apt-ostree, apt and mmdebstrap have put there is not used",
        )


@contextmanager
def planned(
    tx: Transaction,
    tree: Treefile,
    locked: Mapping[str, str],
    cache: Cache | None,
    *,
    check: Callable[[Plan], object],
    offline: bool,
) -> Iterator[Plan]:
    """Yield what the archives make of a treefile.

    locked: the versions to take, by package.
    check: is called with it first.
    offline: only what is in the cache is used.

    Raises Refused for a package that the treefile excludes, and for lists that are not in the cache.
    """
    keyrings = sorted({item.keyring for item in tree.archives if item.keyring})
    keys = tuple(hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in keyrings)
    begin = TaskBegin("Resolving packages")
    tx.report(begin)
    bootstrap = inputs.plan_bootstrap(tree, locked)
    with lists_of(bootstrap, cache, offline=offline) as lists:
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
            offline,
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
    """Make work/root, a root directory with the packages; return what it is based on if there is a cache.

    Raises Refused for archives that are not in the cache, if only these are to be used.
    """
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
        absent = cache.fill_shelf(shelf, plan.digests)
        if absent and plan.offline:
            raise Refused(
                f"{len(absent)} packages are not in the cache",
                details=[_why_absent(package, plan.digests[package]) for package in sorted(absent)],
                hint="compose without --cache-only, or download them with --download-only",
            )
    with source_date.set_to(plan.source_date):
        log = sandbox.output_log(root)
        mmdebstrap.make_root(plan.bootstrap, root, plan.lists, log=log, shelf=shelf, offline=plan.offline)
    if shelf and cache:
        cache.keep_archives(shelf.downloaded, plan.digests)


def _why_absent(package: Package, digests: Sequence[str]) -> str:
    if len(digests) == 1:
        return package.label
    reason = "different archives of this version" if digests else "no digest of it"
    return f"{package.label}: the lists have {reason}, so that none is kept"


def download(tx: Transaction, plan: Plan, cache: Cache | None) -> None:
    """Download the archives that the cache does not have, and keep them; ExternalFailure if that fails."""
    absent = sorted(cache.absent(plan.digests)) if cache else []
    if not (cache and absent):
        tx.message("All packages are in the cache")
        return
    with tx.task(f"Downloading {len(absent)} packages"), cache.work_directory() as work:
        world = aptget.make_world(
            work,
            plan.lists,
            mmdebstrap.copied(plan.bootstrap.sources),
            status=b"",
            base=(),
            recommends=False,
            architecture=mmdebstrap.native_architecture(),
        )
        world.fetch_alone([f"{package.name}={package.version}" for package in absent])
        failpoint("compose.packages-downloaded")
        cache.keep_archives(sorted(world.archives.glob("*.deb")), plan.digests)
    if left := cache.absent({package: plan.digests[package] for package in absent}):
        lines = [_why_absent(package, plan.digests[package]) for package in sorted(left)]
        tx.warning(f"{len(left)} packages are not kept: {'; '.join(lines)}")
    cache.prune()


def listed(plan: Plan, *, changed: bool) -> Result:
    """Return the result of a compose that makes nothing: `packages`. changed: it would make something."""
    rows = [[package.name, package.version, package.architecture] for package in plan.packages]
    return Result(changed, details={"packages": rows})
