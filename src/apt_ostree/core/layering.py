"""Builds a commit with other packages from an existing one: the way of every package verb.

Nothing outside the build's scratch directory, the package cache and the repository's objects is touched;
no ref or deployment points at the result until the caller deploys it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.core import finish, trees
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import layout, seeding
from apt_ostree.model.events import Message, PlanShown, Report, task
from apt_ostree.model.origin import LocalPackage
from apt_ostree.model.package import Package
from apt_ostree.model.transaction import Transaction
from apt_ostree.system import buildroot, dpkg_query, sandbox
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import overlay_commit
from apt_ostree.system.ostree.repo import package_list, text
from apt_ostree.system.ostree.sysroot import Sysroot

#: Room that a build needs besides the packages' own (bytes).
_HEADROOM = 64_000_000


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to build.

    base: the commit that the packages are layered on; start: the commit the work starts from, which is the
    base or a commit layered on it already. install, upgrade, at_least: see system.apt.resolver.Wanted.
    """

    base: str
    start: str
    install: tuple[str, ...] = ()
    local: tuple[LocalPackage, ...] = ()
    upgrade: bool = False
    at_least: tuple[tuple[str, str], ...] = ()


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
        trees.usr_of(sysroot, recipe.start) as lowers,
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


def _install(
    report: Report, root: Path, scratch: Path, recipe: Recipe, options: Options
) -> Transaction | tuple[Transaction, frozenset[Package]]:
    """Carry the recipe out in an assembled root; return the transaction alone when nothing was installed."""
    from apt_ostree.system.apt import acquire, config, install, local
    from apt_ostree.system.apt.resolver import Resolver, Wanted

    config.use_build_root(root, scratch)
    if not options.cache_only and not acquire.lists_are_current():
        with task(report, "Refreshing package lists"):
            acquire.refresh_lists(report)
    exact = local.offer(report, recipe.local, scratch)
    with task(report, "Resolving packages"):
        resolver = Resolver()
        wanted = Wanted((*recipe.install, *exact), recipe.upgrade, dict(recipe.at_least))
        transaction = resolver.resolve(wanted)
        resolver.refuse_untrusted(transaction)
    if not transaction:
        return transaction
    buildroot.require_space(scratch, transaction.disk_bytes + _HEADROOM, "install the packages")
    report(PlanShown("transaction", transaction.to_json(), confirm=options.confirm and not options.dry_run))
    if options.dry_run:
        return transaction
    if transaction.download_bytes and options.cache_only:
        report(Message("some archives are not in the cache", "warning"))
    with task(report, "Downloading packages"):
        archives = acquire.download(resolver, report)
    if options.download_only:
        return transaction
    with task(report, "Installing packages"), _scripts_prepared(root) as var_before:
        failpoint("layering.before-install")
        install.install(report, archives, root=root, scratch=scratch, script_timeout=options.script_timeout)
        failpoint("layering.after-install")
        _drop_stale_initramfs(scratch / "upper", root)
        finish.finish_tree(
            root,
            var_before=var_before,
            report=report,
            run_in_root=lambda argv, what: sandbox.run(root, argv, what=what),
        )
        _refuse_top_level(root)
        finish.settle_bytecode(scratch / "upper", root / "usr")
        packages = dpkg_query.installed(root / layout.DPKG_ADMINDIR)
    return transaction, frozenset(packages)


@contextlib.contextmanager
def _scripts_prepared(root: Path) -> Iterator[frozenset[str]]:
    """Give maintainer scripts a /var as after boot, the host's ids, and no services to start.

    Yields the paths of /var that the tree already describes. Afterwards the account files hold only the
    tree's own names.
    """
    sandbox.run(root, ["systemd-tmpfiles", "--create", "--prefix=/var"], what="prepare /var for the packages")
    var_before = frozenset(str(path.relative_to(root)) for path in (root / "var").rglob("*"))
    trees_own = {name: _read(root / "etc" / name) for name in seeding.FILES}
    seeded = {name: seeding.seed(name, own, _read(Path("/etc") / name)) for name, own in trees_own.items()}
    policy = root / "usr/sbin/policy-rc.d"
    for name, content in seeded.items():
        (root / "etc" / name).write_text(content)
    policy.write_text("#!/bin/sh\nexit 101\n")  # no service starts in a build (policy-rc.d(8))
    policy.chmod(0o755)
    yield var_before
    policy.unlink()
    for name, own in trees_own.items():
        target = root / "etc" / name
        target.write_text(seeding.harvest(own, seeded[name], _read(target)))


def _drop_stale_initramfs(upper: Path, root: Path) -> None:
    """Have the initramfs of a kernel made again whose image or modules were replaced under the same name."""
    for modules in (upper / "lib/modules").glob("*"):
        if (modules / "vmlinuz").is_file() or (modules / "kernel").is_dir():
            (root / layout.KERNEL_MODULES / modules.name / finish.INITRAMFS).unlink(missing_ok=True)


def _commit(
    sysroot: Sysroot, recipe: Recipe, scratch: Path, transaction: Transaction, packages: frozenset[Package]
) -> str:
    base_metadata = sysroot.repo.metadata(recipe.base)
    metadata = {
        layout.META_BASE: text(recipe.base),
        layout.META_PACKAGES: package_list(packages),
    }
    if version := base_metadata.get(layout.META_VERSION):
        metadata[layout.META_VERSION] = text(version)
    failpoint("layering.before-commit")
    commit = overlay_commit.commit_upper(
        sysroot.repo,
        recipe.start,
        scratch / "upper",
        subject=_subject(transaction),
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


def _refuse_top_level(root: Path) -> None:
    extra = buildroot.unexpected_top_level(root)
    if extra:
        raise ExternalFailure(
            "a package ships files beside /usr, /etc and /var, which a tree cannot hold",
            details=[f"/{name}" for name in extra],
        )


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def layered_versions(base: frozenset[Package], current: frozenset[Package]) -> Sequence[tuple[str, str]]:
    """Return the base's packages that the current commit holds in another version: (name, version)."""
    known = {(p.name, p.architecture): p.version for p in base}
    return [
        (p.name, p.version)
        for p in sorted(current)
        if known.get((p.name, p.architecture), p.version) != p.version
    ]
