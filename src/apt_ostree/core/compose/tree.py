"""`compose tree`: composes a tree from a treefile and commits it.

One transaction at the end writes to the repository. A failure before it leaves the repository unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from apt_ostree import __version__
from apt_ostree.core.build.finish import finish_tree, reset_bytecode
from apt_ostree.core.compose import account_ids, lockfiles, machine_state, publish, rootfs
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import layout, lockfile, release
from apt_ostree.model import treefile as treefiles
from apt_ostree.model.account_ids import Ids
from apt_ostree.model.events import Report, TaskBegin, TaskEnd
from apt_ostree.model.package import Package
from apt_ostree.model.requests.archives import ComposeTree
from apt_ostree.model.result import Result
from apt_ostree.model.treefile import MachineState, Treefile
from apt_ostree.system import (
    confined,
    dpkg_query,
    mmdebstrap,
    outputlog,
    sandbox,
    scratch,
    source_date,
    yamlfile,
)
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.mmdebstrap import Bootstrap
from apt_ostree.system.ostree import commit
from apt_ostree.system.ostree import repo as repository
from apt_ostree.system.ostree.repo import Repo

_PROGRAM = "usr/bin/apt-ostree"
_WORK_PREFIX = ".apt-ostree-compose-"


@dataclass(frozen=True, slots=True)
class Job:
    """What to compose.

    tree: the merged treefile.
    ref: the ref to commit to.
    version: the version of the commit.
    repo: the repository.
    timestamp: the time of the commit, in seconds since 1970.
    keep_parent: whether the commit of the ref becomes the parent.
    ids: the ids that accounts have to keep.
    sign: signs the commit.
    """

    tree: Treefile
    ref: str
    version: str | None
    repo: Path
    timestamp: int
    keep_parent: bool = True
    ids: Ids = field(default_factory=Ids)
    sign: Callable[[Repo, str], object] | None = None


def compose_tree(tx: Transaction, request: ComposeTree) -> Result:
    """Compose a tree and commit it to its ref.

    Returns `treefile` (print_only), `packages` (dry_run), or `ref`, `commit`, `version` and the number of
    `packages`. Raises UsageError for an error in the treefile or the request, Refused without root's rights,
    and ExternalFailure if a step fails.
    """
    tree = _merged_treefile(request)
    if request.print_only:
        return Result(changed=False, details={"treefile": treefiles.to_json(tree)})
    repo = _repository(request.repo)
    sign = publish.signing(request.sign, request.gpg_homedir)
    if request.static_delta:
        publish.require_archive(repo)
    ref = treefiles.expand(tree.ref or "", {"arch": mmdebstrap.native_architecture()})
    with tx.task("Resolving packages"):
        locked = lockfiles.read(request.lockfiles)
        bootstrap = replace(_plan_bootstrap(tree), locked=locked)
        head = commit.head(repo, ref)
        packages = mmdebstrap.simulate(bootstrap)
        lockfile.check(packages, locked, strict=request.lock_strictly)
    lockfiles.write(request.write_lockfile, packages)
    if request.dry_run:
        rows = [[item.name, item.version, item.architecture] for item in packages]
        return Result(changed=False, details={"packages": rows})
    inputs = inputs_digest(tree, packages)
    repeated = head if head and _inputs_of(repo, head) == inputs else None
    job = _prepare_job(tree, repo, ref, repeated)
    ids = account_ids.kept(tree, repo, head)
    job = replace(job, keep_parent=request.keep_parent, ids=ids, sign=sign)
    if repeated and not request.force:
        tx.message(f"No change: {job.ref} has these packages and this treefile already")
        if sign:
            sign(Repo.open(repo), repeated)
        result = _result(job, repeated, len(packages), changed=False)
    else:
        heading = [f"compose {job.ref} from {request.treefile}"]
        with (
            _work_directory(job.repo, request.workdir) as work,
            outputlog.kept(tx.report, sandbox.output_log(work / "root"), "compose", heading),
        ):
            result = _compose(tx, job, bootstrap, work, inputs)
    return publish.with_static_delta(tx, repo, head, result) if request.static_delta else result


def _compose(tx: Transaction, job: Job, bootstrap: Bootstrap, work: Path, inputs: str) -> Result:
    """Make the tree in a work directory, and commit it."""
    root = work / "root"
    sources = _make_root(tx.report, job, bootstrap, work)
    _make_tree(tx, job, root)
    packages = dpkg_query.installed(root / layout.DPKG_ADMINDIR)
    with tx.task(f"Committing to {job.ref}"):
        failpoint("compose.commit")
        written = commit.commit_directory(
            job.repo,
            root,
            job.ref,
            subject=f"{job.ref} {job.version or ''}".strip(),
            timestamp=job.timestamp,
            metadata=_metadata(job, root, packages, sources, inputs),
            keep_parent=job.keep_parent,
            sign=job.sign,
        )
    return _result(job, written.checksum, len(packages), changed=written.changed)


def _merged_treefile(request: ComposeTree) -> Treefile:
    """Read the treefile; the request overrides its values."""
    tree = load_treefile(Path(request.treefile))
    metadata = tuple(sorted({**dict(tree.metadata), **request.metadata}.items()))
    version = request.version or tree.version
    tree = replace(tree, ref=request.ref or tree.ref, version=version, metadata=metadata)
    treefiles.check_complete(tree, name=request.treefile)
    return tree


# --- the treefile


def load_treefile(path: Path, seen: tuple[Path, ...] = ()) -> Treefile:
    """Return a treefile, merged with its includes; paths are relative to the file that names them.

    seen: the files that include this one.

    Raises UsageError for an error in a file.
    """
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
    named += [("account-ids", tree.ids_file)] if tree.ids_file else []
    for key, file in named:
        if not Path(file).exists():
            raise UsageError(
                f"{path}: {key}: expected an existing file, got {file}",
                hint="paths are relative to the directory of the treefile that names them",
            )


# --- the steps


def _repository(repo: str | None) -> Path:
    if repo is None:
        raise UsageError("compose needs a repository", hint="name one with --repo=REPO")
    if os.geteuid() != 0:
        raise Refused("composing a tree needs root", hint="run it with sudo")
    return Path(repo).absolute()


def _prepare_job(tree: Treefile, repo: Path, ref: str, repeated: str | None) -> Job:
    """Return what to compose.

    repeated: a commit of the same inputs; by default its time is taken, so that it is made again.
    """
    timestamp = source_date.settle(Repo.open(repo).timestamp(repeated) if repeated else None)
    date = time.strftime("%Y%m%d", time.gmtime(timestamp))
    variables = {"arch": mmdebstrap.native_architecture(), "date": date}
    return Job(
        tree=tree,
        ref=ref,
        version=treefiles.expand(tree.version, variables) if tree.version else None,
        repo=repo,
        timestamp=timestamp,
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
    """Return sources.list(5) lines; archives without a mirror get the defaults of mmdebstrap."""
    defaults: dict[str, release.Source] = {}
    if not tree.archives or any(archive.mirror is None for archive in tree.archives):
        lines = mmdebstrap.default_sources(tree.suite or "", tree.components or ("main",))
        sources = (release.parse_source(line) for line in lines)
        defaults = {source.suite: source for source in sources if source}
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


def _make_root(report: Report, job: Job, bootstrap: Bootstrap, work: Path) -> tuple[str, ...]:
    """Make the root directory; return a description of each source of packages."""
    root = work / "root"
    title = f"Installing packages of {bootstrap.suite}"
    report(TaskBegin(title))
    mmdebstrap.make_root(bootstrap, root, log=sandbox.output_log(root))
    failpoint("compose.root-made")
    sources = [source for source in map(release.parse_source, bootstrap.sources) if source]
    described = release.describe(rootfs.read_releases(root), sources)
    rootfs.copy_keyrings(root, [Path(item.keyring) for item in job.tree.archives if item.keyring])
    rootfs.drop_host_files(root)
    rootfs.move_state(root)
    count = len(dpkg_query.installed(root / layout.DPKG_ADMINDIR))
    report(TaskEnd(title, f"{count} packages"))
    return described


def _make_tree(tx: Transaction, job: Job, root: Path) -> None:
    """Apply the settings of the treefile, then give the root directory the form of a tree."""

    def run_in_root(command: Sequence[str], what: str) -> None:
        sandbox.run(root, command, what=what)

    packages = {package.name for package in dpkg_query.installed(root / layout.DPKG_ADMINDIR)}
    own = job.tree.machine_state
    left = confined.call(root, partial(_leave_to_machines, packages, own), run_in_root)
    failpoint("compose.left-to-machines")
    with tx.task("Applying the treefile"):
        rootfs.add_files(root, job.tree.add_files)
        rootfs.set_units(job.tree.units, run_in_root)
        rootfs.write_boot_configuration(root, job.tree)
        rootfs.run_scripts(root, job.tree.postprocess, run_in_root)
    _tell_what_is_left(tx, root, left)
    rootfs.move_linked_directories(root)
    confined.call(root, partial(_finish, tx.report, job.ids), run_in_root)
    rootfs.make_top_level(root)
    failpoint("compose.tree-made")


def _leave_to_machines(
    packages: Collection[str], own: Sequence[MachineState], _run: confined.RunInRoot
) -> list[str]:
    return machine_state.leave_to_machines(Path("/"), packages, own)


def _tell_what_is_left(tx: Transaction, root: Path, packages: Sequence[str]) -> None:
    if packages:
        tx.message(f"Each machine configures itself: {', '.join(packages)}")
    if packages and not (root / _PROGRAM).exists():
        tx.warning("the tree does not have apt-ostree, which does that at the first boot")


def _finish(report: Report, ids: Ids, run_in_root: confined.RunInRoot) -> None:
    root = Path("/")
    account_ids.keep(root, ids)
    finish_tree(root, run_in_root=run_in_root, report=report)
    reset_bytecode(root / "usr", root / "usr")
    rootfs.drop_dates(root)


def _metadata(
    job: Job, root: Path, packages: Sequence[Package], sources: Sequence[str], inputs: str
) -> dict[str, Any]:
    metadata: dict[str, Any] = {key: repository.text(value) for key, value in job.tree.metadata}
    metadata |= {
        layout.META_PACKAGES: repository.package_list(packages),
        layout.META_SOURCES: commit.texts(sources),
        layout.META_TREEFILE: repository.text(_canonical(treefiles.to_json(job.tree))),
        layout.META_INPUTS: repository.text(inputs),
        layout.META_KERNEL_ARGUMENTS: commit.texts(job.tree.kernel_arguments),
        "ostree.ref-binding": commit.texts([job.ref]),
    }
    if job.version:
        metadata[layout.META_VERSION] = repository.text(job.version)
    kernel = rootfs.kernel_of(root)
    if kernel:
        metadata |= {"ostree.bootable": commit.flag(True), "ostree.linux": repository.text(kernel)}
    return metadata


# --- detection of changes


def inputs_digest(tree: Treefile, packages: Sequence[Package]) -> str:
    """Return a digest of all inputs of a compose; equal digests mean equal trees.

    packages: the packages that a simulation lists; one or two fewer may be installed in the end.
    """
    facts = {
        "program": __version__,
        "treefile": treefiles.to_json(tree),
        "files": rootfs.fingerprint_inputs(tree),
        "packages": [[item.name, item.version, item.architecture] for item in packages],
    }
    return hashlib.sha256(_canonical(facts).encode()).hexdigest()


def _inputs_of(repo: Path, head: str) -> object:
    return Repo.open(repo).metadata(head).get(layout.META_INPUTS)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _result(job: Job, checksum: str, packages: int, *, changed: bool) -> Result:
    details = {"ref": job.ref, "commit": checksum, "version": job.version, "packages": packages}
    return Result(changed, details=details)


# --- the work directory


@contextmanager
def _work_directory(repo: Path, workdir: str | None) -> Iterator[Path]:
    """Yield a directory on the repository's file system, or below `workdir`."""
    parent = Path(workdir).absolute() if workdir else (repo / "tmp" if commit.exists(repo) else repo.parent)
    with scratch.directory(parent, _WORK_PREFIX) as work:
        yield work
