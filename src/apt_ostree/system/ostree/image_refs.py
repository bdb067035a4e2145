"""The refs of images in the repository and of their layers, which keep what deployments' images have."""

from __future__ import annotations

from collections.abc import Iterable

from apt_ostree.system.ostree.repo import Repo

_LAYERS = "apt-ostree/image/layer"
_IMAGES = "apt-ostree/image/manifest"
#: Metadata of an image's commit: the layers that it has.
DIFF_IDS = "apt-ostree.diff-ids"


def of_layer(diff_id: str) -> str:
    """Return the ref of a layer."""
    return _ref(_LAYERS, diff_id)


def of_image(digest: str) -> str:
    """Return the ref of an image. digest: of its manifest or index."""
    return _ref(_IMAGES, digest)


def sync(repo: Repo, digests: Iterable[str]) -> None:
    """Keep the refs of these images and of their layers, and remove all others."""
    present = repo.refs(_IMAGES)
    wanted = {of_image(digest) for digest in digests if digest}
    images = {ref: commit for ref, commit in present.items() if ref in wanted}
    layers = {
        of_layer(diff_id) for commit in images.values() for diff_id in repo.metadata(commit).get(DIFF_IDS, ())
    }
    kept = {ref: commit for ref, commit in repo.refs(_LAYERS).items() if ref in layers}
    repo.sync_refs(_LAYERS, kept)
    repo.sync_refs(_IMAGES, images)


def _ref(kind: str, digest: str) -> str:
    return f"{kind}/{digest.partition(':')[2]}"
