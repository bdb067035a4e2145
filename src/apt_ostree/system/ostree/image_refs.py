"""The refs of images in the repository and of their layers, which keep what deployments' images have."""

from __future__ import annotations

from collections.abc import Iterable

from apt_ostree.system.ostree.repo import Repo

_LAYERS = "apt-ostree/image/layer"
_IMAGES = "apt-ostree/image/manifest"
_AWAITED = "apt-ostree/image/awaited"
#: Metadata of an image's commit: the layers that it has, and the blobs that they came in, in the same order.
DIFF_IDS, BLOBS = "apt-ostree.diff-ids", "apt-ostree.blobs"


def of_layer(diff_id: str) -> str:
    """Return the ref of a layer."""
    return _ref(_LAYERS, diff_id)


def of_image(digest: str) -> str:
    """Return the ref of an image. digest: of its manifest or index."""
    return _ref(_IMAGES, digest)


def await_image(repo: Repo, digest: str) -> None:
    """Have the layers of an image stay until it is deployed; of one at a time. digest: "" is none."""
    commit = repo.local_ref(of_image(digest)) if digest else None
    repo.sync_refs(_AWAITED, {_ref(_AWAITED, digest): commit} if commit else {})


def blobs_in(repo: Repo) -> dict[str, str]:
    """Return the blobs whose layers are in the repository: digest -> diff_id."""
    layers = repo.refs(_LAYERS).keys()
    rows = map(repo.metadata, repo.refs(_IMAGES).values())
    pairs = (pair for row in rows for pair in zip(row.get(BLOBS, ()), row[DIFF_IDS], strict=False))
    return {blob: diff_id for blob, diff_id in pairs if of_layer(diff_id) in layers}


def of(repo: Repo, digest: str) -> tuple[str, ...]:
    """Return the refs of an image and of its layers, sorted; () if the repository does not have it.

    digest: of its manifest or index; "" is none.
    """
    commit = repo.local_ref(of_image(digest)) if digest else None
    if commit is None:
        return ()
    layers = {of_layer(diff_id) for diff_id in repo.metadata(commit)[DIFF_IDS]}
    return (of_image(digest), *sorted(layers & repo.refs(_LAYERS).keys()))


def sync(repo: Repo, digests: Iterable[str]) -> None:
    """Keep the refs of these images, of the one that is awaited and of their layers, and remove all others.

    One of these is awaited no more.
    """
    wanted = {of_image(digest) for digest in digests if digest}
    awaited = {
        ref: commit
        for ref, commit in repo.refs(_AWAITED).items()
        if ref.replace(_AWAITED, _IMAGES) not in wanted
    }
    wanted |= {ref.replace(_AWAITED, _IMAGES) for ref in awaited}
    images = {ref: commit for ref, commit in repo.refs(_IMAGES).items() if ref in wanted}
    layers = {
        of_layer(diff_id) for commit in images.values() for diff_id in repo.metadata(commit).get(DIFF_IDS, ())
    }
    kept = {ref: commit for ref, commit in repo.refs(_LAYERS).items() if ref in layers}
    repo.sync_refs(_AWAITED, awaited)
    repo.sync_refs(_LAYERS, kept)
    repo.sync_refs(_IMAGES, images)


def _ref(kind: str, digest: str) -> str:
    return f"{kind}/{digest.partition(':')[2]}"
