"""Fetches images into a layout: what their names stand for, and their blobs, if the policy accepts them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from apt_ostree.core import trust
from apt_ostree.core.images.importing import Fetched
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, Refused
from apt_ostree.model import oci, oci_image
from apt_ostree.model.image_reference import ImageReference
from apt_ostree.model.oci_image import Manifest
from apt_ostree.model.sizes import show_size
from apt_ostree.system import ocilayout, skopeo, space
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ocilayout import KeptLayout, Note

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


def look_at(tx: Transaction, reference: ImageReference) -> bytes:
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


def fetch(
    tx: Transaction, reference: ImageReference, data: bytes, blobs: KeptLayout, present: Mapping[str, str]
) -> Fetched:
    """Fetch an image into a layout, without the blobs that are there, or whose layers are imported already.

    data: its manifest, or the index that it is of.
    present: of the latter blobs, digest -> diff_id.

    Raises Refused for one that the policy does not accept, or that no machine like this one can use, and
    ExternalFailure if it cannot be had.
    """
    digest, policy = oci.digest_of(data), skopeo.policy_digest()
    with blobs.standing_in(present):
        with usable(reference):
            is_index = oci_image.kind_of(data) == oci.INDEX
            possible = oci_image.read_index(data) if is_index else {digest}
            if not is_index:
                _require_room(reference, oci_image.read_manifest(data), blobs)
        with tx.task(f"Fetching {reference.image}"):
            skopeo.fetch(reference, blobs, patience=tx.settings.stall_timeout)
    failpoint("import.fetched")
    trust.note_image(tx, reference, digest)
    with usable(reference):
        name = blobs.named(skopeo.NAME)
        if name is None or name not in possible:
            raise ExternalFailure(
                f"{reference.image} became another image while it was fetched", hint="try again"
            )
        blobs.write_note(Note(str(reference), digest, name, policy))
        manifest = oci_image.read_manifest(blobs.text(name))
        blobs.keep_only(manifest.blobs)  # at once: images that are refused day by day would fill the disk
    image = image_of(reference, digest, manifest, blobs)
    for layer, diff_id in zip(manifest.layers, image.config.diff_ids, strict=True):
        if present.get(layer.digest, diff_id) != diff_id:
            raise ocilayout.of_another_content(layer)
    return image


def image_of(reference: ImageReference, digest: str, manifest: Manifest, blobs: KeptLayout) -> Fetched:
    """Return an image that is in the layout. digest: see Fetched."""
    with usable(reference):
        config = oci_image.read_config(blobs.text(manifest.config.digest), len(manifest.layers))
    _require_architecture(reference, config.architecture)
    return Fetched(reference, digest, manifest, config, blobs)


@contextmanager
def usable(reference: ImageReference) -> Iterator[None]:
    """Raise Refused for a ValueError: what the image has is not what it has to be."""
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
