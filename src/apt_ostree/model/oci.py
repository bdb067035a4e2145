"""OCI images: manifest, configuration and index as JSON, the previous image, and the keys that are ours.

The formats are those of https://github.com/opencontainers/image-spec, version 1.1. The same values give the
same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"

#: Files of an image layout beside its blobs.
INDEX_FILE = "index.json"
LAYOUT_FILE = "oci-layout"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'

#: Our annotations of the manifest: the commit's checksum, and what it takes to have the same commit again
#: after an import, in base64: its object, and its detached metadata (signatures) if it has some.
COMMIT = "org.debian.aptostree.commit"
COMMIT_OBJECT = "org.debian.aptostree.commit-object"
COMMIT_DETACHED = "org.debian.aptostree.commit-detached"
#: Our annotations of a layer: its name (model.image_layers), and a digest of what it has, by which the next
#: image knows whether that has changed.
LAYER = "org.debian.aptostree.layer"
CONTENT = "org.debian.aptostree.content"
#: rpm-ostree's annotation of a layer: the source packages in it.
COMPONENTS = "ostree.components"

_VERSION = "org.opencontainers.image.version"
_CREATED = "org.opencontainers.image.created"
#: Strings of the commit's metadata whose key begins so become labels.
_LABELS = "org.opencontainers.image."

#: Debian's name of an architecture -> that of OCI, which is Go's, and its variant.
_ARCHITECTURES: Mapping[str, tuple[str, str]] = {
    "i386": ("386", ""),
    "arm64": ("arm64", "v8"),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v5"),
    "mips64el": ("mips64le", ""),
    "ppc64el": ("ppc64le", ""),
    "loong64": ("loong64", ""),
}


class Form(StrEnum):
    """What an image is written to: a directory, or a file with a tar of one."""

    OCI = "oci"
    ARCHIVE = "oci-archive"


class Compression(StrEnum):
    """The compression of the layers."""

    ZSTD = "zstd"
    GZIP = "gzip"
    NONE = "none"

    @property
    def media_type(self) -> str:
        """The media type of a layer."""
        return _LAYER if self is Compression.NONE else f"{_LAYER}+{self}"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What refers to a blob.

    digest: "sha256:" and hexadecimal digits.
    size: in bytes.
    """

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the descriptor as a JSON object."""
        more = {"annotations": dict(self.annotations)} if self.annotations else {}
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size, **more}


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of an image.

    name: see model.image_layers.
    blob: its descriptor.
    diff_id: the digest of the tar without compression.
    """

    name: str
    blob: Descriptor
    diff_id: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What an image says of itself.

    architecture: Debian's name.
    created: seconds since 1970.
    labels: of the configuration.
    annotations: of the manifest.
    """

    architecture: str
    created: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Previous:
    """The manifest of an image that is there.

    digest: of the manifest.
    contents: name of a layer -> CONTENT of it, where the image is one of ours.
    blobs: the digests of its layers.
    commit: COMMIT and COMMIT_DETACHED of it, "" without.
    """

    digest: str
    contents: Mapping[str, str] = field(default_factory=dict)
    blobs: frozenset[str] = frozenset()
    commit: tuple[str, str] = ("", "")


def labels(
    kernel: str, version: str | None, created: int, metadata: Mapping[str, Any], given: Mapping[str, str]
) -> dict[str, str]:
    """Return the labels of an image.

    kernel: its version; "" without one.
    metadata: of the commit.
    given: labels of the caller, which win.
    """
    # No label says that a commit is encapsulated (ostree.final-diffid): these are plain layers of a tree.
    found = {"containers.bootc": "1", _CREATED: _time(created)}
    if kernel:
        found |= {"ostree.bootable": "true", "ostree.linux": kernel}
    if version:
        found[_VERSION] = version
    found |= {k: v for k, v in metadata.items() if k.startswith(_LABELS) and isinstance(v, str)}
    return {**found, **given}


def commit_annotations(commit: str, commit_object: bytes, detached: bytes) -> dict[str, str]:
    """Return the annotations by which an import can have the same commit. detached: b"" without any."""
    found = {COMMIT: commit, COMMIT_OBJECT: base64.b64encode(commit_object).decode()}
    return found | ({COMMIT_DETACHED: base64.b64encode(detached).decode()} if detached else {})


def config(facts: Facts, layers: Sequence[Layer]) -> bytes:
    """Return the configuration of an image."""
    created = _time(facts.created)
    value = {
        "created": created,
        **_platform(facts.architecture),
        "config": {
            "Cmd": ["/sbin/init"],
            "StopSignal": "SIGRTMIN+3",  # how systemd is asked to power a container off
            "Labels": dict(facts.labels),
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": created, "created_by": layer.name} for layer in layers],
    }
    return to_bytes(value)


def manifest(facts: Facts, configuration: Descriptor, layers: Sequence[Layer]) -> bytes:
    """Return the manifest of an image."""
    value = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": configuration.to_json(),
        "layers": [layer.blob.to_json() for layer in layers],
        "annotations": dict(facts.annotations),
    }
    return to_bytes(value)


def index(facts: Facts, described: Descriptor) -> bytes:
    """Return the index of an image layout with one image. described: its manifest."""
    entry = described.to_json() | {"platform": _platform(facts.architecture)}
    return to_bytes({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})


def read_index(data: bytes) -> tuple[str, ...]:
    """Return the digests of the manifests of an image layout; ValueError for what is no JSON."""
    return tuple(str(row.get("digest")) for row in _objects(data, "manifests"))


def read_manifest(data: bytes) -> Previous:
    """Return the manifest of an image, which may be of another program; ValueError for something else."""
    rows = _objects(data, "layers")
    if not rows:
        raise ValueError("it has no layers")
    notes = [row.get("annotations") for row in rows]
    ours = [note for note in notes if isinstance(note, dict) and LAYER in note]
    contents = {str(note[LAYER]): str(note.get(CONTENT)) for note in ours}
    own = json.loads(data).get("annotations")
    own = own if isinstance(own, dict) else {}
    commit = (str(own.get(COMMIT, "")), str(own.get(COMMIT_DETACHED, "")))
    return Previous(digest_of(data), contents, frozenset(str(row.get("digest")) for row in rows), commit)


def blobs_of(data: bytes) -> frozenset[str]:
    """Return the digests of all blobs of an image: its manifest, which is given, configuration and layers.

    Raises ValueError for something else than a manifest.
    """
    value = json.loads(data)
    config = value.get("config") if isinstance(value, dict) else None
    rows = [*_objects(data, "layers"), *([config] if isinstance(config, dict) else [])]
    return frozenset({digest_of(data), *(str(row.get("digest")) for row in rows)})


def digest_of(data: bytes) -> str:
    """Return the digest of a blob."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def to_bytes(value: Any) -> bytes:
    """Return JSON that is the same for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _objects(data: bytes, key: str) -> list[dict[str, Any]]:
    """Return the objects in a list of a JSON object; none if it has no such list."""
    value = json.loads(data)
    rows = value.get(key) if isinstance(value, dict) else ()
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _platform(architecture: str) -> dict[str, str]:
    name, variant = _ARCHITECTURES.get(architecture, (architecture, ""))
    return {"architecture": name, "os": "linux", **({"variant": variant} if variant else {})}


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
