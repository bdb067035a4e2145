"""The /usr of any commit as overlayfs lower directories, without checking the whole tree out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from apt_ostree.errors import Refused
from apt_ostree.system import scratch
from apt_ostree.system.ostree import diff, layers
from apt_ostree.system.ostree.sysroot import Sysroot


@contextlib.contextmanager
def usr_of(sysroot: Sysroot, commit: str) -> Iterator[tuple[Path, ...]]:
    """Yield the lower directories of a commit's /usr, the topmost first.

    If the commit is deployed, this is the deployment's /usr. Otherwise it is the /usr of another deployment
    below a layer with the differences, so that the cost depends on the differences alone. Raises Refused if
    there is no deployment.
    """
    deployments = sysroot.deployments().all
    for deployment in deployments:
        if deployment.checksum == commit and deployment.unlocked != "hotfix":
            yield (sysroot.directory(deployment) / "usr",)
            return
    if not deployments:
        raise Refused("there is no deployment to start from")
    nearest = deployments[0]
    changes = diff.diff_commits(sysroot.repo, nearest.checksum, commit)
    base = sysroot.directory(nearest) / "usr"
    if changes is None:
        yield (base,)
        return
    layer = layers.write_layer(sysroot.repo, changes, subject=f"difference to {commit}")
    with scratch.directory(sysroot.state_dir / "work", "tree-") as directory:
        yield (layers.check_out(sysroot.repo, layer, directory), base)
