"""`compose image`: a container image (OCI) of a commit, in layers that follow its source packages.

The image is made in a directory beside the output, which gets its name when it is whole. The same commit and
the same options give the same bytes.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apt_ostree.core.compose import tree as trees
from apt_ostree.core.compose.image import planning, verifying, writing
from apt_ostree.core.compose.image.planning import Job, Output
from apt_ostree.core.compose.image.writing import Written
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure
from apt_ostree.model.events import PlanShown
from apt_ostree.model.oci import Form
from apt_ostree.model.requests.compose import ComposeTree
from apt_ostree.model.requests.images import ComposeImage
from apt_ostree.model.result import Result
from apt_ostree.model.sizes import show_size
from apt_ostree.system import exchange, mounts, ociblobs, scratch, signals
from apt_ostree.system.failpoints import failpoint

_WORK_PREFIX = ".apt-ostree-image-"
_FULL = (errno.ENOSPC, errno.EDQUOT)


def compose_image(tx: Transaction, request: ComposeImage) -> Result:
    """Compose an image.

    Returns the plan (`ref`, `commit`, `output`, `format`, `compression`, `bytes`, `layers`) and, unless
    `dry_run`, the digest of the `manifest`, the `size` of all layers, and that of those that the previous
    image does not have (`new_size`); with `verify`, that digest as `verified`. Raises UsageError for an error
    in the request, Refused if a precondition is not met or if it is not reproducible (verify), and
    ExternalFailure if a step fails. Until all is done, the output is what it was.
    """
    output = planning.check_request(request)
    if request.dry_run:
        job = _plan(tx, Path(request.repo or "").absolute(), request.ref or "", request, output)
        return Result(changed=job.differs, details=job.to_json())
    with scratch.directory(output.path.parent, _WORK_PREFIX) as work:
        repo, ref = _source(tx, request, work)
        job = _plan(tx, repo, ref, request, output)
        with _explained(job):
            image = writing.write(tx, job, work / "image")
            if request.verify:
                verifying.require_reproducible(tx, request, job, image, (repo, ref))
            if image.manifest.digest != (output.there and output.there.digest):
                _place(tx, job, image, work)
    return _result(job, image, verified=request.verify)


def _source(tx: Transaction, request: ComposeImage, work: Path) -> tuple[Path, str]:
    """Return the repository and the ref; the tree of a treefile is composed first."""
    repo = Path(request.repo).absolute() if request.repo else work / "repo"
    if not request.treefile:
        return repo, request.ref or ""
    wanted = ComposeTree(
        treefile=request.treefile,
        repo=str(repo),
        ref=request.ref,
        cachedir=request.cachedir,
        lockfiles=request.lockfiles,
        force=request.force,
        verify=request.verify,
    )
    return repo, str(trees.compose_tree(tx, wanted).details["ref"])


def _plan(tx: Transaction, repo: Path, ref: str, request: ComposeImage, output: Output) -> Job:
    with tx.task(f"Reading {ref}"):
        job = planning.plan(repo, ref, request, output)
    tx.report(PlanShown("image", job.to_json()))
    return job


@contextmanager
def _explained(job: Job) -> Iterator[None]:
    """Say what is to be done if the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        parent = job.output.path.parent
        raise ExternalFailure(
            f"the image does not fit into {parent}: {error.strerror}",
            hint=f"free some space there; the tree has {show_size(job.size)} before compression",
        ) from error


def _place(tx: Transaction, job: Job, image: Written, work: Path) -> None:
    """Give the image its name, once all of it is on the disk."""
    target, new = job.output.path, image.path
    with tx.task(f"Placing the image at {target}"):
        if job.output.form is Form.ARCHIVE:
            new = work / "archive"
            ociblobs.pack(image.path, new)
        failpoint("image.written")
        mounts.sync_file_system(work)
        signals.ignore()  # what follows is done at once, and cannot be undone
        if job.output.form is Form.OCI and target.exists():
            exchange.exchange(new, target)
        else:
            new.replace(target)
        failpoint("image.placed")
        mounts.sync_file_system(target.parent)


def _result(job: Job, image: Written, *, verified: bool) -> Result:
    there, previous = job.output.there, job.output.previous
    blobs = previous.blobs if previous else frozenset()
    rows = [
        planned.to_json()
        | {
            "digest": layer.blob.digest,
            "diff_id": layer.diff_id,
            "size": layer.blob.size,
            "reused": layer.blob.digest in blobs,
        }
        for planned, layer in zip(job.layers, image.layers, strict=True)
    ]
    details = job.to_json() | {
        "layers": rows,
        "manifest": image.manifest.digest,
        "size": sum(layer.blob.size for layer in image.layers),
        "new_size": sum(row["size"] for row in rows if not row["reused"]),
    }
    details |= {"verified": image.manifest.digest} if verified else {}
    return Result(changed=image.manifest.digest != (there and there.digest), details=details)
