"""The last step of a compose: commits a tree to its ref, in one transaction of the repository."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apt_ostree.core.compose import inputs, rootfs
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import layout, rootfs_record
from apt_ostree.model import treefile as treefiles
from apt_ostree.model.package import Package
from apt_ostree.model.result import Result
from apt_ostree.model.treefile import Treefile
from apt_ostree.system import dpkg_query, mmdebstrap, rootstate
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import commit
from apt_ostree.system.ostree import repo as repository
from apt_ostree.system.ostree.repo import Repo


@dataclass(frozen=True, slots=True)
class Job:
    """What to commit.

    tree: the merged treefile.
    ref: the ref to commit to.
    version: the version of the commit.
    repo: the repository.
    timestamp: the time of the commit, in seconds since 1970.
    keep_parent: whether the commit of the ref becomes the parent.
    sign: signs the commit.
    """

    tree: Treefile
    ref: str
    version: str | None
    repo: Path
    timestamp: int
    keep_parent: bool = True
    sign: Callable[[Repo, str], object] | None = None


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


def version_of(tree: Treefile, timestamp: int) -> str | None:
    """Return the version of a commit of that time."""
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
            sign=job.sign,
            consume=consume,
            leave_out=rootfs_record.NAME,
        )
    return result_of(job, written.checksum, len(packages), changed=written.changed)


def refuse_special_files(root: Path) -> None:
    """Raise Refused if there are files that a commit cannot hold."""
    if found := rootstate.special_files(root):
        raise Refused(
            f"the tree has {len(found)} files that are neither files nor directories nor links",
            details=found,
            hint="remove them, such as in a postprocess script",
        )


def result_of(job: Job, checksum: str, packages: int, *, changed: bool) -> Result:
    """Return the result of a compose. packages: their number."""
    details = {"ref": job.ref, "commit": checksum, "version": job.version, "packages": packages}
    return Result(changed, details=details)


def _metadata(job: Job, root: Path, packages: Sequence[Package], origin: Origin) -> dict[str, Any]:
    metadata: dict[str, Any] = {key: repository.text(value) for key, value in job.tree.metadata}
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
