"""Readers that look at files again and again while somebody changes /usr, and note what they missed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from apt_ostree.system import mounts
from bench_lib.measure import BenchError

_READERS = 4


@contextmanager
def readers(
    found: list[dict[str, float]], paths: Sequence[str], switches: int = 0, *, reading: bool = True
) -> Iterator[None]:
    """Let readers loop over files meanwhile, and append what each of them saw.

    reading: open and read the files; else look up what they are.
    """
    running = [_start_reader(paths, reading) for _ in range(_READERS)]
    for _pid, pipe in running:
        os.read(pipe, 1)  # it has begun
    try:
        yield
    finally:
        for pid, pipe in running:
            os.kill(pid, signal.SIGTERM)
            with os.fdopen(pipe) as stream:
                seen = json.loads(stream.read())
            os.waitpid(pid, 0)
            if not seen["reads"]:
                raise BenchError(f"{paths[0]} was never there to be read")
            found.append({**seen, "switches": switches})


def _start_reader(paths: Sequence[str], reading: bool) -> tuple[int, int]:
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return pid, ours
    try:
        with mounts.in_namespace_of(1):
            _read_on(theirs, paths, reading)
    finally:
        os._exit(0)  # not the way of the process that this is a copy of


def _read_on(pipe: int, paths: Sequence[str], reading: bool) -> None:
    """Look the files up until SIGTERM; count failures, and take the longest time between two successes."""
    going = True

    def stop(*_: object) -> None:
        nonlocal going
        going = False

    signal.signal(signal.SIGTERM, stop)
    reads = failures = 0
    longest = 0.0
    last = time.perf_counter()
    os.write(pipe, b" ")
    for path in itertools.cycle(paths):
        if not going:
            break
        try:
            if reading:
                fd = os.open(path, os.O_RDONLY)
            else:
                os.stat(path)  # noqa: PTH116 (as fast as can be)
        except OSError:
            failures += 1
            continue
        if reading:
            os.read(fd, 4096)
            os.close(fd)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
        reads += 1
    os.write(pipe, json.dumps({"reads": reads, "failures": failures, "gap": longest}).encode())
