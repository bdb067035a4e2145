"""OCI image layouts: blobs in a directory, each under its digest, and the same in one tar archive.

It knows no more of an image than where its blobs are; model.oci has what is in them.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from apt_ostree.errors import UsageError
from apt_ostree.model import oci
from apt_ostree.model.filestate import FileState
from apt_ostree.model.oci import Compression, Descriptor
from apt_ostree.system import files
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.tarstream import Member, TarStream

if TYPE_CHECKING:  # the library is loaded when it is used
    from apt_ostree.system.zstd import Compressor

_BLOBS = "blobs/sha256"
_NEW = ".new"
_GZIP_LEVEL, _GZIP_FORMAT = 6, 31  # see zlib's deflateInit2(): a header of gzip, without time and name
_DIRECTORY, _FILE = FileState("directory", 0o755), FileState("file", 0o644)
#: No file but a blob is as large.
_LARGEST_TEXT = 64 << 20


class _Uncompressed:
    """Stands for a compressor."""

    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


class BlobWriter:
    """A blob that is being written, with compression; what it says of it is true at the end.

    size: in bytes before compression.
    stored: in bytes as a blob.
    """

    def __init__(self, stream: IO[bytes], compression: Compression) -> None:
        self.size = 0
        self.stored = 0
        self._stream = stream
        self._compressor = _compressor(compression)
        self._plain, self._packed = hashlib.sha256(), hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Write a piece."""
        self.size += len(data)
        self._plain.update(data)
        self._store(self._compressor.compress(data))

    def finish(self) -> None:
        """Write the end."""
        self._store(self._compressor.flush())

    @property
    def digest(self) -> str:
        """The digest before compression."""
        return f"sha256:{self._plain.hexdigest()}"

    @property
    def stored_digest(self) -> str:
        """The digest of the blob."""
        return f"sha256:{self._packed.hexdigest()}"

    def _store(self, data: bytes) -> None:
        self.stored += len(data)
        self._packed.update(data)
        self._stream.write(data)


class ImageLayout:
    """An image layout that is being made in a directory, which must not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / _BLOBS).mkdir(parents=True)

    def add(self, data: bytes, media_type: str) -> Descriptor:
        """Write a blob that is in memory."""
        with self.writing(Compression.NONE) as blob:
            blob.write(data)
        return Descriptor(media_type, blob.stored_digest, blob.stored)

    @contextmanager
    def writing(self, compression: Compression) -> Iterator[BlobWriter]:
        """Yield what writes a blob, which gets its name when the block succeeds."""
        new = self.path / _BLOBS / _NEW
        with new.open("xb") as stream:
            blob = BlobWriter(stream, compression)
            yield blob
            blob.finish()
        new.rename(_place(self.path, blob.stored_digest))
        failpoint("image.blob-written")

    def finish(self, index: bytes) -> None:
        """Write what makes the directory a layout."""
        (self.path / oci.LAYOUT_FILE).write_bytes(oci.LAYOUT)
        (self.path / oci.INDEX_FILE).write_bytes(index)


def pack(layout: Path, archive: Path) -> None:
    """Write a layout into a new file, as a tar archive."""
    with archive.open("xb") as out:
        tar = TarStream(out.write)
        for path in sorted(layout.rglob("*")):
            name = str(path.relative_to(layout))
            if path.is_dir():
                tar.add(Member(name, _DIRECTORY))
                continue
            with path.open("rb") as source:
                tar.add(Member(name, _FILE, path.stat().st_size), source)
        tar.finish()


def add_blobs(new: Path, layout: Path) -> None:
    """Move the blobs of a new layout into one that is there, or not yet; its index stays as it is."""
    (layout / _BLOBS).mkdir(parents=True, exist_ok=True)
    for blob in (new / _BLOBS).iterdir():
        blob.replace(layout / _BLOBS / blob.name)
        failpoint("image.blob-added")


def set_index(layout: Path, index: str) -> None:
    """Have a layout be that of another image, whose blobs are there."""
    files.replace_text(layout / oci.INDEX_FILE, index)
    files.replace_text(layout / oci.LAYOUT_FILE, oci.LAYOUT.decode())  # the last file: it makes it a layout


def keep_only(layout: Path, digests: Collection[str]) -> None:
    """Remove the blobs of a layout that are none of these."""
    names = {_name(digest) for digest in digests}
    for blob in (layout / _BLOBS).iterdir():
        if f"{_BLOBS}/{blob.name}" not in names:
            blob.unlink()
            failpoint("image.blob-removed")


def read_manifest(path: Path, *, or_alone: bool = False) -> bytes:
    """Return the manifest of the image in a layout or an archive.

    or_alone: the path may also be that of a file that has the manifest itself.

    Raises UsageError for what is none of these, or has other than one image.
    """
    try:
        if path.is_dir():
            return _manifest(lambda name: _text(path / name))
        if or_alone and _is_json(path):
            return _text(path)
        with tarfile.open(path, "r:") as archive:
            return _manifest(lambda name: _member(archive, name))
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(
            f"{path} is not an OCI image: {reason}", hint="name the directory or archive of one image"
        ) from error


def _manifest(read: Callable[[str], bytes]) -> bytes:
    """Return the manifest of a layout. read: returns a file of it."""
    digests = oci.read_index(read(oci.INDEX_FILE))
    if len(digests) != 1:
        raise ValueError(f"it has {len(digests)} images, and not one")
    data = read(_name(digests[0]))
    if oci.digest_of(data) != digests[0]:
        raise ValueError("its manifest is damaged")
    return data


def _text(path: Path) -> bytes:
    if path.stat().st_size > _LARGEST_TEXT:
        raise ValueError(f"{path.name} is too large")
    return path.read_bytes()


def _is_json(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(1) == b"{"


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.getmember(name)
    stream = archive.extractfile(member)
    if stream is None or member.size > _LARGEST_TEXT:
        raise ValueError(f"{name} is not a file, or too large")
    with stream:
        return stream.read()


def _compressor(compression: Compression) -> Compressor:
    if compression is Compression.ZSTD:
        from apt_ostree.system import zstd

        return zstd.compressor()
    if compression is Compression.GZIP:
        return zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_FORMAT)
    return _Uncompressed()


def _place(layout: Path, digest: str) -> Path:
    return layout / _name(digest)


def _name(digest: str) -> str:
    """Return where a blob is in a layout; ValueError for a digest of another kind."""
    kind, _, digits = digest.partition(":")
    if kind != "sha256" or not digits.isalnum():
        raise ValueError(f"{digest} is not a digest of SHA-256")
    return f"{_BLOBS}/{digits}"
