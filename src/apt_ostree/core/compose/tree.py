"""`compose tree`: composes a tree from a treefile and commits it, by the steps of the other verbs.

One transaction at the end writes to the repository. A failure before it leaves the repository unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from apt_ostree.core.compose import account_ids, committing, lockfiles, packages, publish, verifying
from apt_ostree.core.compose.cache import Cache, open_cache
from apt_ostree.core.compose.committing import Job, Origin
from apt_ostree.core.compose.inputs import inputs_digest, treefile_of_commit
from apt_ostree.core.compose.packages import Plan
from apt_ostree.core.compose.postprocess import Work, postprocess
from apt_ostree.core.compose.verifying import Again
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


@dataclass(frozen=True, slots=True)
class Previous:
    """What a tree is compared with.

    commit: whose accounts keep their ids, if there is one.
    inputs: the digest of what that was made of, if it says so.
    given: the digest that decides in its place.
    """

    commit: str | None
    inputs: str | None
    given: str | None

    def is_made_of(self, inputs: str) -> bool:
        """Return whether it was made of these inputs, by their digest."""
        return inputs == (self.given or self.inputs)


def compose_tree(tx: Transaction, request: ComposeTree) -> Result:
    """Compose a tree and commit it to its ref.

    Returns `treefile` (print_only), `packages` (dry_run, download_only), or `ref`, `commit`, `version`, the
    number of `packages`, and the checksum of the `verified` content (verify). Raises UsageError for an error
    in the treefile or the request, Refused without root's rights, for what is not in the cache (cache_only),
    or for a tree that is not reproducible (verify), and ExternalFailure if a step fails.
    """
    tree = treefile_of_commit(request.treefile, request)
    if request.print_only:
        return Result(changed=False, details={"treefile": treefiles.to_json(tree)})
    job = committing.job_of(tree, request)
    head = commit.head(job.repo, job.ref)
    previous = _previous(job, request, head)
    with _cache(job, request) as cache, planned(tx, tree, request, cache) as plan:
        inputs = inputs_digest(tree, plan.packages)
        is_new = request.force or request.verify or not previous.is_made_of(inputs)
        if request.download_only:
            packages.download(tx, plan, cache)
        if request.dry_run or request.download_only:
            return packages.listed(plan, changed=is_new)
        # By default, the same inputs have the same time, so that their commit is made again.
        repeated = previous.commit if previous.inputs == inputs else None
        job = job.at(source_date.settle(Repo.open(job.repo).timestamp(repeated) if repeated else None))
        if is_new:
            result = _compose(tx, job, plan, request, previous=previous, cache=cache)
        else:
            result = _unchanged(tx, job, repeated, len(plan.packages))
        if cache:
            cache.prune()
    return publish.with_static_delta(tx, job.repo, head, result) if request.static_delta else result


def planned(
    tx: Transaction, tree: Treefile, request: ComposeTree | OfPackages, cache: Cache | None
) -> AbstractContextManager[Plan]:
    """Return what yields the packages of a treefile, as far as the request's lockfiles agree."""
    locked = lockfiles.read(request.lockfiles)

    def check(plan: Plan) -> None:
        lockfile.check(plan.packages, locked, strict=request.lock_strictly)
        lockfiles.write(request.write_lockfile, plan.packages)

    return packages.planned(tx, tree, locked, cache, check=check, offline=request.cache_only)


def _previous(job: Job, request: ComposeTree, head: str | None) -> Previous:
    """Return what a tree is compared with. head: the commit of the ref."""
    chosen = commit.found(job.repo, request.previous_commit) if request.previous_commit else head
    inputs = Repo.open(job.repo).metadata(chosen).get(layout.META_INPUTS) if chosen else None
    return Previous(chosen, inputs, request.previous_inputs)


def _unchanged(tx: Transaction, job: Job, repeated: str | None, count: int) -> Result:
    """Return the result where the same was made before. repeated: the commit, if it is here."""
    is_of_ref = repeated and repeated == commit.head(job.repo, job.ref)
    name = job.ref if is_of_ref else f"the commit {repeated[:12]}" if repeated else "what was made before"
    tx.message(f"No change: {name} has these packages and this treefile already")
    if repeated:
        job.tell(repeated, {})
        if job.sign:
            job.sign(Repo.open(job.repo), repeated)
    return committing.result_of(job, repeated, count, changed=False)


def _compose(
    tx: Transaction,
    job: Job,
    plan: Plan,
    request: ComposeTree,
    *,
    previous: Previous,
    cache: Cache | None,
) -> Result:
    """Make the tree in a work directory, and commit it."""
    ids = account_ids.kept(job.tree, job.repo, previous.commit)
    heading = f"compose {job.ref} from {request.treefile}"
    with working(tx, _work_parent(job, request), heading) as work:
        base = packages.make_root(tx, job.tree, plan, work, cache)
        root = work / "root"
        postprocess(tx, root, job.tree, Work(job.timestamp, plan.source_date, ids, base, cache))
        verified = {}
        if request.verify and cache:
            again = Again(job, plan, ids, cache)
            second = verifying.build_again(tx, request.treefile, again, work / "verification")
            verified = {"verified": verifying.require_reproducible(tx, job, root, second)}
        origin = Origin(plan.sources, inputs_digest(job.tree, plan.packages))
        result = committing.commit_tree(tx, job, root, origin, consume=True)
        return replace(result, details={**result.details, **verified})


@contextmanager
def _cache(job: Job, request: ComposeTree) -> Iterator[Cache | None]:
    """Yield the cache; to verify without one, one of this compose, for the second build's archives."""
    if request.verify and request.cachedir is None:
        with scratch.directory(_work_parent(job, request), WORK_PREFIX) as work:
            yield open_cache(str(work / "cache"), apart_from={}, needed=True)
        return
    needed = request.cache_only or request.download_only
    yield open_cache(request.cachedir, apart_from={"the repository": job.repo}, needed=needed)


def _work_parent(job: Job, request: ComposeTree) -> Path:
    """Return where work directories are made."""
    if request.workdir:
        return Path(request.workdir).absolute()
    return job.repo / "tmp" if commit.exists(job.repo) else job.repo.parent


@contextmanager
def working(tx: Transaction, parent: Path, heading: str) -> Iterator[Path]:
    """Yield a work directory below `parent`; the output of programs in its directory `root` is kept."""
    with (
        scratch.directory(parent, WORK_PREFIX) as work,
        outputlog.kept(tx.report, sandbox.output_log(work / "root"), "compose", [heading]),
    ):
        yield work
