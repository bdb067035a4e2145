"""Whether a disk image is reproducible: another worker makes it of its commit a second time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from apt_ostree.core.compose.disk.planning import Job
from apt_ostree.core.compose.disk.sources import name_of
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused
from apt_ostree.model import reproduction
from apt_ostree.model.diskimage import Layout
from apt_ostree.model.requests.images import ComposeDisk, ImageFormat
from apt_ostree.system import another_worker

_CHUNK = 1 << 20


def build_again(tx: Transaction, request: ComposeDisk, job: Job, work: Path) -> Path:
    """Make a raw image of the same commit a second time, in a new directory below `work`; return its path."""
    place = work / "second"
    place.mkdir(mode=0o700)
    # An image is fetched again, as the machine is to follow it.
    repo, ref = (None, None) if request.image else (str(job.source.repo), job.source.origin.refspec)
    again = replace(
        request,
        treefile=None,
        repo=repo,
        ref=ref,
        output=str(place / "disk.raw"),
        format=ImageFormat.RAW,
        ssh_key=str(Path(request.ssh_key).absolute()) if request.ssh_key else None,
        force=False,
        verify=False,
    )
    with tx.task("Making the disk image a second time"):
        another_worker.carry_out(
            ComposeDisk.verb,
            again.to_json(),
            what="make the disk image a second time",
            place=place,
            source_date=job.timestamp,
        )
    return Path(again.output)


def require_same_disk(job: Job, first: Path, second: Path) -> None:
    """Raise Refused, naming the partitions that differ, unless two raw images are the same."""
    found = [
        (name, place)
        for name, begin, end in _parts(job.disk)
        if (place := _first_difference(first, second, begin, end)) is not None
    ]
    if found or first.stat().st_size != second.stat().st_size:
        raise Refused(
            f"the disk image of {name_of(job.source)} is not reproducible: two builds differ",
            details=[f"{name}: from byte {place}" for name, place in found] or ["the size"],
            reasons=[{"part": name, "byte": place} for name, place in found],
            hint="nothing was written to the output",
        )


def require_same_file(tx: Transaction, job: Job, first: Path, second: Path) -> str:
    """Return the SHA-256 of two files with the image; raise Refused if they are not the same."""
    digests = []
    for path in (first, second):
        with path.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if len({*digests}) > 1:
        raise Refused(
            f"the disk image of {name_of(job.source)} is not reproducible: one disk was written in two ways",
            details=digests,
            hint="nothing was written to the output",
        )
    tx.message(f"Two builds gave the same disk image, with the SHA-256 {digests[0]}")
    return digests[0]


def _parts(disk: Layout) -> Iterator[tuple[str, int, int]]:
    """Yield name, begin and end of each part of a disk, in bytes."""
    end = 0
    for partition in disk.partitions:
        if partition.start > end:
            between = "between partitions" if end else "the partition table and the boot sector"
            yield between, end, partition.start
        end = partition.start + partition.size
        yield f"the partition {partition.name}", partition.start, end
    yield "the copy of the partition table", end, disk.size


def _first_difference(first: Path, second: Path, begin: int, end: int) -> int | None:
    """Return the first byte that differs in a part of two files, counted from its begin; None without one."""
    with first.open("rb") as one, second.open("rb") as other:
        one.seek(begin)
        other.seek(begin)
        for place in range(0, end - begin, _CHUNK):
            size = min(_CHUNK, end - begin - place)
            pieces = one.read(size), other.read(size)
            if pieces[0] != pieces[1]:
                return place + reproduction.first_difference(*pieces)
    return None
