"""Reads the manifest and the configuration of an OCI image that is to be imported, and refuses what is odd.

Each function raises ValueError with a reason for what is not as the specification says (version 1.1).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from apt_ostree.model import oci
from apt_ostree.model.oci import Compression, Descriptor

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: The most that a runtime takes, and far more than one that is made here has.
_MOST_LAYERS = 500
_LARGEST_BLOB = 64 << 30
_REF_NAME = "org.opencontainers.image.ref.name"
_ENCAPSULATED = "ostree.final-diffid"  # of ostree's own exporter: the layers are an object store
_VERSION = "org.opencontainers.image.version"
_COMPRESSIONS = {one.media_type: one for one in Compression}


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of one image.

    digest: its own.
    text: its own.
    """

    digest: str
    text: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]

    @property
    def blobs(self) -> frozenset[str]:
        """The digests of all that belongs to the image, the manifest included."""
        return frozenset({self.digest, self.config.digest, *(layer.digest for layer in self.layers)})


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of an image.

    created: seconds since 1970; 0 if it does not say.
    diff_ids: the digest of each layer without compression.
    architecture: OCI's name.
    """

    text: str
    created: int
    diff_ids: tuple[str, ...]
    architecture: str
    version: str | None


@dataclass(frozen=True, slots=True)
class OwnCommit:
    """The commit that an image says it was made of. detached: b"" without any."""

    checksum: str
    object: bytes
    detached: bytes


def kind_of(data: bytes) -> str:
    """Return the media type of a manifest or an index."""
    value = _object(data)
    kind = value.get("mediaType")
    if kind is None:  # which the specification allows
        kind = oci.INDEX if "manifests" in value else oci.MANIFEST
    return str(kind)


def read_index(data: bytes) -> frozenset[str]:
    """Return the digests of the images of an index."""
    return frozenset(_descriptor(row, "an image").digest for row in _list(_object(data), "manifests"))


def named(index: bytes, name: str) -> str | None:
    """Return the digest of the image of a name in the index of a layout; None without one."""
    for row in _list(_object(index), "manifests"):
        notes = row.get("annotations") if isinstance(row, dict) else None
        if isinstance(notes, dict) and notes.get(_REF_NAME) == name:
            return _descriptor(row, "an image").digest
    return None


def read_manifest(data: bytes) -> Manifest:
    """Read a manifest."""
    value = _object(data)
    layers = tuple(_descriptor(row, "a layer") for row in _list(value, "layers"))
    if not 0 < len(layers) <= _MOST_LAYERS:
        raise ValueError(f"it has {len(layers)} layers")
    for layer in layers:
        compression_of(layer)
    config = _descriptor(value.get("config"), "the configuration")
    if config.media_type != oci.CONFIG:
        raise ValueError(f"its configuration is {config.media_type!r}, so that it is no image of a system")
    notes = value.get("annotations") or {}
    if not isinstance(notes, dict):
        raise ValueError("its annotations are no JSON object")  # noqa: TRY004  # of the text
    texts = {key: one for key, one in notes.items() if isinstance(one, str)}
    return Manifest(oci.digest_of(data), data.decode(), config, layers, texts)


def compression_of(layer: Descriptor) -> Compression:
    """Return the compression of a layer."""
    if layer.media_type not in _COMPRESSIONS:
        raise ValueError(f"a layer is {layer.media_type!r}")
    return _COMPRESSIONS[layer.media_type]


def read_config(data: bytes, layers: int) -> Config:
    """Read the configuration of an image of so many layers."""
    value = _object(data)
    rootfs = value.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(map(_is_digest, diff_ids)):
        raise ValueError("its configuration does not name its layers")
    if len(diff_ids) != layers:
        raise ValueError(f"its configuration names {len(diff_ids)} layers, of {layers}")
    if value.get("os") != "linux":
        raise ValueError(f"it is for the system {value.get('os')!r}")
    inner = value.get("config")
    labels = inner.get("Labels") if isinstance(inner, dict) else None
    labels = labels if isinstance(labels, dict) else {}
    if _ENCAPSULATED in labels:
        raise ValueError("a commit is encapsulated in it, and not a tree in plain layers")
    return Config(
        text=data.decode(),
        created=_seconds(value.get("created")),
        diff_ids=tuple(diff_ids),
        architecture=_shown("architecture", value.get("architecture")),
        version=_shown("version", labels.get(_VERSION) or "") or None,
    )


def own_commit(annotations: Mapping[str, str]) -> OwnCommit | None:
    """Return the commit that the annotations of a manifest have; None without one."""
    if oci.COMMIT not in annotations or oci.COMMIT_OBJECT not in annotations:
        return None
    try:
        data, detached = (
            base64.b64decode(annotations.get(key, ""), validate=True)
            for key in (oci.COMMIT_OBJECT, oci.COMMIT_DETACHED)
        )
    except binascii.Error as error:
        raise ValueError(f"its annotation of a commit is no base64: {error}") from error
    if oci.digest_of(data) != f"sha256:{annotations[oci.COMMIT]}":
        raise ValueError("its annotation of a commit is another one than it says")
    return OwnCommit(annotations[oci.COMMIT], data, detached)


def _shown(what: str, value: object) -> str:
    """Return a text that terminals are going to show."""
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"its {what} is {value!r}, which is no text of one line")
    return value


def _seconds(created: object) -> int:
    if created is None:
        return 0
    try:
        when = datetime.fromisoformat(str(created))
    except ValueError as error:
        raise ValueError(f"it was created at {created!r}, which is no time") from error
    return max(0, int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()))


def _descriptor(value: object, what: str) -> Descriptor:
    row = value if isinstance(value, dict) else {}
    digest, size = row.get("digest"), row.get("size")
    if not _is_digest(digest):
        raise ValueError(f"{what} has no digest of SHA-256")
    if not isinstance(size, int) or not 0 <= size <= _LARGEST_BLOB:
        raise ValueError(f"{what} has the size {size!r}")
    return Descriptor(str(row.get("mediaType")), str(digest), size)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and bool(_DIGEST.fullmatch(value))


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004  # of the text
    return value


def _list(value: Mapping[str, Any], key: str) -> list[Any]:
    rows = value.get(key)
    if not isinstance(rows, list):
        raise ValueError(f"it has no {key}")  # noqa: TRY004  # of the text
    return rows
