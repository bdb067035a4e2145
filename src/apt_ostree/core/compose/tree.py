"""`compose tree`: composes a tree from a treefile and commits it, by the steps of the other verbs.

One transaction at the end writes to the repository. A failure before it leaves the repository unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from apt_ostree.core.compose import account_ids, committing, lockfiles, packages, publish
from apt_ostree.core.compose.cache import Cache, open_cache
from apt_ostree.core.compose.committing import Job, Origin
from apt_ostree.core.compose.inputs import inputs_digest, read_treefile
from apt_ostree.core.compose.packages import Plan
from apt_ostree.core.compose.postprocess import Work, postprocess
from apt_ostree.core.transaction import Transaction
from apt_ostree.model import layout, lockfile
from apt_ostree.model import treefile as treefiles
from apt_ostree.model.requests.compose import ComposeTree, OfPackages
from apt_ostree.model.result import Result
from apt_ostree.model.treefile import Treefile
from apt_ostree.system import outputlog, sandbox, scratch, source_date
from apt_ostree.system.ostree import commit
from apt_ostree.system.ostree.repo import Repo

#: Work directories of composes.
WORK_PREFIX = ".apt-ostree-compose-"


def compose_tree(tx: Transaction, request: ComposeTree) -> Result:
    """Compose a tree and commit it to its ref.

    Returns `treefile` (print_only), `packages` (dry_run), or `ref`, `commit`, `version` and the number of
    `packages`. Raises UsageError for an error in the treefile or the request, Refused without root's rights,
    and ExternalFailure if a step fails.
    """
    tree = read_treefile(
        request.treefile, ref=request.ref, version=request.version, metadata=request.metadata
    )
    if request.print_only:
        return Result(changed=False, details={"treefile": treefiles.to_json(tree)})
    repo = committing.require_repository(request.repo)
    sign = publish.signing(request.sign, request.gpg_homedir)
    if request.static_delta:
        publish.require_archive(repo)
    ref = committing.ref_of(tree)
    head = commit.head(repo, ref)
    cache = open_cache(request.cachedir, apart_from={"the repository": repo})
    with planned(tx, tree, request, cache) as plan:
        if request.dry_run:
            return packages.listed(plan)
        inputs = inputs_digest(tree, plan.packages)
        repeated = head if head and _inputs_of(repo, head) == inputs else None
        # By default, the same inputs have the same time, so that their commit is made again.
        timestamp = source_date.settle(Repo.open(repo).timestamp(repeated) if repeated else None)
        version = committing.version_of(tree, timestamp)
        job = Job(tree, ref, version, repo, timestamp, keep_parent=request.keep_parent, sign=sign)
        if repeated and not request.force:
            result = _unchanged(tx, job, repeated, len(plan.packages))
        else:
            result = _compose(tx, job, plan, request, cache)
    if cache:
        cache.prune()
    return publish.with_static_delta(tx, repo, head, result) if request.static_delta else result


def planned(
    tx: Transaction, tree: Treefile, request: ComposeTree | OfPackages, cache: Cache | None
) -> AbstractContextManager[Plan]:
    """Return what yields the packages of a treefile, as far as the request's lockfiles agree."""
    locked = lockfiles.read(request.lockfiles)

    def check(plan: Plan) -> None:
        lockfile.check(plan.packages, locked, strict=request.lock_strictly)
        lockfiles.write(request.write_lockfile, plan.packages)

    return packages.planned(tx, tree, locked, cache, check)


def _unchanged(tx: Transaction, job: Job, head: str, count: int) -> Result:
    tx.message(f"No change: {job.ref} has these packages and this treefile already")
    if job.sign:
        job.sign(Repo.open(job.repo), head)
    return committing.result_of(job, head, count, changed=False)


def _compose(tx: Transaction, job: Job, plan: Plan, request: ComposeTree, cache: Cache | None) -> Result:
    """Make the tree in a work directory, and commit it."""
    ids = account_ids.kept(job.tree, job.repo, commit.head(job.repo, job.ref))
    parent = job.repo / "tmp" if commit.exists(job.repo) else job.repo.parent
    heading = f"compose {job.ref} from {request.treefile}"
    with working(tx, Path(request.workdir).absolute() if request.workdir else parent, heading) as work:
        base = packages.make_root(tx, job.tree, plan, work, cache)
        root = work / "root"
        postprocess(tx, root, job.tree, Work(job.timestamp, plan.source_date, ids, base, cache))
        origin = Origin(plan.sources, inputs_digest(job.tree, plan.packages))
        return committing.commit_tree(tx, job, root, origin, consume=True)


@contextmanager
def working(tx: Transaction, parent: Path, heading: str) -> Iterator[Path]:
    """Yield a work directory below `parent`; the output of programs in its directory `root` is kept."""
    with (
        scratch.directory(parent, WORK_PREFIX) as work,
        outputlog.kept(tx.report, sandbox.output_log(work / "root"), "compose", [heading]),
    ):
        yield work


def _inputs_of(repo: Path, head: str) -> object:
    return Repo.open(repo).metadata(head).get(layout.META_INPUTS)
