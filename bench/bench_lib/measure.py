"""Runs programs and takes their time, and the memory of their processes; knows no particular program."""

from __future__ import annotations

import os
import random
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
}
#: Seconds between two looks at the processes of a command whose memory is measured.
_SAMPLING = 0.015
_UNITS = Path("/sys/fs/cgroup/system.slice")


class BenchError(Exception):
    """A failure that one line explains."""


def say(text: str) -> None:
    """Tell progress on stderr."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def run(*argv: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run a program to its end; return its stdout, or raise with the tail of what it said."""
    words = [os.fspath(word) for word in argv]
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={**ENVIRONMENT, **(env or {})},
        check=False,
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()[-15:]
        raise BenchError("\n".join([f"exit code {done.returncode} from: {shlex.join(words)}", *said]))
    return done.stdout


def flush() -> None:
    """Write to disk what the file system of /var holds in memory."""
    run("sync", "--file-system", "/var")


def timed(*argv: str | Path, env: Mapping[str, str] | None = None) -> float:
    """Run a program and return the seconds from its start to its exit.

    What others wrote before is flushed first, so that nobody pays for somebody else's writes.
    """
    flush()
    began = time.perf_counter()
    run(*argv, env=env)
    return time.perf_counter() - began


def interleaved(rounds: int, *sides: Callable[[], None]) -> Iterator[int]:
    """Run each side once in every round, in an order that changes; yield the number of the round."""
    order = list(sides)
    for number in range(rounds):
        for side in order:
            side()
        random.shuffle(order)
        yield number


# --- memory


@contextmanager
def memory_of(pid: int, units: str = "") -> Iterator[dict[str, int]]:
    """Watch a process and its descendants; fill in the highest VmHWM (kB) seen of each kind of process.

    units: a pattern of system units, whose processes are watched, too.
    """
    found: dict[str, int] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLING):
            for one in (pid, *_mains(units)):
                _sample(one, "", found)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def run_watched(
    *argv: str | Path, env: Mapping[str, str] | None = None, units: str = ""
) -> tuple[float, dict[str, int]]:
    """Run a program; return its time in seconds and the peak memory of its processes (`memory_of`)."""
    words = [os.fspath(word) for word in argv]
    began = time.perf_counter()
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**ENVIRONMENT, **(env or {})},
    )
    with memory_of(process.pid, units) as found:
        said, _ = process.communicate()
    if process.returncode != 0:
        tail = said.strip().splitlines()[-15:]
        raise BenchError("\n".join([f"exit code {process.returncode} from: {shlex.join(words)}", *tail]))
    return time.perf_counter() - began, found


def _mains(units: str) -> Iterator[int]:
    """Yield the first process of each unit that runs."""
    for path in _UNITS.glob(f"{units}/cgroup.procs") if units else ():
        with suppress(FileNotFoundError, ProcessLookupError, ValueError):  # it ended, or is empty
            yield min(map(int, path.read_text().split()))


def _sample(pid: int, parent: str, found: dict[str, int]) -> None:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        label = _label(status, Path(f"/proc/{pid}/cmdline").read_bytes(), parent)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return  # it ended
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            found[label] = max(found.get(label, 0), int(line.split()[1]))
    for child in children:
        _sample(int(child), label, found)


def _label(status: str, cmdline: bytes, parent: str) -> str:
    """Name the kind of a process; a fork of the worker is told from the worker."""
    if b"/program.py\0worker" in cmdline:
        return "worker's fork (libapt's loop)" if parent.startswith("worker") else "worker"
    if b"apt-ostree\0" in cmdline or b"apt_ostree\0" in cmdline:
        return "command line"
    return status.partition("\n")[0].partition("\t")[2]
