"""The images that machines follow: what their names stand for now, and the commit of one that is fetched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from apt_ostree.core import image_import, trust
from apt_ostree.core.image_import import Fetched
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, Refused, UsageError
from apt_ostree.model import oci, oci_image
from apt_ostree.model.image_reference import ImageReference, Transport, is_digest
from apt_ostree.model.oci_image import Manifest
from apt_ostree.model.origin import Origin
from apt_ostree.model.refspec import Refspec
from apt_ostree.model.result import Result
from apt_ostree.model.sizes import show_size
from apt_ostree.system import ocilayout, skopeo, space
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ocilayout import KeptLayout, Note
from apt_ostree.system.ostree import image_refs

_OLDER = "'upgrade --allow-downgrade' takes it, and so does naming its digest; nothing was changed"
#: Name of a machine's kernel -> OCI's names of the architectures that it runs.
_MACHINES = {
    "x86_64": ("amd64", "386"),
    "i686": ("386",),
    "aarch64": ("arm64", "arm"),
    "armv7l": ("arm",),
    "ppc64le": ("ppc64le",),
    "riscv64": ("riscv64",),
    "s390x": ("s390x",),
    "loongarch64": ("loong64",),
}


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


def await_deployment(tx: Transaction, origin: Origin) -> None:
    """Keep the layers of an origin's image, which is deployed later, so that they are imported once."""
    if origin.image and origin.image_digest != tx.merge_deployment.origin.image_digest:
        image_refs.await_image(tx.sysroot.repo, origin.image_digest)


def followed(origin: Origin, reference: ImageReference, digest: str) -> Origin:
    """Return an origin that follows an image, of which it has the one with a digest."""
    return replace(origin, refspec="", unconfigured="", image=str(reference), image_digest=digest)


# --- fetch


def _present(tx: Transaction, reference: ImageReference, *, cache_only: bool) -> _Present:
    """Return what a name stands for now, or did when its image was fetched (cache_only)."""
    if cache_only and reference.transport is Transport.REGISTRY:
        return _Present(_noted(reference).digest)
    data = _looked_at(tx, reference)
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


def _looked_at(tx: Transaction, reference: ImageReference) -> bytes:
    """Return the manifest, or the index, that a name stands for; Refused for one of another format."""
    with tx.task(f"Looking at {reference.image}"):
        data = skopeo.manifest(reference, patience=tx.settings.stall_timeout)
    if reference.is_pinned and not reference.name.endswith(oci.digest_of(data)):
        raise ExternalFailure(
            f"the registry has another manifest for {reference.image}: {oci.digest_of(data)}",
            hint="try again; if that stays so, the registry or a mirror is damaged",
        )
    try:
        kind = oci_image.kind_of(data)
    except ValueError as error:
        raise ExternalFailure(f"{reference.image} has a manifest that cannot be read: {error}") from error
    if kind not in (oci.MANIFEST, oci.INDEX):
        raise Refused(
            f"{reference.image} is no OCI image, but {kind!r}",
            hint="'skopeo copy --format=oci' makes one of it, 'podman push --format=oci' pushes one",
        )
    return data


def _imported(tx: Transaction, reference: ImageReference, present: _Present, *, allow_older: bool) -> str:
    """Import an image, which is fetched if it has to be; return its commit."""
    tx.tidy_at_end()  # which drops what no deployment comes to need
    image = _cached(reference) if present.data is None else _fetched(tx, reference, present.data)
    if not allow_older:
        trust.refuse_older_image(tx, reference, image.config.created, _OLDER)
    commit = image_import.take_in(tx, image)
    if reference.remote:
        trust.require_signed(tx, Refspec(reference.remote, str(reference)), commit)
    if not allow_older:
        trust.refuse_older(tx, commit, _OLDER)
    return commit


def _fetched(tx: Transaction, reference: ImageReference, data: bytes) -> Fetched:
    """Fetch an image, which the policy has to accept. data: its manifest, or the index that it is of."""
    blobs, digest, policy = ocilayout.kept(), oci.digest_of(data), skopeo.policy_digest()
    with _usable(reference):
        is_index = oci_image.kind_of(data) == oci.INDEX
        possible = oci_image.read_index(data) if is_index else {digest}
        if not is_index:
            _require_room(reference, oci_image.read_manifest(data), blobs)
    with tx.task(f"Fetching {reference.image}"):
        try:
            skopeo.fetch(reference, blobs, patience=tx.settings.stall_timeout)
        finally:
            blobs.drop_leftovers()
    failpoint("import.fetched")
    trust.note_image(tx, reference, digest)
    with _usable(reference):
        name = blobs.named(skopeo.NAME)
        if name is None or name not in possible:
            raise ExternalFailure(
                f"{reference.image} became another image while it was fetched", hint="try again"
            )
        blobs.write_note(Note(str(reference), digest, name, policy))
        manifest = oci_image.read_manifest(blobs.text(name))
        blobs.keep_only(manifest.blobs)  # at once: images that are refused day by day would fill the disk
    return _image(reference, digest, manifest, blobs)


def _cached(reference: ImageReference) -> Fetched:
    """Return an image that was fetched before, by the policy of today."""
    note, blobs = _noted(reference), ocilayout.kept()
    if note.policy != skopeo.policy_digest():
        raise Refused(
            f"{reference.image} was fetched when {skopeo.POLICY} was another one",
            hint="leave --cache-only out, so that it is verified again; nothing was changed",
            concerns_trust=True,
        )
    if not blobs.has(note.manifest):
        raise _not_fetched(reference, "its manifest is missing")
    with _usable(reference):
        manifest = oci_image.read_manifest(blobs.text(note.manifest))
    if absent := blobs.missing((manifest.config, *manifest.layers)):
        raise _not_fetched(reference, f"{show_size(absent)} of it are missing")
    return _image(reference, note.digest, manifest, blobs)


def _image(reference: ImageReference, digest: str, manifest: Manifest, blobs: KeptLayout) -> Fetched:
    """Return an image that is in the layout. digest: see Fetched."""
    with _usable(reference):
        config = oci_image.read_config(blobs.text(manifest.config.digest), len(manifest.layers))
    _require_architecture(reference, config.architecture)
    return Fetched(reference, digest, manifest, config, blobs)


@contextmanager
def _usable(reference: ImageReference) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise Refused(f"{reference.image} cannot be used: {error}", hint="nothing was changed") from error


def _require_room(reference: ImageReference, manifest: Manifest, blobs: KeptLayout) -> None:
    """Raise Refused for an image that does not fit where it is fetched to."""
    needed, free = blobs.missing((manifest.config, *manifest.layers)), space.of(blobs.path).available
    if needed > free:
        raise Refused(
            f"{reference.image} does not fit into {blobs.path}: {show_size(needed)} have to be fetched, "
            f"and {show_size(free)} are free",
            hint="free some space there; nothing was changed",
        )


def _require_architecture(reference: ImageReference, architecture: str) -> None:
    machine = os.uname().machine
    if architecture not in ("all", *_MACHINES.get(machine, (architecture,))):
        raise Refused(
            f"{reference.image} is for {architecture}, and this machine is {machine}",
            hint="name an image for this architecture; nothing was changed",
        )
