"""The images that machines follow: what their names stand for now, and the commit of one that is fetched."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from apt_ostree.core import trust
from apt_ostree.core.images import fetching, importing
from apt_ostree.core.images.importing import Fetched
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import oci, oci_image
from apt_ostree.model.image_reference import ImageReference, Transport, is_digest
from apt_ostree.model.origin import Origin
from apt_ostree.model.refspec import Refspec
from apt_ostree.model.result import Result
from apt_ostree.model.sizes import show_size
from apt_ostree.system import ocilayout, skopeo
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ocilayout import Note
from apt_ostree.system.ostree import image_refs

_OLDER = "'upgrade --allow-downgrade' takes it, and so does naming its digest; nothing was changed"


@dataclass(frozen=True, slots=True)
class _Present:
    """What a name stands for.

    digest: of a manifest, or of an index of several.
    data: the same as text; None if the image is taken from what was fetched before.
    """

    digest: str
    data: bytes | None = None


def take(
    tx: Transaction, origin: Origin, reference: ImageReference, *, cache_only: bool
) -> tuple[Origin, str]:
    """Fetch an image, which an origin is to follow from now on; return the new origin and the commit.

    cache_only: take it from what was fetched before, without the network.

    Raises Refused for an image that is not verified as it has to be, that no machine can use, or that was not
    fetched (cache_only), and ExternalFailure if it cannot be had.
    """
    trust.require_image_policy(tx, reference)
    present = _present(tx, reference, cache_only=cache_only)
    commit = _imported(tx, reference, present, allow_older=True)
    return followed(origin, reference, present.digest), commit


def newest(
    tx: Transaction, origin: Origin, *, cache_only: bool, allow_older: bool
) -> tuple[Origin, str | None]:
    """Fetch what the image of an origin stands for now; return the new origin and the commit.

    The commit is None if that is what the origin has. For cache_only see `take`.

    Raises what `take` does, and Refused for an older image unless `allow_older` is set.
    """
    reference = ImageReference.parse(origin.image)
    present = _present(tx, reference, cache_only=cache_only)
    if present.digest == origin.image_digest:
        return origin, None
    trust.require_image_policy(tx, reference)
    commit = _imported(tx, reference, present, allow_older=allow_older)
    return followed(origin, reference, present.digest), commit


def revision(tx: Transaction, origin: Origin, digest: str, *, cache_only: bool) -> tuple[Origin, str]:
    """Fetch another image of the repository that an origin follows; return the new origin and the commit.

    cache_only: see `take`.

    Raises UsageError for what is no digest, and what `take` does.
    """
    if not is_digest(digest):
        raise UsageError(
            f"{digest!r} is no revision of the image that is followed",
            hint="name its digest, sha256:..., or another image with 'apt-ostree rebase'",
        )
    reference = ImageReference.parse(origin.image)
    pinned, commit = take(tx, origin, reference.at(digest), cache_only=cache_only)
    return replace(pinned, image=origin.image), commit


def awaiting(tx: Transaction, *, cache_only: bool) -> Result | None:
    """Return what there is to say if the image that is followed is another one now; else None.

    Nothing is fetched but its manifest: which packages differ is not known before.
    """
    origin = tx.merge_deployment.origin
    if not origin.image:
        return None
    reference = ImageReference.parse(origin.image)
    digest = _present(tx, reference, cache_only=cache_only).digest
    if digest == origin.image_digest:
        return None
    tx.message(f"{reference.image} is another image now: {digest}")
    image = {"reference": str(reference), "digest": digest}
    details = {"transaction": None, "commit": None, "staged": False, "image": image}
    return Result(changed=True, details=details)


def followed(origin: Origin, reference: ImageReference, digest: str) -> Origin:
    """Return an origin that follows an image, of which it has the one with a digest."""
    return replace(origin, refspec="", unconfigured="", image=str(reference), image_digest=digest)


# --- fetch


def _present(tx: Transaction, reference: ImageReference, *, cache_only: bool) -> _Present:
    """Return what a name stands for now, or did when its image was fetched (cache_only)."""
    if cache_only and reference.transport is Transport.REGISTRY:
        return _Present(_noted(reference).digest)
    data = fetching.look_at(tx, reference)
    return _Present(oci.digest_of(data), data)


def _noted(reference: ImageReference) -> Note:
    """Return what is noted of the image that was fetched last, which has to be that of a name."""
    note = ocilayout.kept().note()
    if note is None:
        raise _not_fetched(reference, "no image is")
    before = ImageReference.parse(note.reference)
    is_same = before == reference
    if not is_same and before.transport is Transport.REGISTRY and reference.is_pinned:
        is_same = before.at(note.digest) == reference
    if not is_same:
        raise _not_fetched(reference, f"the one that was fetched last is {before} ({note.digest[:19]})")
    return note


def _not_fetched(reference: ImageReference, reason: str) -> Refused:
    return Refused(
        f"{reference.image} is not in the cache",
        details=[reason],
        hint="leave --cache-only out to fetch it, or do so before with --download-only; nothing was changed",
    )


def _imported(tx: Transaction, reference: ImageReference, present: _Present, *, allow_older: bool) -> str:
    """Import an image, which is fetched if it has to be; return its commit."""
    tx.tidy_at_end()  # which drops what no deployment comes to need
    blobs = image_refs.blobs_in(tx.sysroot.repo)
    if present.data is None:
        image = _cached(reference, blobs)
    else:
        image = fetching.fetch(tx, reference, present.data, ocilayout.kept(), blobs)
    if not allow_older:
        trust.refuse_older_image(tx, reference, image.config.created, _OLDER)
    commit = importing.take_in(tx, tx.sysroot.repo, image)
    if reference.remote:
        trust.require_signed(tx, Refspec(reference.remote, str(reference)), commit)
    if not allow_older:
        trust.refuse_older(tx, commit, _OLDER)
    # Whether it is deployed now, later, or was only to be seen: it is neither fetched nor imported again.
    image_refs.await_image(tx.sysroot.repo, image.digest)
    failpoint("import.awaited")
    image.blobs.keep_only({image.manifest.digest, image.manifest.config.digest})
    return commit


def _cached(reference: ImageReference, imported: Collection[str]) -> Fetched:
    """Return an image that was fetched before, by the policy of today.

    imported: the digests of the blobs whose layers the repository has.
    """
    note, blobs = _noted(reference), ocilayout.kept()
    if note.policy != skopeo.policy_digest():
        raise Refused(
            f"{reference.image} was fetched when {skopeo.POLICY} was another one",
            hint="leave --cache-only out, so that it is verified again; nothing was changed",
            concerns_trust=True,
        )
    if not blobs.has(note.manifest):
        raise _not_fetched(reference, "its manifest is missing")
    with fetching.usable(reference):
        manifest = oci_image.read_manifest(blobs.text(note.manifest))
    needed = (layer for layer in manifest.layers if layer.digest not in imported)
    if absent := blobs.missing((manifest.config, *needed)):
        raise _not_fetched(reference, f"{show_size(absent)} of it are missing")
    return fetching.image_of(reference, note.digest, manifest, blobs)
