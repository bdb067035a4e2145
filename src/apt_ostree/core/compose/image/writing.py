"""Writes the blobs of an image: its layers, its configuration, its manifest."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.core.compose.image.planning import Job, Planned
from apt_ostree.core.transaction import Transaction
from apt_ostree.model import image_layers, oci
from apt_ostree.model.events import Progress
from apt_ostree.model.oci import Descriptor
from apt_ostree.system.ociblobs import ImageLayout
from apt_ostree.system.ostree import contents
from apt_ostree.system.tarstream import Member, TarStream

#: Between two reports of the progress.
_STEP = 4 << 20


@dataclass(frozen=True, slots=True)
class Written:
    """An image that is whole. path: the directory with its layout."""

    path: Path
    layers: tuple[oci.Layer, ...]
    manifest: Descriptor


def write(tx: Transaction, job: Job, path: Path) -> Written:
    """Write an image as a layout in a new directory. Raises ExternalFailure if the repository is damaged."""
    layout, count = ImageLayout(path), _Count(tx, f"Writing {len(job.layers)} layers", job.size)
    with tx.task(count.title):
        layers = tuple(_write_layer(job, planned, layout, count) for planned in job.layers)
    config = layout.add(oci.config(job.facts, layers), oci.CONFIG)
    manifest = layout.add(oci.manifest(job.facts, config, layers), oci.MANIFEST)
    layout.finish(oci.index(job.facts, manifest))
    return Written(path, layers, manifest)


class _Count:
    """Reports how many bytes of the files are written."""

    def __init__(self, tx: Transaction, title: str, total: int) -> None:
        self.title = title
        self._tx, self._total = tx, total
        self._done = self._told = 0

    def add(self, size: int) -> None:
        self._done += size
        if self._done - self._told >= _STEP:
            self._told = self._done
            self._tx.report(Progress(self.title, self._done, self._total))


def _write_layer(job: Job, planned: Planned, layout: ImageLayout, count: _Count) -> oci.Layer:
    with layout.writing(job.compression) as blob:
        tar, seen = TarStream(blob.write), dict[str, str]()
        for path in image_layers.with_parents(planned.layer.paths):
            count.add(_add(tar, job, path, seen))
        tar.finish()
    notes = {oci.LAYER: planned.layer.name, oci.CONTENT: planned.content}
    if planned.layer.sources:
        notes[oci.COMPONENTS] = ",".join(planned.layer.sources)
    described = Descriptor(job.compression.media_type, blob.stored_digest, blob.stored, notes)
    return oci.Layer(planned.layer.name, described, blob.digest)


def _add(tar: TarStream, job: Job, path: str, seen: dict[str, str]) -> int:
    """Write a path to a layer; return the bytes of its content.

    seen: file object -> its path in this layer. What has the same content and metadata is one file in a
    deployment, too.
    """
    if own := job.added.get(path):
        size = len(own.content) if own.type == "file" else 0
        tar.add(Member(path, own, size), io.BytesIO(own.content) if size else None)
        return size
    entry, repo = job.tree.entries[path], job.tree.repo
    if entry.is_directory:
        tar.add(Member(path, repo.directory_state(entry.checksum)))
        return 0
    with contents.opened(repo, entry.checksum) as file:
        link = seen.setdefault(entry.checksum, path) if file.size else path
        tar.add(Member(path, file.state, file.size, "" if link == path else link), file.stream)
        return file.size
