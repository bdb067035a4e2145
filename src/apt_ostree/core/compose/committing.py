"""The last step of a compose: commits a tree to its ref, in one transaction of the repository."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apt_ostree.core.compose import composejson, inputs, publish, rootfs
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import layout, rootfs_record
from apt_ostree.model import treefile as treefiles
from apt_ostree.model.package import Package
from apt_ostree.model.requests.compose import OfCommit
from apt_ostree.model.result import Result
from apt_ostree.model.treefile import Treefile
from apt_ostree.system import dpkg_query, mmdebstrap, rootstate
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import commit
from apt_ostree.system.ostree import metadata as values
from apt_ostree.system.ostree import repo as repository
from apt_ostree.system.ostree.repo import Repo


@dataclass(frozen=True, slots=True)
class Job:
    """What to commit.

    tree: the merged treefile.
    ref: the ref to commit to.
    repo: the repository.
    timestamp: the time of the commit, in seconds since 1970.
    version: the version of the commit.
    keep_parent: whether the commit of the ref becomes the parent.
    parent: the commit that becomes the parent in place of that.
    composejson: the file that tells what was made, see core.compose.composejson.
    sign: signs the commit.
    """

    tree: Treefile
    ref: str
    repo: Path
    timestamp: int = 0
    version: str | None = None
    keep_parent: bool = True
    parent: str | None = None
    composejson: Path | None = None
    sign: Callable[[Repo, str], object] | None = None

    def at(self, timestamp: int) -> Job:
        """Return the job with the time of the commit, in seconds since 1970, and the version of that time."""
        return replace(self, timestamp=timestamp, version=_version_of(self.tree, timestamp))

    def tell(self, checksum: str, counts: Mapping[str, int]) -> None:
        """Write the file that tells what was made, if it is wanted. counts: of composejson.write."""
        if self.composejson:
            composejson.write(self.composejson, Repo.open(self.repo), self.ref, checksum, counts)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a tree comes from, for the commit's metadata.

    sources: a description of each archive.
    inputs: the digest of the inputs; None: other things than these have made it.
    """

    sources: Sequence[str]
    inputs: str | None


def require_repository(repo: str | None) -> Path:
    """Return the path of the repository; UsageError without one, Refused without root's rights."""
    if repo is None:
        raise UsageError("compose needs a repository", hint="name one with --repo=REPO")
    require_root()
    return Path(repo).absolute()


def require_root() -> None:
    """Raise Refused without root's rights."""
    if os.geteuid() != 0:
        raise Refused("composing a tree needs root", hint="run it with sudo")


def ref_of(tree: Treefile) -> str:
    """Return the ref that a treefile names."""
    return treefiles.expand(tree.ref or "", {"arch": mmdebstrap.native_architecture()})


def job_of(tree: Treefile, request: OfCommit) -> Job:
    """Return what a request says of the commit of a tree, without its time.

    Raises UsageError for what cannot be done, and Refused without root's rights.
    """
    repo = require_repository(request.repo)
    if request.static_delta:
        publish.require_archive(repo)
    return Job(
        tree,
        ref_of(tree),
        repo,
        keep_parent=request.keep_parent,
        parent=commit.parent_of(repo, request.parent),
        composejson=composejson.place(request.write_composejson),
        sign=publish.signing(request.sign, request.gpg_homedir),
    )


def _version_of(tree: Treefile, timestamp: int) -> str | None:
    date = time.strftime("%Y%m%d", time.gmtime(timestamp))
    variables = {"arch": mmdebstrap.native_architecture(), "date": date}
    return treefiles.expand(tree.version, variables) if tree.version else None


def commit_tree(tx: Transaction, job: Job, root: Path, origin: Origin, *, consume: bool) -> Result:
    """Commit a root directory in the form of a tree; consume: it is not needed any more.

    Raises Refused if there are files that a commit cannot hold.
    """
    refuse_special_files(root)
    packages = dpkg_query.installed(root / layout.DPKG_ADMINDIR)
    with tx.task(f"Committing to {job.ref}"):
        failpoint("compose.commit")
        written = commit.commit_directory(
            job.repo,
            root,
            job.ref,
            subject=f"{job.ref} {job.version or ''}".strip(),
            timestamp=job.timestamp,
            metadata=_metadata(job, root, packages, origin),
            keep_parent=job.keep_parent,
            parent=job.parent,
            sign=job.sign,
            consume=consume,
            leave_out=rootfs_record.NAME,
        )
    job.tell(written.checksum, written.counts)
    return result_of(job, written.checksum, len(packages), changed=written.changed)


def refuse_special_files(root: Path) -> None:
    """Raise Refused if there are files that a commit cannot hold."""
    if found := rootstate.special_files(root):
        raise Refused(
            f"the tree has {len(found)} files that are neither files nor directories nor links",
            details=found,
            hint="remove them, such as in a postprocess script",
        )


def result_of(job: Job, checksum: str | None, packages: int, *, changed: bool) -> Result:
    """Return the result of a compose. checksum: None: no commit is here. packages: their number."""
    version = job.version if checksum else None
    details = {"ref": job.ref, "commit": checksum, "version": version, "packages": packages}
    return Result(changed, details=details)


def _metadata(job: Job, root: Path, packages: Sequence[Package], origin: Origin) -> dict[str, Any]:
    metadata: dict[str, Any] = {key: values.of_json(value) for key, value in job.tree.metadata}
    metadata |= {
        layout.META_PACKAGES: repository.package_list(packages),
        layout.META_SOURCES: commit.texts(origin.sources),
        layout.META_TREEFILE: repository.text(inputs.canonical(treefiles.to_json(job.tree))),
        layout.META_KERNEL_ARGUMENTS: commit.texts(job.tree.kernel_arguments),
        "ostree.ref-binding": commit.texts([job.ref]),
    }
    if origin.inputs is not None:
        metadata[layout.META_INPUTS] = repository.text(origin.inputs)
    if job.version:
        metadata[layout.META_VERSION] = repository.text(job.version)
    kernel = rootfs.kernel_of(root)
    if kernel:
        metadata |= {"ostree.bootable": commit.flag(True), "ostree.linux": repository.text(kernel)}
    return metadata
