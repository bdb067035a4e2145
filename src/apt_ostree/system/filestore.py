"""A directory of files that save work, each found by its kind and a key; any of them may be lost at any time.

The name of a file has the digest of its content, which is compared before each use: what is damaged or half
written is removed and not used. Files are written beside their place and renamed, and never changed, so that
several programs can share a directory.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO

from apt_ostree.errors import ExternalFailure, Refused, UsageError
from apt_ostree.system import scratch
from apt_ostree.system.failpoints import failpoint

#: What marks the directory, for us and for programs that make backups (bford.info/cachedir).
_TAG = "CACHEDIR.TAG"
_TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# Written by apt-ostree compose; may be removed.\n"
_WORK_PREFIX = ".new-"
_CHUNK = 1 << 20
_KEY = re.compile(r"[0-9a-f]{64}")
_DAY = 86400.0


class FileStore:
    """The files of a directory.

    path: of the directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def opened(self, kind: str, key: str) -> Iterator[IO[bytes] | None]:
        """Yield the open file of a key, whose content has been compared with its digest, or None."""
        for path in self._files(kind, key):
            with suppress(FileNotFoundError), path.open("rb") as stream:
                if _digest(stream) == path.name.rpartition(".")[2]:
                    with suppress(OSError):  # the time of the last use
                        os.utime(path)
                    stream.seek(0)
                    yield stream
                    return
                with suppress(OSError):
                    path.unlink()
        yield None

    @contextmanager
    def writing(self, kind: str, key: str) -> Iterator[Path]:
        """Yield a path at which the block writes the file of a key; it is kept if the block succeeds.

        Raises ExternalFailure if the directory cannot be written, or if it is full.
        """
        assert _KEY.fullmatch(key), key
        with self._explained(), scratch.directory(self.path, _WORK_PREFIX) as work:
            new = work / "new"
            yield new
            with new.open("rb") as stream:
                digest = _digest(stream)
                os.fsync(stream.fileno())
            (self.path / kind).mkdir(exist_ok=True)
            failpoint("cache.written")
            before = self._files(kind, key)
            place = self.path / kind / f"{key}.{digest}"
            new.rename(place)
            failpoint("cache.placed")
            for path in before:
                if path != place:
                    path.unlink(missing_ok=True)

    def work_directory(self) -> AbstractContextManager[Path]:
        """Return what yields an empty directory beside the files, which is removed after the block."""
        return scratch.directory(self.path, _WORK_PREFIX)

    def prune(self, most: Mapping[str, int], *, days: float) -> None:
        """Remove what has not been used for so many days, and all but the last used files of a kind.

        most: kind -> so many files.
        """
        for kind, number in most.items():
            found = []
            for path in (self.path / kind).glob("*"):
                with suppress(FileNotFoundError):
                    found.append((path.stat().st_mtime, path))
            for place, (used, path) in enumerate(sorted(found, reverse=True)):
                if place >= number or used < time.time() - days * _DAY:
                    with self._explained():
                        path.unlink(missing_ok=True)

    def _files(self, kind: str, key: str) -> list[Path]:
        return sorted((self.path / kind).glob(f"{key}.*"))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _unusable(self.path, error.strerror or str(error)) from error
        except ExternalFailure as error:  # of the program that writes
            raise _unusable(self.path, error.message, error.details) from error


def open_store(path: Path, *, apart_from: Mapping[str, Path]) -> FileStore:
    """Return the store at a path, which is made if there is nothing; its parent has to be there.

    apart_from: what a path is -> path of a directory that must neither contain it nor be in it.

    Raises UsageError for a directory that is none of ours, Refused for one that others could write to, and
    ExternalFailure for one that cannot be written.
    """
    real = path.resolve()
    for what, other in apart_from.items():
        if real == other.resolve() or real in other.resolve().parents or other.resolve() in real.parents:
            raise UsageError(
                f"the cache directory {path} and {what} {other} lie in each other",
                hint="name a directory of its own with --cachedir",
            )
    try:
        _make(real)
        with scratch.directory(real, _WORK_PREFIX):
            pass
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    return FileStore(real)


def _make(path: Path) -> None:
    if not path.exists():
        path.mkdir(mode=0o700)
    elif not path.is_dir():
        raise UsageError(f"the cache directory {path} is not a directory")
    info = path.stat()
    if info.st_uid != os.geteuid() or info.st_mode & 0o022:
        raise Refused(
            f"others than its owner, root, could change the cache directory {path}",
            hint=f"what is in it becomes part of trees: 'chown root {path}; chmod go-w {path}'",
        )
    if (path / _TAG).exists():
        return
    if any(entry for entry in path.iterdir() if entry.name != "lost+found"):
        raise UsageError(
            f"{path} has files, and is not a cache directory of apt-ostree",
            hint="name an empty directory, or a path where there is nothing yet",
        )
    (path / _TAG).write_text(_TAG_TEXT)


def _unusable(path: Path, reason: str, details: Sequence[str] = ()) -> ExternalFailure:
    return ExternalFailure(
        f"the cache directory {path} cannot be used: {reason}",
        details=details,
        hint="free some space there, name another directory with --cachedir, or leave it out",
    )


def _digest(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
