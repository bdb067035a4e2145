"""The OCI image layout in which fetched images are kept: reads blobs, each of which is verified before."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from apt_ostree.errors import ExternalFailure
from apt_ostree.model import oci, oci_image
from apt_ostree.model.oci import Compression, Descriptor
from apt_ostree.system import files

#: Blobs are here until they are imported; the manifest and the configuration stay.
_KEPT_IN = Path("/var/cache/apt-ostree/images")
_BLOBS = "blobs/sha256"
_NOTE = "fetched.json"
_KEPT = frozenset({"blobs", oci.INDEX_FILE, oci.LAYOUT_FILE, _NOTE})
_CHUNK = 1 << 20
#: What the links that stand for blobs lead to: it exists on every machine.
_STANDS_FOR_A_BLOB = "/dev/null"
#: No manifest and no configuration is as large.
_LARGEST_TEXT = 16 << 20


@dataclass(frozen=True, slots=True)
class Note:
    """What the image in the layout is.

    reference: as it was asked for.
    digest: what the reference stood for; that of an index, if it is one of several images.
    manifest: the digest of its manifest.
    policy: what the policy was that accepted it.
    """

    reference: str
    digest: str
    manifest: str
    policy: str


def kept() -> KeptLayout:
    """Return the layout, below a directory that only root can read; it may be empty.

    A power cut can leave an index that cannot be read, with which no fetch would ever succeed: it is removed,
    as are blobs that are not whole.
    """
    _KEPT_IN.parent.mkdir(parents=True, exist_ok=True)
    _KEPT_IN.mkdir(mode=0o700, exist_ok=True)
    index = _KEPT_IN / oci.INDEX_FILE
    try:
        json.loads(index.read_bytes())
    except FileNotFoundError:
        pass
    except (ValueError, RecursionError):
        index.unlink()
    layout = KeptLayout(_KEPT_IN)
    layout.drop_leftovers()
    return layout


def forget() -> int:
    """Remove what was fetched; return the number of files removed."""
    count = sum(1 for path in _KEPT_IN.rglob("*") if path.is_file())
    shutil.rmtree(_KEPT_IN, ignore_errors=True)
    return count


class KeptLayout:
    """A layout. path: of its directory, which only root can write to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def named(self, name: str) -> str | None:
        """Return the digest of the manifest of a name; None without one."""
        path = self.path / oci.INDEX_FILE
        with _explained(path):
            return oci_image.named(path.read_bytes(), name)

    def note(self) -> Note | None:
        """Return what was fetched last; None without a note, or with one that a power cut has damaged."""
        try:
            return Note(**json.loads((self.path / _NOTE).read_bytes()))
        except (FileNotFoundError, ValueError, TypeError, RecursionError):
            return None

    def write_note(self, note: Note) -> None:
        """Note what was fetched."""
        files.replace_text(self.path / _NOTE, json.dumps(asdict(note)))

    def text(self, digest: str) -> bytes:
        """Return a blob that is no layer."""
        path = self._place(digest)
        with _explained(path):
            if path.stat().st_size > _LARGEST_TEXT:
                raise ExternalFailure(f"the blob {digest} is too large for what it is")
        self._require_sound(digest)
        return path.read_bytes()

    @property
    def size(self) -> int:
        """The bytes of all that is here, of blobs that are not whole, too."""
        size = 0
        for path in (*self.path.glob("*"), *(self.path / _BLOBS).glob("*")):
            with suppress(FileNotFoundError):  # it got its name just now
                size += path.stat().st_size
        return size

    def has(self, digest: str) -> bool:
        """Return whether a blob is here."""
        return self._place(digest).exists()

    def missing(self, blobs: Iterable[Descriptor]) -> int:
        """Return the bytes of those blobs that are not here."""
        return sum({one.digest: one.size for one in blobs if not self.has(one.digest)}.values())

    @contextmanager
    def opened(
        self, layer: Descriptor, compression: Compression, diff_id: str
    ) -> Iterator[Callable[[int], bytes]]:
        """Yield what reads the content of a layer, all of which has to be read in the block.

        Raises ExternalFailure for a blob that is damaged, or cannot be decompressed, and at the end for
        another content than that of the `diff_id`.
        """
        self._require_sound(layer.digest)
        digest = hashlib.sha256()
        with self._place(layer.digest).open("rb") as file, _explained(self._place(layer.digest)):
            stream = _decompressed(file, compression)

            def read(size: int) -> bytes:
                try:
                    data = stream.read(size)
                except (gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
                    raise ExternalFailure(
                        f"the layer {layer.digest[7:19]} cannot be decompressed: {error}",
                        hint="who made the image has to make it again",
                    ) from error
                digest.update(data)
                return data

            yield read
            if read(1) or f"sha256:{digest.hexdigest()}" != diff_id:
                raise of_another_content(layer)

    @contextmanager
    def standing_in(self, digests: Iterable[str]) -> Iterator[None]:
        """Have links in the places of blobs that are not here, so that skopeo does not fetch them.

        It only looks whether there is a file of the blob's name. The links go at the end of the block.
        """
        (self.path / _BLOBS).mkdir(parents=True, exist_ok=True)
        try:
            for digest in digests:
                with suppress(FileExistsError):
                    self._place(digest).symlink_to(_STANDS_FOR_A_BLOB)
            yield
        finally:
            self.drop_leftovers()

    def keep_only(self, digests: Collection[str]) -> None:
        """Remove all blobs but these, and what killed programs have left."""
        names = {digest.partition(":")[2] for digest in digests}
        self.drop_leftovers()
        for path in (self.path / _BLOBS).glob("*"):
            if path.name not in names:
                path.unlink()

    def drop_leftovers(self) -> None:
        """Remove what programs that did not succeed have left: links, and blobs that are not whole."""
        for path in self.path.glob("*"):
            if path.name not in _KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in (self.path / _BLOBS).glob("*"):
            if path.is_symlink():
                path.unlink()

    def _require_sound(self, digest: str) -> None:
        """Remove a blob that is damaged, so that it is fetched again, and raise ExternalFailure."""
        path, found = self._place(digest), hashlib.sha256()
        with _explained(path), path.open("rb") as file:
            while data := file.read(_CHUNK):
                found.update(data)
        if f"sha256:{found.hexdigest()}" != digest:
            path.unlink()
            raise ExternalFailure(
                f"the fetched blob {digest[7:19]} is damaged", hint="try again: it will be fetched anew"
            )

    def _place(self, digest: str) -> Path:
        return self.path / _BLOBS / digest.partition(":")[2]


def of_another_content(layer: Descriptor) -> ExternalFailure:
    """Return the failure of a layer that is not what the image's configuration says."""
    return ExternalFailure(
        f"the layer {layer.digest[7:19]} has not the content that the image's configuration says",
        hint="who made the image has to make it again",
    )


def _decompressed(file: IO[bytes], compression: Compression) -> IO[bytes]:
    if compression is Compression.GZIP:
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if compression is Compression.ZSTD:
        from apt_ostree.system import zstd

        return zstd.reader(file)
    return file


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ExternalFailure(
            f"{path} was not fetched", hint="try again; 'apt-ostree cleanup -m' removes what was fetched"
        ) from error
