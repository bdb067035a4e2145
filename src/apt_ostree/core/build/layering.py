"""Builds a commit with other packages from an existing one: the way of every package verb.

Nothing outside the build's scratch directory, the package cache and the repository's objects is touched;
no ref or deployment points at the result until the caller deploys it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from apt_ostree.core.build import inside, lowerdirs
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import layout
from apt_ostree.model.events import Message, PlanShown, Report, task
from apt_ostree.model.origin import LocalPackage
from apt_ostree.model.package import Package
from apt_ostree.model.transaction import Transaction
from apt_ostree.system import buildroot, dpkg_query, outputlog, sandbox, signals
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import overlay_commit
from apt_ostree.system.ostree.repo import package_list, text
from apt_ostree.system.ostree.sysroot import Sysroot

if TYPE_CHECKING:
    from apt_ostree.system.apt.resolver import Resolver, Wanted

#: Room that a build needs besides the packages' own (bytes).
_HEADROOM = 64_000_000
#: Seconds that a step of finishing the tree may take; making an initramfs takes long on slow machines.
_LONGEST_STEP = 1800.0
_DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to build.

    base: the commit that the packages are layered on; start: the commit the work starts from, which is the
    base or a commit layered on it already. install, upgrade, keep: see system.apt.resolver.Wanted.
    choose: decides instead of these what is wanted, once the archives are known; of `local`, it takes some.
    lists_age: seconds after which package lists are too old. title, metadata: further description of the
    commit.
    """

    base: str
    start: str
    install: tuple[str, ...] = ()
    local: tuple[LocalPackage, ...] = ()
    upgrade: bool = False
    keep: tuple[tuple[str, str], ...] = ()
    choose: Callable[[Resolver], Wanted] | None = None
    lists_age: float = _DAY
    title: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Options:
    """How far to go, and under which limits."""

    dry_run: bool = False
    download_only: bool = False
    cache_only: bool = False
    confirm: bool = False
    script_timeout: float = 600.0


@dataclass(frozen=True, slots=True)
class Built:
    """What came of it; commit is None when nothing was built (dry run, download only, nothing to do)."""

    transaction: Transaction
    commit: str | None = None


def build(report: Report, sysroot: Sysroot, recipe: Recipe, options: Options) -> Built:
    """Resolve, download, install and commit; the transaction is shown before it is carried out."""
    with (
        lowerdirs.usr_of(sysroot, recipe.start) as lowers,
        buildroot.scratch_directory(sysroot.state_dir / "work") as scratch,
    ):
        with buildroot.assembled(scratch, lowers) as root:
            done = _install(report, root, scratch, recipe, options)
        if done is None or isinstance(done, Transaction):
            return Built(done or Transaction())
        transaction, packages = done
        with task(report, "Writing the commit"):
            commit = _commit(sysroot, recipe, scratch, transaction, packages)
    return Built(transaction, commit)


def discard(report: Report, sysroot: Sysroot) -> None:
    """Remove commits that were built and that nothing points at."""
    try:
        sysroot.prune()
    except ExternalFailure as error:  # they go with the next clean-up, and must not hide why we are here
        report(Message(error.message, "warning"))


def _install(
    report: Report, root: Path, scratch: Path, recipe: Recipe, options: Options
) -> Transaction | tuple[Transaction, frozenset[Package]]:
    """Carry the recipe out in an assembled root; return the transaction alone when nothing was installed."""
    from apt_ostree.system.apt import acquire, config, install, local
    from apt_ostree.system.apt.resolver import Resolver, Wanted

    config.use_build_root(root, scratch, inside.extended_states(root))
    if not options.cache_only and (recipe.upgrade or not acquire.lists_are_current(recipe.lists_age)):
        with task(report, "Refreshing package lists"):
            acquire.refresh_lists(report)
    exact = local.offer(report, recipe.local, scratch)
    with task(report, "Resolving packages"):
        resolver = Resolver(local_archive=config.local_directory(scratch))
        if recipe.choose:
            wanted = recipe.choose(resolver)
        else:
            wanted = Wanted((*recipe.install, *exact), recipe.upgrade, dict(recipe.keep))
        transaction = resolver.resolve(wanted)
        resolver.refuse_untrusted(transaction)
    if not transaction:
        return transaction
    buildroot.require_space(scratch.parent, transaction.disk_bytes + _HEADROOM, "install the packages")
    report(PlanShown("transaction", transaction.to_json(), confirm=options.confirm and not options.dry_run))
    if options.dry_run:
        return transaction
    with task(report, "Downloading packages"):
        archives = acquire.download(resolver, report, cache_only=options.cache_only)
    if options.download_only:
        return transaction
    with (
        task(report, "Installing packages"),
        outputlog.kept(report, sandbox.output_log(root), "packages", transaction.summary()),
    ):
        prepared = inside.prepare(root)
        failpoint("layering.before-install")
        install.install(report, archives, root=root, scratch=scratch, script_timeout=options.script_timeout)
        failpoint("layering.after-install")
        inside.settle(
            report,
            root,
            prepared,
            inside.look_at(scratch / "upper"),
            states=config.extended_states(scratch).read_text(),
            timeout=max(options.script_timeout, _LONGEST_STEP),
        )
        packages = dpkg_query.installed(root / layout.DPKG_ADMINDIR)
    return transaction, frozenset(packages)


def _commit(
    sysroot: Sysroot, recipe: Recipe, scratch: Path, transaction: Transaction, packages: frozenset[Package]
) -> str:
    base_metadata = sysroot.repo.metadata(recipe.base)
    metadata = {
        layout.META_BASE: text(recipe.base),
        layout.META_PACKAGES: package_list(packages),
        **{key: text(value) for key, value in recipe.metadata.items()},
    }
    if version := base_metadata.get(layout.META_VERSION):
        metadata[layout.META_VERSION] = text(version)
    failpoint("layering.before-commit")
    # A cancel waits for the end of it: raised in libostree's binding, it would look like an error of ours.
    with signals.held(lambda: None):
        commit = overlay_commit.commit_upper(
            sysroot.repo,
            recipe.start,
            scratch / "upper",
            subject=": ".join(filter(None, (recipe.title, _subject(transaction)))),
            metadata=metadata,
        )
    failpoint("layering.after-commit")
    return commit


def _subject(transaction: Transaction) -> str:
    counts = (
        ("installed", transaction.install),
        ("upgraded", transaction.upgrade),
        ("downgraded", transaction.downgrade),
        ("removed", transaction.remove),
    )
    return ", ".join(f"{len(steps)} packages {word}" for word, steps in counts if steps)
