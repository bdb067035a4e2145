"""Writes the blobs of an image: its layers, its configuration, its manifest."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.core.compose.image.planning import Job, Planned
from apt_ostree.core.transaction import Transaction
from apt_ostree.model import oci
from apt_ostree.model.events import Progress
from apt_ostree.model.oci import Descriptor
from apt_ostree.system.ociblobs import ImageLayout
from apt_ostree.system.ostree import contents
from apt_ostree.system.tarstream import Member, Source, TarStream

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
        tar = TarStream(blob.write)
        for member in planned.members:
            with _opened(job, member) as source:
                tar.add(member, source)
            count.add(member.size)
        tar.finish()
    notes = {oci.LAYER: planned.layer.name, oci.CONTENT: planned.content}
    if planned.layer.sources:
        notes[oci.COMPONENTS] = ",".join(planned.layer.sources)
    described = Descriptor(job.compression.media_type, blob.stored_digest, blob.stored, notes)
    return oci.Layer(planned.layer.name, described, blob.digest)


@contextmanager
def _opened(job: Job, member: Member) -> Iterator[Source | None]:
    """Yield what reads the content of a member; None for one that has none."""
    if member.link or member.state.type != "file":
        yield None
    elif own := job.added.get(member.path):
        yield io.BytesIO(own.content)
    else:
        with contents.opened(job.tree.repo, job.tree.entries[member.path].checksum) as file:
            yield file.stream
