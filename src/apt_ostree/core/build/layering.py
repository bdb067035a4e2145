"""Builds a commit with other packages from an existing commit, for every package verb.

`opened` yields a session: a build root with the packages of a commit, and libapt's resolver on it. `install`
resolves, downloads, installs and commits. It writes only to the session's scratch directory, the package
cache and the repository's objects. No ref or deployment points to the commit until it is deployed. The
packages of a composed tree are installed by core.compose.
"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from apt_ostree.core import policing, trust
from apt_ostree.core.build import (
    earlier,
    etc,
    initramfs_etc,
    inside,
    kept,
    lowerdirs,
    removal,
    replacing,
)
from apt_ostree.core.build.etc import ETC, EtcView
from apt_ostree.core.build.work import OwnInitramfs, Work
from apt_ostree.core.state.inventory import packages_of
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import etc_delta, layout
from apt_ostree.model.etc_delta import Delta
from apt_ostree.model.events import PlanShown
from apt_ostree.model.filestate import FileState
from apt_ostree.model.origin import Command, LocalPackage
from apt_ostree.model.package import Package
from apt_ostree.model.package_plan import PackagePlan
from apt_ostree.system import buildroot, dpkg_query, local_debs, outputlog, sandbox, signals
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import diff, upper_commit
from apt_ostree.system.ostree.repo import package_list, text

if TYPE_CHECKING:
    from apt_ostree.system.apt.acquire import Archives
    from apt_ostree.system.apt.resolver import PackageGoal, Resolver

#: Disk space in bytes that a build needs besides that of the packages, and what a mere removal needs.
_HEADROOM = 64_000_000
_REMOVAL_HEADROOM = 16_000_000
#: Seconds that a program may take to finish the tree; making an initramfs takes long on slow machines.
_LONGEST_STEP = 1800.0
_DAY = 24 * 3600.0
#: The name of the upper directory of /etc in the scratch directory.
_ETC_UPPER = "etc-upper"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where packages come from.

    local: packages that were given as files.
    requested: requests whose packages come from the present tree if no archive offers them.
    in_use: packages that come from the present tree if the archives that offer them cannot be reached.
    names: those of all requested packages.
    upgrade: whether to download the package lists even if they are current, and to leave out what only
        archives offer that cannot be reached.
    lists_age: seconds after which the package lists are too old.
    cache_only: whether to use only the package lists and archives in the cache.
    archives: whether packages may come from archives; else no package lists are read, which take long.
    architectures: architectures that the tree's dpkg gets in addition.
    recommends: whether recommended packages are added, see model.origin.adds_recommended.
    """

    local: tuple[LocalPackage, ...] = ()
    requested: tuple[str, ...] = ()
    in_use: frozenset[Package] = frozenset()
    names: frozenset[str] = frozenset()
    upgrade: bool = False
    lists_age: float = _DAY
    cache_only: bool = False
    archives: bool = True
    architectures: tuple[str, ...] = ()
    recommends: bool | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """How the commit is described.

    base: the commit that the packages are layered on.
    title: the first part of the subject.
    metadata: further keys of the commit's metadata.
    deployed: the commit to deploy instead of a new one: only scripts are run, for what they do to /etc.
    """

    base: str
    title: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    deployed: str = ""


@dataclass(frozen=True, slots=True)
class Built:
    """The outcome of `install`.

    plan: the plan of the packages.
    commit: the new commit; None if nothing was built (dry run, download only, nothing to do).
    delta: what scripts did to /etc for its deployment.
    """

    plan: PackagePlan
    commit: str | None = None
    delta: Delta = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Session:
    """A build root with the packages of a commit.

    tx: the transaction.
    start: the commit.
    root: the build root.
    scratch: the scratch directory, in which `upper` contains the changes of the root.
    resolver: the resolver of packages.
    exact: requests for the local packages.
    kept: names and versions of packages that are kept from the present tree, as no archive offers them.
    protected: see system.apt.resolver.PackageGoal.
    cache_only: whether to use only the archives in the cache.
    script_timeout: seconds that a maintainer script may take.
    present: the packages that the system has before the change.
    etc: what scripts did to /etc before.
    _mounted: unmounts the root.
    """

    tx: Transaction
    start: str
    root: Path
    scratch: Path
    resolver: Resolver
    exact: tuple[str, ...]
    kept: Mapping[str, str]
    protected: tuple[str, ...]
    cache_only: bool
    script_timeout: float
    present: frozenset[Package]
    etc: Delta
    _mounted: ExitStack


@dataclass(frozen=True, slots=True)
class _Tree:
    """The finished build root.

    packages: its packages.
    beside: its empty directories beside /usr -> mode.
    given: the /etc that the scripts saw.
    """

    packages: frozenset[Package]
    beside: Mapping[str, int]
    given: EtcView


@contextmanager
def opened(
    tx: Transaction, start: str, sources: Sources, *, before: Delta | None = None
) -> Iterator[Session]:
    """Yield a session: a build root on the tree of a commit, with the package cache opened.

    before: what scripts did to /etc before; None: what they did for the deployment that is replaced.

    Raises ExternalFailure if the root cannot be assembled or the package lists cannot be read, and UsageError
    for a file that is not a package.
    """
    from apt_ostree.system.apt import config, local
    from apt_ostree.system.apt import sources as source_files

    beside = diff.directories_beside_usr(tx.sysroot.repo, start)
    timeout = tx.settings.script_timeout  # a mistake in the settings is told before anything is done
    delta = etc.pending(tx) if before is None else before
    with (
        lowerdirs.usr_of(tx.sysroot, start) as lowers,
        buildroot.scratch_directory(tx.sysroot.state_dir / "work") as scratch,
        ExitStack() as mounted,
    ):
        root = mounted.enter_context(buildroot.assembled(scratch, lowers, beside))
        state = inside.package_state(root, sources.architectures)
        config.use_build_root(root, scratch, state.extended_states, state.architectures)
        if sources.archives:
            if others := _other_sources(tx, start, delta):
                mounted.enter_context(source_files.of_deployment(others, root))
            _refresh_lists(tx, sources)
        local.offer(tx.report, list(filter(local_debs.is_stored, sources.local)), scratch)
        protected = kept.protected(tx, sources.names)
        resolver, present = _resolver(tx, scratch, sources, protected)
        if sources.archives:
            policing.hold_back(tx, resolver, tell=sources.upgrade)
        exact = tuple(package.label for package in sources.local)
        had, offline = packages_of(tx.sysroot.repo, start) | sources.in_use, sources.cache_only
        yield Session(
            tx,
            start,
            root,
            scratch,
            resolver,
            exact,
            present,
            protected,
            offline,
            timeout,
            had,
            delta,
            mounted,
        )


def _other_sources(tx: Transaction, start: str, delta: Delta) -> Mapping[str, FileState]:
    """Return the states of /etc/apt that the deployment will have, where another base gives it others."""
    repo = tx.sysroot.repo
    if repo.base_of(start) == repo.base_of(tx.live.base):
        return {}
    states = etc.view(tx, start, delta).states
    return {path: state for path, state in states.items() if path.startswith("apt/")}


def _refresh_lists(tx: Transaction, sources: Sources) -> None:
    """Download the package lists if they are too old, and name archives whose older lists are used."""
    from apt_ostree.system.apt import acquire

    stale = sources.upgrade or not acquire.lists_are_current(sources.lists_age)
    if stale and not sources.cache_only:
        with tx.task("Refreshing package lists"):
            acquire.refresh_lists(tx.report, strict=tx.settings.strict_archives)
    elif failed := acquire.failed_archives():
        tx.warning(acquire.failed_text(failed))


def _resolver(
    tx: Transaction, scratch: Path, sources: Sources, protected: tuple[str, ...]
) -> tuple[Resolver, Mapping[str, str]]:
    """Return the resolver, and names and versions of what is kept from the present tree."""
    resolver, left_out = _read_lists(tx, scratch, sources)
    if left_out:
        tx.warning(f"left out, as their archives cannot be reached: {', '.join(left_out)}")
    lost = [package for package in sources.local if not local_debs.is_stored(package)]
    asked = (*sources.requested, *protected) if sources.requested else ()
    present = kept.offer(tx, resolver, asked, lost, scratch, in_use=sources.in_use)
    return _read_lists(tx, scratch, sources)[0] if present else resolver, present


def _read_lists(tx: Transaction, scratch: Path, sources: Sources) -> tuple[Resolver, Sequence[str]]:
    """Return the resolver, and the newer versions that an upgrade has to leave out."""
    from apt_ostree.system.apt import acquire, config, unreachable
    from apt_ostree.system.apt.resolver import Resolver

    if not sources.archives:
        with config.no_source():
            return Resolver(scratch), ()
    with tx.task("Reading package lists"):
        resolver = Resolver(scratch, recommends=sources.recommends)
        return resolver, unreachable.leave_out(resolver, acquire.failed_archives()) if sources.upgrade else ()


def install(
    session: Session,
    requests: PackageGoal,
    label: Label,
    *,
    commands: Sequence[Command] = (),
    configure: Sequence[str] = (),
    initramfs: OwnInitramfs | None = None,
    replaces: Collection[str] = (),
    dry_run: bool = False,
    download_only: bool = False,
    ask: bool = True,
) -> Built:
    """Resolve, download, install and commit packages; the plan is shown before.

    requests: the packages to install.
    commands: commands to run afterwards in the build root.
    configure: packages that are there and whose scripts run as if they were installed.
    initramfs: what it has of the machine, if anything.
    replaces: names of packages that may replace files of others.
    ask: whether to ask the user to confirm the plan.

    Returns the plan and the commit. Raises UsageError for an unknown package, Refused for a conflict or an
    unsigned package, Cancelled if the user declines, and ExternalFailure if a step fails.
    """
    tx = session.tx
    plan = _resolve(session, requests)
    policing.require_plan(tx, session.resolver, plan, session.present)
    if plan and initramfs and initramfs.arguments is not None:
        plan = replace(plan, initramfs=("made anew, as in each deployment of this machine",))
    if not plan and (plan.taken or plan.newer):
        tx.report(PlanShown("transaction", plan.to_json()))
    if not (plan or commands or configure or (initramfs and initramfs.anew)):
        return Built(plan)
    policing.require_approval(tx, plan, session.start, label.base)
    if plan:
        _show(session, plan, label, ask=ask and not dry_run)
    if dry_run:
        return Built(plan)
    archives = _download(session, plan) if plan else None
    if download_only:
        return Built(plan)
    return _build(session, label, Work(plan, archives, commands, configure, initramfs, frozenset(replaces)))


def run_removal(session: Session, requests: PackageGoal, base: str) -> Delta:
    """Run the scripts of packages as if they were removed; return what scripts did to /etc, as of now.

    It is for a tree that never has the packages, as its base is another one. Nothing is written.

    requests: the packages to drop. base: the commit that the present packages are layered on.
    Raises Refused if another package needs them, and ExternalFailure if a script fails.
    """
    plan = _resolve(session, requests)
    if not plan:
        return session.etc
    work = Work(plan, _download(session, plan), (), (), None, rehearsal=True)
    return _build(session, Label(base, deployed=session.start), work).delta


def _build(session: Session, label: Label, work: Work) -> Built:
    """Change the build root and write its commit; no commit if nothing but commands ran, without effect."""
    tx, plan = session.tx, work.plan
    log = sandbox.output_log(session.root)
    with tx.task(work.title), outputlog.kept(tx.report, log, "packages", work.summary()):
        tree = _install(session, work)
    session._mounted.close()
    commit = label.deployed
    if not commit:
        with tx.task("Writing the commit"):
            commit = _commit(session, label, work, tree)
    delta = etc.delta_of(tx, tree.given, session.scratch / _ETC_UPPER, session.start, commit)
    trees = tx.sysroot.repo.tree_checksums
    if (
        not plan
        and etc_delta.results(delta) == etc_delta.results(tree.given.delta)
        and trees(commit) == trees(session.start)
    ):
        return Built(plan)  # the commands changed nothing
    return Built(plan, commit, delta)


def _show(session: Session, plan: PackagePlan, label: Label, *, ask: bool) -> None:
    """Show the plan of the packages, and ask whether to proceed; first check that there is space for them."""
    from apt_ostree.system.apt import local

    tx = session.tx
    needed = _REMOVAL_HEADROOM if plan.only_removes else plan.disk_bytes + _HEADROOM
    place = session.scratch.parent
    buildroot.require_space(place, needed, "change the packages", removal=plan.only_removes)
    shown = PlanShown("transaction", plan.to_json())
    if ask:
        tx.confirm(shown, commits=(session.start, label.base))
        local.store_again(session.scratch)
    else:
        tx.report(shown)


def _resolve(session: Session, requests: PackageGoal) -> PackagePlan:
    with session.tx.task("Resolving packages"):
        plan = session.resolver.resolve(replace(requests, protected=session.protected))
        session.resolver.refuse_untrusted(plan)
        return replace(plan, initramfs=inside.initramfs_notes(session.root, plan)) if plan else plan


def _download(session: Session, plan: PackagePlan) -> Archives:
    from apt_ostree.system.apt import acquire, verification

    trust.note_archives(session.tx, verification.unverified(session.resolver, plan))
    downloading = nullcontext() if plan.only_removes else session.tx.task("Downloading packages")
    with downloading:
        return acquire.download(session.resolver, session.tx.report, cache_only=session.cache_only)


def _install(session: Session, work: Work) -> _Tree:
    """Run dpkg and commands with the machine's /etc, and turn the root into a tree again."""
    from apt_ostree.system.apt import config, install, shipped

    tx, root, scratch, timeout = session.tx, session.root, session.scratch, session.script_timeout
    initramfs_etc.strip(root)
    given = etc.view(tx, session.start, session.etc)
    lowers: tuple[Path, ...] = (ETC,)
    if given.states:
        lowers = (buildroot.write_layer(scratch / "etc-merged", given.states, ETC), ETC)
    with buildroot.machine_etc(scratch, root, _ETC_UPPER, lowers) as upper:
        installed = (*(step.name for step in work.plan.install), *work.configure)
        prepared = inside.prepare(root, earlier.read(tx, session.start), installed)
        failpoint("layering.before-install")
        if work.archives:
            for line in replacing.divert(root, work.archives.paths, work.replacing):
                tx.message(line)
            install.install(
                tx.report, work.archives, work.title, root=root, scratch=scratch, script_timeout=timeout
            )
            inside.write_extended_states(root, config.extended_states(scratch).read_text())
        if work.configure:
            _configure(session, work.configure)
        failpoint("layering.after-install")
        for command in work.commands:
            _run(session, command)
        if work.dracut_arguments is not None:
            inside.make_initramfs(tx.report, root, work.dracut_arguments, timeout=max(timeout, _LONGEST_STEP))
            failpoint("layering.after-initramfs")
        removed = removal.kept_of(root, work.plan)
        before = earlier.configured(tx.sysroot.repo, session.start) if removed else {}
        gone = {package.name: before[package.name] for package in removed if package.name in before}
        forgotten = removal.purge(root, scratch, removed, (upper, *lowers), timeout)
        replacing.restore(root)
        machine = inside.leave_etc(root, forgotten, gone, installed)
        tracked = initramfs_etc.read(root, work.initramfs.etc if work.initramfs else ())
    archives = work.archives.paths if work.archives else ()
    beside = inside.finish_root(
        tx.report,
        root,
        prepared,
        inside.read_changes(scratch / "upper"),
        machine=machine,
        shipped=shipped.etc(archives, root / layout.DPKG_ADMINDIR / "info"),
        initramfs_is_made=work.dracut_arguments is not None,
        timeout=max(timeout, _LONGEST_STEP),
    )
    initramfs_etc.append(root, tracked)
    failpoint("layering.after-initramfs-etc")
    return _Tree(frozenset(dpkg_query.installed(root / layout.DPKG_ADMINDIR)), beside, given)


def _configure(session: Session, names: Sequence[str]) -> None:
    inside.unconfigure(session.root, names)
    command = ["dpkg", *sandbox.KEEP_CHANGED, "--configure", *names]
    what = f"configure {', '.join(names)}"
    sandbox.run(session.root, command, what=what, timeout=session.script_timeout, hostname=platform.node())


def _run(session: Session, command: Command) -> None:
    """Run a command in the build root and show its output; ExternalFailure if it fails."""
    text = shlex.join(command)
    what = f"run '{text}' in the deployment"
    timeout = max(session.script_timeout, _LONGEST_STEP)
    try:
        sandbox.run(session.root, command, what=what, timeout=timeout, hostname=platform.node())
    except ExternalFailure as error:
        error.hint = (
            "it sees the deployment and /etc, but no network and nothing else of the machine; if it is an "
            f"earlier command, 'apt-ostree run --forget -- {text}' drops it; nothing was changed"
        )
        raise
    for line in sandbox.output_of(session.root, f"{what}: {text}"):
        session.tx.message(line)


def _commit(session: Session, label: Label, work: Work, tree: _Tree) -> str:
    repo = session.tx.sysroot.repo
    metadata = {
        layout.META_BASE: text(label.base),
        layout.META_PACKAGES: package_list(tree.packages),
        **{key: text(value) for key, value in label.metadata.items()},
    }
    if version := repo.metadata(label.base).get(layout.META_VERSION):
        metadata[layout.META_VERSION] = text(version)
    session.tx.tidy_at_end()
    failpoint("layering.before-commit")
    # A cancel is delayed: raised inside libostree's binding, it would look like an internal error.
    with signals.held(lambda: None):
        commit = upper_commit.commit_upper(
            repo,
            session.start,
            session.scratch / "upper",
            subject=": ".join(filter(None, (label.title, work.subject))),
            metadata=metadata,
            beside=tree.beside,
        )
    failpoint("layering.after-commit")
    return commit
