"""`compose publish`: brings a directory that a web server serves up to date with the refs of a repository.

Machines read it at the same time. So what is new comes first and has no name yet. Then refs, summary and
images change, each with one rename. What they do not name any more is removed last. An interrupted
publication is completed by the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apt_ostree.core.compose.image import planning as images
from apt_ostree.core.compose.image import writing
from apt_ostree.core.compose.image.planning import Output
from apt_ostree.core.compose.publication import planning
from apt_ostree.core.compose.publication.planning import Branch, Place, Plan
from apt_ostree.core.transaction import Transaction
from apt_ostree.model import oci
from apt_ostree.model.oci import Form
from apt_ostree.model.publication import Pair, Record
from apt_ostree.model.requests.compose import ComposePublish
from apt_ostree.model.requests.images import ComposeImage
from apt_ostree.model.result import Result
from apt_ostree.model.sizes import show_size
from apt_ostree.system import dirlock, files, mounts, ociblobs, scratch, signals
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import archive, deltas, remotes, signatures
from apt_ostree.system.ostree.repo import Repo

_WORK_PREFIX = ".apt-ostree-publish-"


@dataclass(frozen=True, slots=True)
class _Image:
    """An image whose blobs are in their place. stay: the digests of its blobs, and of those before it."""

    path: Path
    index: str
    stay: frozenset[str]


def publish(tx: Transaction, request: ComposePublish) -> Result:
    """Publish refs in a directory.

    Returns `directory`, `refs` (with the `commits` of each, the newest first, and the `image`, a digest or
    null), `static-deltas` (`from`, `to`, `bytes`, `objects`) and the commits that were `pruned`. Raises
    UsageError for a ref or key that is not there, and Refused for a directory with something else, for one
    that another program publishes to, and for a tree that no image can hold; ExternalFailure if a step
    fails. Until all that is new is written, machines get what they got before.
    """
    place = planning.check_request(request)
    with dirlock.held(place.top, "publishing to"):
        with tx.task(f"Comparing {place.source} with {place.top}"):
            plan = planning.plan(place, request)
        record = plan.record if plan.is_done else _carry_out(tx, plan)
        return Result(not plan.is_done, details=_details(plan, record))


def _carry_out(tx: Transaction, plan: Plan) -> Record:
    """Do all of a plan; return the record of what is published then."""
    place = plan.place
    place.record_is(replace(plan.record, finished=False))
    failpoint("publish.begun")
    repo = archive.opened(place.repo)
    _copy_commits(tx, plan, repo)
    _sign(tx, plan, repo)
    record = _make_deltas(tx, plan, repo)
    new = [_write_image(tx, place, branch) for branch in plan.branches if branch.ref in plan.images]
    mounts.sync_file_system(place.top)
    failpoint("publish.written")
    signals.ignore()  # what follows takes little time, and is completed by the next one
    pairs = plan.keep_deltas | {pair for pair in plan.delta if (size := record.sizes(pair)) and size.saves}
    with tx.task(f"Publishing {', '.join(branch.ref for branch in plan.branches)}"):
        _switch(plan, repo, pairs, new)
    with tx.task("Removing what is not published any more"):
        _prune(plan, repo, pairs, new)
    judged = {name: size for name, size in record.deltas.items() if name.partition("-")[2] in plan.kept}
    record = replace(record, finished=True, deltas=judged)
    place.record_is(record)
    failpoint("publish.finished")
    return record


def _copy_commits(tx: Transaction, plan: Plan, repo: Repo) -> None:
    source = Repo.open(plan.place.source)
    for commit in plan.pull:
        with tx.task(f"Copying commit {commit[:12]}"):
            remotes.pull_local(repo, plan.place.source, commit, tx.report)
        failpoint("publish.commit-copied")
    for commit in plan.copy_signatures:
        signatures.copy(repo, source, commit)
        failpoint("publish.signatures-copied")


def _sign(tx: Transaction, plan: Plan, repo: Repo) -> None:
    for commit in plan.sign:
        with tx.task(f"Signing {commit[:12]} with {', '.join(plan.place.keys)}"):
            for key in plan.place.keys:
                signatures.sign(repo, commit, key, plan.place.homedir)
                failpoint("publish.commit-signed")


def _make_deltas(tx: Transaction, plan: Plan, repo: Repo) -> Record:
    """Make static deltas, and remove those again that save nothing; return the record with their sizes."""
    record = replace(plan.record, finished=False)
    for pair in plan.delta:
        names = " to ".join(commit[:12] for commit in pair)
        deltas.remove(repo, *pair)
        with tx.task(f"Making the static delta from {names}"):
            sizes = deltas.make(repo, *pair)
        failpoint("publish.delta-made")
        told = f"has {show_size(sizes.bytes)}; the objects that it replaces have {show_size(sizes.objects)}"
        if not sizes.saves:
            deltas.remove(repo, *pair)
        tx.message(f"The static delta {told}{'' if sizes.saves else ', so that it is left out'}.")
        record = replace(record, deltas={**record.deltas, "-".join(pair): sizes})
        plan.place.record_is(record)
        failpoint("publish.delta-recorded")
    return record


def _write_image(tx: Transaction, place: Place, branch: Branch) -> _Image:
    """Write the image of a ref's newest commit; its index is not there yet."""
    path = place.image(branch.ref)
    there = images.image_at(path, Form.OCI)
    before = oci.blobs_of(ociblobs.read_manifest(path)) if there else frozenset()
    request = ComposeImage(output=str(path), repo=str(place.repo), ref=branch.ref)
    with scratch.directory(place.top, _WORK_PREFIX) as work:
        with tx.task(f"Reading {branch.ref}"):
            output = Output(path, Form.OCI, there, there)
            job = images.plan(place.repo, branch.ref, request, output, commit=branch.newest)
        new = writing.write(tx, job, work / "image").path
        stay = before | oci.blobs_of(ociblobs.read_manifest(new))
        index = files.text_of(new / oci.INDEX_FILE)
        ociblobs.add_blobs(new, path)
    return _Image(path, index, stay)


def _switch(plan: Plan, repo: Repo, pairs: frozenset[Pair], new: Sequence[_Image]) -> None:
    """Name what is new. What a machine reads first is the summary, so that refs are written before it."""
    place = plan.place
    for ref, commit in plan.move.items():
        repo.set_ref(ref, commit)
        failpoint("publish.ref-written")
    if not plan.is_current or pairs != plan.keep_deltas:
        heads = {ref: commits[0] for ref, commits in plan.record.refs.items()}
        archive.write_summary(repo, heads, pairs, place.keys, place.homedir)
    for image in new:
        ociblobs.set_index(image.path, image.index)
        failpoint("publish.image-switched")
    mounts.sync_file_system(place.top)
    failpoint("publish.switched")


def _prune(plan: Plan, repo: Repo, pairs: frozenset[Pair], new: Sequence[_Image]) -> None:
    deltas.keep_only(repo, pairs)
    archive.keep_only(repo, plan.kept)
    failpoint("publish.pruned")
    for image in new:
        ociblobs.keep_only(image.path, image.stay)


def _details(plan: Plan, record: Record) -> dict[str, Any]:
    newest = {branch.newest for branch in plan.branches}
    pairs = sorted(tuple(name.split("-")) for name, size in record.deltas.items() if size.saves)
    return {
        "directory": str(plan.place.top),
        "refs": {
            branch.ref: {"commits": list(branch.commits), "image": _digest(plan.place, branch.ref)}
            for branch in plan.branches
        },
        "static-deltas": [
            {"from": old, "to": new, "bytes": size.bytes, "objects": size.objects}
            for old, new in pairs
            if new in newest and (size := record.sizes((old, new)))
        ],
        "pruned": sorted(plan.prune),
    }


def _digest(place: Place, ref: str) -> str | None:
    there = images.image_at(place.image(ref), Form.OCI)
    return there.digest if there else None
