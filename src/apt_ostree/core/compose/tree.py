"""`compose tree`: from a treefile to a commit.

The repository is touched by one transaction at the very end, so whatever happens before leaves it as it was.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from apt_ostree import __version__
from apt_ostree.core.build.finish import finish_tree, settle_bytecode
from apt_ostree.core.compose import rootfs
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import layout, release
from apt_ostree.model import treefile as treefiles
from apt_ostree.model.events import Message, Report, TaskBegin, TaskEnd, task
from apt_ostree.model.package import Package
from apt_ostree.model.treefile import Treefile
from apt_ostree.system import confined, dpkg_query, mmdebstrap, outputlog, sandbox, source_date, yamlfile
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.mmdebstrap import Bootstrap
from apt_ostree.system.ostree import commit
from apt_ostree.system.ostree import repo as repository

_WORK_PREFIX = ".apt-ostree-compose-"


@dataclass(frozen=True, slots=True)
class Job:
    """What to compose: the merged treefile, where to, and the time (seconds since 1970) of the commit."""

    tree: Treefile
    ref: str
    version: str | None
    repo: Path
    timestamp: int
    keep_parent: bool = True


def compose_tree(
    report: Report,
    *,
    treefile: str,
    repo: str | None = None,
    ref: str | None = None,
    version: str | None = None,
    metadata: Mapping[str, str] | None = None,
    workdir: str | None = None,
    print_only: bool = False,
    dry_run: bool = False,
    force: bool = False,
    keep_parent: bool = True,
) -> dict[str, Any]:
    """Compose a tree and commit it to its ref.

    Returns `treefile` (print_only), `packages` (dry_run), or `ref`, `commit`, `changed`, `version` and the
    number of `packages`.
    """
    given = dict(metadata or {})
    tree = load_treefile(Path(treefile))
    merged = tuple(sorted({**dict(tree.metadata), **given}.items()))
    tree = replace(tree, ref=ref or tree.ref, version=version or tree.version, metadata=merged)
    treefiles.check_complete(tree, name=treefile)
    if print_only:
        return {"treefile": treefiles.to_json(tree)}
    job = _prepare_job(tree, repo, keep_parent=keep_parent)
    with task(report, "Resolving packages"):
        wanted = _plan_bootstrap(tree)
        head = commit.head(job.repo, job.ref)
        foreseen = mmdebstrap.simulate(wanted)
    if dry_run:
        return {"packages": [[item.name, item.version, item.architecture] for item in foreseen]}
    inputs = inputs_digest(tree, foreseen)
    if head and not force and _known_inputs(job, head) == inputs:
        report(Message(f"No change: {job.ref} has these packages and this treefile already"))
        return _result(job, head, len(foreseen), changed=False)
    heading = [f"compose {job.ref} from {treefile}"]
    with (
        _work_directory(job.repo, workdir) as work,
        outputlog.kept(report, sandbox.output_log(work / "root"), "compose", heading),
    ):
        sources = _make_root(report, job, wanted, work)
        _make_tree(report, job, work / "root")
        packages = dpkg_query.installed(work / "root" / layout.DPKG_ADMINDIR)
        with task(report, f"Committing to {job.ref}"):
            failpoint("compose.commit")
            written = commit.commit_directory(
                job.repo,
                work / "root",
                job.ref,
                subject=f"{job.ref} {job.version or ''}".strip(),
                timestamp=job.timestamp,
                metadata=_metadata(job, work / "root", packages, sources, inputs),
                keep_parent=job.keep_parent,
            )
    return _result(job, written.checksum, len(packages), changed=written.changed)


# --- the treefile


def load_treefile(path: Path, seen: tuple[Path, ...] = ()) -> Treefile:
    """Read a treefile with all that it includes, merged; relative paths count from the file they stand in."""
    real = path.resolve()
    if real in seen:
        raise UsageError(f"{seen[-1]}: include: {path} includes itself")
    document = yamlfile.read(path)
    own = treefiles.parse(document.data, name=document.name, lines=document.lines)
    _check_files(own, path)
    base = Treefile()
    for name in own.include:
        base = treefiles.merge(base, load_treefile(Path(name), (*seen, real)))
    return treefiles.merge(base, own)


def _check_files(tree: Treefile, path: Path) -> None:
    named = [(f"add-files[{n}].src", item.path) for n, item in enumerate(tree.add_files)]
    named += [(f"postprocess[{n}].file", item.path) for n, item in enumerate(tree.postprocess) if item.path]
    named += [
        (f"archives[{n}].signed-by", item.keyring) for n, item in enumerate(tree.archives) if item.keyring
    ]
    for key, file in named:
        if not Path(file).exists():
            raise UsageError(
                f"{path}: {key}: expected an existing file, got {file}",
                hint="relative paths count from the directory of the treefile they stand in",
            )


# --- the steps


def _prepare_job(tree: Treefile, repo: str | None, *, keep_parent: bool) -> Job:
    if repo is None:
        raise UsageError("compose needs a repository", hint="name one with --repo=REPO")
    if os.geteuid() != 0:
        raise Refused("composing a tree needs root", hint="run it with sudo")
    timestamp = source_date.settle()
    date = time.strftime("%Y%m%d", time.gmtime(timestamp))
    variables = {"arch": mmdebstrap.native_architecture(), "date": date}
    return Job(
        tree=tree,
        ref=treefiles.expand(tree.ref or "", variables),
        version=treefiles.expand(tree.version, variables) if tree.version else None,
        repo=Path(repo).absolute(),
        timestamp=timestamp,
        keep_parent=keep_parent,
    )


def _plan_bootstrap(tree: Treefile) -> Bootstrap:
    return Bootstrap(
        suite=tree.suite or "",
        variant=tree.variant or "minbase",
        sources=_choose_sources(tree),
        packages=tree.packages,
        recommends=bool(tree.recommends),
        check_valid_until=tree.check_valid_until is not False,
    )


def _choose_sources(tree: Treefile) -> tuple[str, ...]:
    """Return sources.list(5) lines: for archives without a mirror those that mmdebstrap takes by default."""
    defaults: dict[str, release.Source] = {}
    if not tree.archives or any(archive.mirror is None for archive in tree.archives):
        lines = mmdebstrap.default_sources(tree.suite or "", tree.components or ("main",))
        found = (release.parse_source(line) for line in lines)
        defaults = {source.suite: source for source in found if source}
    chosen = []
    for number, archive in enumerate(tree.archives):
        if archive.mirror is not None:
            options = ["trusted=yes"] if archive.trusted else []
            options += [f"signed-by={Path(archive.keyring).absolute()}"] if archive.keyring else []
            chosen.append(
                release.Source(" ".join(options), archive.mirror, archive.suite, archive.components)
            )
        elif archive.suite in defaults:
            chosen.append(replace(defaults[archive.suite], components=archive.components))
        else:
            raise UsageError(
                f"archives[{number}].suite: expected one of {', '.join(defaults)}, got {archive.suite!r}",
                hint="only these have a default mirror; name one with the key mirror",
            )
    return tuple(release.source_line(source) for source in chosen or defaults.values())


def _make_root(report: Report, job: Job, wanted: Bootstrap, work: Path) -> tuple[str, ...]:
    """Make the root directory; return where its packages came from."""
    root = work / "root"
    title = f"Installing packages of {wanted.suite}"
    report(TaskBegin(title))
    mmdebstrap.make_root(wanted, root, log=sandbox.output_log(root))
    failpoint("compose.root-made")
    sources = [source for source in map(release.parse_source, wanted.sources) if source]
    described = release.describe(rootfs.read_releases(root), sources)
    rootfs.adopt_keyrings(root, [Path(item.keyring) for item in job.tree.archives if item.keyring])
    rootfs.drop_host_files(root)
    rootfs.adopt_state(root)
    count = len(dpkg_query.installed(root / layout.DPKG_ADMINDIR))
    report(TaskEnd(title, f"{count} packages"))
    return described


def _make_tree(report: Report, job: Job, root: Path) -> None:
    """Apply the treefile's own wishes, then give the root directory the form of a tree."""

    def run_in_root(command: Sequence[str], what: str) -> None:
        sandbox.run(root, command, what=what)

    with task(report, "Applying the treefile"):
        rootfs.add_files(root, job.tree.add_files)
        rootfs.set_units(job.tree.units, run_in_root)
        rootfs.write_boot_configuration(root, job.tree)
        rootfs.run_scripts(root, job.tree.postprocess, run_in_root)
    rootfs.gather_home_directories(root)
    confined.call(root, partial(_finish, report), run_in_root)
    rootfs.shape_top_level(root)
    failpoint("compose.tree-made")


def _finish(report: Report, run_in_root: confined.RunInRoot) -> None:
    root = Path("/")
    finish_tree(root, run_in_root=run_in_root, report=report)
    settle_bytecode(root / "usr", root / "usr")


def _metadata(
    job: Job, root: Path, packages: Sequence[Package], sources: Sequence[str], inputs: str
) -> dict[str, Any]:
    found: dict[str, Any] = {key: repository.text(value) for key, value in job.tree.metadata}
    found |= {
        layout.META_PACKAGES: repository.package_list(packages),
        layout.META_SOURCES: commit.texts(sources),
        layout.META_TREEFILE: repository.text(_canonical(treefiles.to_json(job.tree))),
        layout.META_INPUTS: repository.text(inputs),
        layout.META_KERNEL_ARGUMENTS: commit.texts(job.tree.kernel_arguments),
        "ostree.ref-binding": commit.texts([job.ref]),
    }
    if job.version:
        found[layout.META_VERSION] = repository.text(job.version)
    kernel = rootfs.kernel_of(root)
    if kernel:
        found |= {"ostree.bootable": commit.flag(True), "ostree.linux": repository.text(kernel)}
    return found


# --- nothing to do?


def inputs_digest(tree: Treefile, packages: Sequence[Package]) -> str:
    """Return a digest of all that a compose is made from; equal digests promise equal trees.

    packages: those that a simulation names; what is installed in the end can be one or two fewer.
    """
    facts = {
        "program": __version__,
        "treefile": treefiles.to_json(tree),
        "files": rootfs.fingerprint_inputs(tree),
        "packages": [[item.name, item.version, item.architecture] for item in packages],
    }
    return hashlib.sha256(_canonical(facts).encode()).hexdigest()


def _known_inputs(job: Job, head: str) -> object:
    return repository.Repo.open(job.repo).metadata(head).get(layout.META_INPUTS)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _result(job: Job, checksum: str, packages: int, *, changed: bool) -> dict[str, Any]:
    return {
        "ref": job.ref,
        "commit": checksum,
        "changed": changed,
        "version": job.version,
        "packages": packages,
    }


# --- the work directory


@contextmanager
def _work_directory(repo: Path, wanted: str | None) -> Iterator[Path]:
    """Make a directory on the repository's file system (or below `wanted`), and remove it at the end.

    A lock on it tells the living from the leftovers of killed runs, which are removed first.
    """
    parent = Path(wanted).absolute() if wanted else (repo / "tmp" if commit.exists(repo) else repo.parent)
    parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(parent)
    work = Path(tempfile.mkdtemp(prefix=_WORK_PREFIX, dir=parent))
    try:
        fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield work
        finally:
            os.close(fd)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _remove_leftovers(parent: Path) -> None:
    for entry in parent.glob(f"{_WORK_PREFIX}*"):
        fd = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(entry, ignore_errors=True)
        except BlockingIOError:
            pass  # another compose is at work there
        finally:
            os.close(fd)
