"""Keeps the output of dpkg, maintainer scripts and the other programs of a build.

While a build runs, the output goes to a file in its scratch directory (`sandbox.output_log`). At the end it
is copied to a new file in /var/log/apt-ostree and to the journal. No error in this module fails a build.
"""

from __future__ import annotations

import contextlib
import grp
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from apt_ostree.errors import AptOstreeError, Cancelled
from apt_ostree.model.events import Message, Report
from apt_ostree.system import journal

DIRECTORY = Path("/var/log/apt-ostree")
_KEPT_FILES = 20
_KEPT_BYTES = 20_000_000


@contextlib.contextmanager
def kept(report: Report, output: Path, what: str, heading: Sequence[str] = ()) -> Iterator[None]:
    """Keep the contents of the file `output` when the block ends, with or without an error.

    An error raised in the block gets the path of the log in its hint.

    what: a part of the log's file name, such as `compose`.
    heading: the first lines of the log.
    """
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        place = _keep(report, output, what, heading, failed=failure is not None)
        if place and isinstance(failure, AptOstreeError) and not isinstance(failure, Cancelled):
            failure.hint = "; ".join(filter(None, (failure.hint, f"the whole output is in {place}")))


def _keep(report: Report, output: Path, what: str, heading: Sequence[str], *, failed: bool) -> Path | None:
    if not output.exists():
        return None
    now = datetime.now(UTC)
    first = "".join(f"{line}\n" for line in (f"{now:%Y-%m-%d %H:%M:%S} UTC", *heading))
    name = f"{now:%Y-%m-%dT%H%M%SZ}-{what}"
    place = None
    try:
        _make_directory(DIRECTORY)
        place = _write(DIRECTORY, name, first, output)
        remove_old(DIRECTORY, keep=place)
    except OSError as error:
        reason = f"the output of the packages' programs cannot be kept in {DIRECTORY}: {error.strerror}"
        report(Message(reason, "warning"))
        if failed:  # it is needed now; another file system may have space
            with contextlib.suppress(OSError):
                place = _write(Path(tempfile.gettempdir()), f"apt-ostree-{name}", first, output)
    with contextlib.suppress(OSError), output.open(errors="replace") as stream:
        lines = itertools.chain(heading, (line.rstrip("\n") for line in stream))
        journal.send(lines, fields={"APT_OSTREE_LOG": str(place)} if place else None)
    return place


def _make_directory(directory: Path) -> None:
    if not directory.is_dir():
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        _give_to_administrators(directory, 0o750)


def _write(directory: Path, name: str, first: str, output: Path) -> Path:
    """Copy `output` after first lines to a new file; return its path. An incomplete file is removed."""
    for number in itertools.count(1):
        place = directory / (f"{name}.log" if number == 1 else f"{name}-{number}.log")
        with contextlib.suppress(FileExistsError):
            target = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            break
    try:
        with os.fdopen(target, "wb") as stream, output.open("rb") as source:
            stream.write(first.encode(errors="replace"))
            shutil.copyfileobj(source, stream)
        if directory == DIRECTORY:
            _give_to_administrators(place, 0o640)
    except BaseException:
        place.unlink(missing_ok=True)
        raise
    return place


def _give_to_administrators(path: Path, mode: int) -> None:
    """Let the group adm read a path, as it may read other logs of Debian."""
    try:
        os.chown(path, 0, grp.getgrnam("adm").gr_gid)
    except (KeyError, PermissionError):
        return
    path.chmod(mode)


def remove_old(directory: Path, *, keep: Path) -> None:
    """Remove the oldest logs beyond the limits of number and total size; `keep` is not removed."""
    logs = sorted(directory.glob("*.log"), key=lambda path: (path == keep, path.lstat().st_mtime_ns))
    size = 0
    for count, path in enumerate(reversed(logs), 1):
        size += path.lstat().st_size
        if path != keep and (count > _KEPT_FILES or size > _KEPT_BYTES):
            path.unlink(missing_ok=True)
