"""Whether an image is reproducible: another worker makes it of its commit a second time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from apt_ostree.core.compose.image.planning import Job
from apt_ostree.core.compose.image.writing import Written
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused
from apt_ostree.model import reproduction
from apt_ostree.model.filestate import ABSENT, FileState, Type
from apt_ostree.model.image_screen import Header
from apt_ostree.model.oci import Compression, Descriptor, Form
from apt_ostree.model.reproduction import Difference
from apt_ostree.model.requests.images import ComposeImage
from apt_ostree.system import another_worker, tarreader
from apt_ostree.system.ocilayout import KeptLayout

#: Layers as the result of `compose image` has them: `name`, `digest`, `diff_id`.
Rows = Sequence[Mapping[str, Any]]


def require_reproducible(
    tx: Transaction, request: ComposeImage, job: Job, image: Written, source: tuple[Path, str]
) -> None:
    """Make an image a second time, beside the first, and compare the two.

    source: the repository and the ref.

    Raises Refused, naming layers and paths that differ, if it is not the same.
    """
    place = image.path.with_name("second")
    place.mkdir(mode=0o700)
    with tx.task("Making the image a second time"):
        result = another_worker.carry_out(
            ComposeImage.verb,
            _again(request, job, source, place / "image").to_json(),
            what="make the image a second time",
            place=place,
            source_date=job.facts.created,
        )
    if result["manifest"] == image.manifest.digest:
        tx.message(f"Two builds gave the same image, with the manifest {image.manifest.digest}")
        return
    first = [
        {"name": layer.name, "digest": layer.blob.digest, "diff_id": layer.diff_id} for layer in image.layers
    ]
    with tx.task("Comparing the two images"):
        raise _irreproducible(job, (image.path, first), (place / "image", result["layers"]))


def _again(request: ComposeImage, job: Job, source: tuple[Path, str], output: Path) -> ComposeImage:
    """Return the request for the second image; its layers are cut like those of the first."""
    previous = Path(request.previous).absolute() if request.previous else None
    if previous is None and job.output.previous:
        previous = job.output.path
    return replace(
        request,
        treefile=None,
        repo=str(source[0]),
        ref=source[1],
        cachedir=None,
        lockfiles=(),
        force=False,
        output=str(output),
        format=Form.OCI,
        previous=str(previous) if previous else None,
        verify=False,
    )


def _irreproducible(job: Job, first: tuple[Path, Rows], second: tuple[Path, Rows]) -> Refused:
    """Return the error for two images that differ. first, second: where they are, and their layers."""
    one, other = ({row["name"]: row for row in rows} for _path, rows in (first, second))
    names = [name for name in {**one, **other} if one.get(name) != _known(other, name)]
    details, reasons = [], list[dict[str, Any]]()
    for name in names:
        layers = [table.get(name) for table in (one, other)]
        if None in layers:
            details.append(f"layer {name}: only one of the images has it")
        elif layers[0] and layers[1] and layers[0]["diff_id"] == layers[1]["diff_id"]:
            details.append(f"layer {name}: the same content, compressed otherwise")
        else:
            details.append(f"layer {name}: other content")
        reasons.append({"layer": name, "text": details[-1]})
    found = [
        each
        for name in names
        if name in one and name in other and one[name]["diff_id"] != other[name]["diff_id"]
        for each in _differences(job.compression, (first[0], one[name]), (second[0], other[name]))
    ]
    return Refused(
        f"the image of {job.ref} is not reproducible: {len(names)} layers differ between two builds",
        details=[*(details or ["configuration or annotations"]), *reproduction.lines(found)],
        reasons=[*reasons, *(each.to_json() for each in found)],
        hint="nothing was written to the output",
    )


def _known(rows: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any] | None:
    row = rows.get(name)
    return {key: row[key] for key in ("name", "digest", "diff_id")} if row else None


def _differences(
    compression: Compression, first: tuple[Path, Mapping[str, Any]], second: tuple[Path, Mapping[str, Any]]
) -> Iterator[Difference]:
    one, other = (_members(compression, path, row) for path, row in (first, second))
    for path in sorted(one.keys() | other.keys()):
        states = one.get(path, ABSENT), other.get(path, ABSENT)
        if states[0] != states[1]:
            yield reproduction.compare(f"/{path}", *states)


def _members(compression: Compression, path: Path, row: Mapping[str, Any]) -> dict[str, FileState]:
    """Return path -> state of the members of a layer; the digest of its content stands for the content."""
    layer = Descriptor(compression.media_type, row["digest"], 0)
    with KeptLayout(path).opened(layer, compression, row["diff_id"]) as read:
        return {
            member.header.path: _state(member.header, member.chunks) for member in tarreader.members(read)
        }


def _state(header: Header, chunks: Iterator[bytes]) -> FileState:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    content = header.target.encode(errors="surrogateescape") or digest.hexdigest().encode()
    kind: Type = "file"
    if header.kind in ("symlink", "directory"):
        kind = header.kind
    return FileState(kind, header.mode, header.uid, header.gid, content, header.xattrs)
