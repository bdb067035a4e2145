"""The files of the service's transactions in /run: for root alone, and gone with the boot.

Each transaction has a directory with its record, the file that its worker writes events to, and the pipe
that the worker reads. The service can be killed and started again without the worker noticing it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apt_ostree.errors import UsageError
from apt_ostree.model.caller import Caller
from apt_ostree.model.transaction import Record
from apt_ostree.system import files

DIRECTORY = Path("/run/apt-ostree/transactions")
#: Bytes that a pipe holds at most (pipe-max-size in proc(5)): so long may a request be.
_LONGEST = 2**20


def new_id() -> int:
    """Return a number for a transaction: milliseconds since the boot, later if that one is taken."""
    number = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    while _directory(number).exists():
        number += 1
    return number


def create(record: Record) -> None:
    """Write the files of a transaction."""
    directory = _directory(record.id)
    DIRECTORY.parent.mkdir(mode=0o755, exist_ok=True)
    DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    directory.mkdir(mode=0o700)
    os.mkfifo(directory / "answers", 0o600)
    (directory / "events").touch(0o600)
    files.write_text(directory / "record.json", json.dumps(asdict(record)))


def mark_started(number: int) -> None:
    """Note that the worker is about to be started."""
    (_directory(number) / "started").touch()


def was_started(number: int) -> bool:
    """Return whether the worker was started, or was about to be."""
    return (_directory(number) / "started").exists()


def remove(number: int) -> None:
    """Remove the files of a transaction."""
    files.remove_all(_directory(number))


def records() -> list[Record]:
    """Return the transactions that have files, in their order; what a killed service left is removed."""
    left = []
    for directory in DIRECTORY.glob("[0-9]*"):
        try:
            left.append(_read(directory))
        except FileNotFoundError:
            files.remove_all(directory)
    return sorted(left, key=lambda record: record.id)


def running() -> Record | None:
    """Return the transaction that is at work; None without one, and for users who cannot read it."""
    for directory in sorted(DIRECTORY.glob("[0-9]*")):
        try:
            if (directory / "started").exists() and not _has_ended(directory):
                return _read(directory)
        except (FileNotFoundError, PermissionError):  # it has just ended
            pass
    return None


def _has_ended(directory: Path) -> bool:
    with (directory / "events").open("rb") as stream:
        last = stream.read().rstrip(b"\n").rpartition(b"\n")[2]
    return last.startswith(b'{"event": "end"')


def caller(number: int) -> Caller:
    """Return who made the request of a transaction."""
    return _read(_directory(number)).caller


def _read(directory: Path) -> Record:
    value = json.loads((directory / "record.json").read_text())
    return Record(**{**value, "caller": Caller(**value["caller"])})


def _directory(number: int) -> Path:
    return DIRECTORY / str(number)


# --- events


def events_file(number: int) -> Path:
    """Return the file that the worker writes events to."""
    return _directory(number) / "events"


def read_events(number: int, offset: int = 0) -> tuple[list[str], int]:
    """Return the events from an offset in the file on, and the offset after them."""
    with events_file(number).open("rb") as stream:
        stream.seek(offset)
        data = stream.read()
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode(errors="replace").splitlines(), offset + len(whole)


def append_event(number: int, event: Mapping[str, Any]) -> None:
    """Write an event for a worker that cannot do it."""
    with events_file(number).open("a+b") as stream:
        stream.seek(max(stream.tell() - 1, 0))
        begin = b"" if stream.read(1) in (b"", b"\n") else b"\n"  # it was killed within a line
        stream.write(begin + json.dumps(event).encode() + b"\n")


# --- the worker's input and output


@contextmanager
def opened(number: int, first_line: str) -> Iterator[tuple[int, int]]:
    """Open the worker's stdin, which has the first line, and its stdout; raise UsageError for a long line."""
    directory = _directory(number)
    data = first_line.encode() + b"\n"
    if len(data) > _LONGEST:
        raise UsageError(f"the request has {len(data)} bytes, but {_LONGEST} at most can be passed")
    # Open for both, so that the pipe has always a writer: no end of file when the service ends.
    answers = os.open(directory / "answers", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    events = os.open(directory / "events", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        _enlarge(answers, len(data))
        os.write(answers, data)
        os.set_blocking(answers, True)
        yield answers, events
    finally:
        os.close(answers)
        os.close(events)


def _enlarge(pipe: int, size: int) -> None:
    import fcntl

    if size > fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)


def answer(number: int, obj: Mapping[str, Any]) -> None:
    """Answer a question of the worker; there is none if it has ended."""
    try:
        pipe = os.open(_directory(number) / "answers", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # nobody reads
        return
    try:
        os.write(pipe, json.dumps(obj).encode() + b"\n")
    finally:
        os.close(pipe)
