"""System calls that fail: which ones a command makes, and how to have one answered by an error."""

from __future__ import annotations

import errno
import os
import random
import re
import subprocess
from collections import Counter
from dataclasses import dataclass

from tests.system.livehost import Host

#: Calls that change something, or that a change of mounts needs; each fails at its first, second, ... time.
_PLAIN = (
    "fsync", "fdatasync", "syncfs", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "link", "linkat",
    "symlink", "symlinkat", "unlink", "unlinkat", "rmdir", "mknod", "mknodat", "fallocate", "ftruncate",
    "copy_file_range", "chmod", "fchmod", "fchmodat", "chown", "lchown", "fchown", "fchownat", "setxattr",
    "fsetxattr", "lsetxattr", "utimensat", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount",
    "mount_setattr", "mount", "umount2", "setns", "unshare", "pipe2", "flock",
)  # fmt: skip
#: Calls that mostly do not: only those that create a file, or that write to one with a name of its own.
_WRITES = ("write", "pwrite64")
_NAMED = re.compile(r"\d+<(/(?:etc/\.apt-ostree-|var/)[^>]*?)(?: \(deleted\))?>")
_ERRORS = ("ENOSPC", "EIO", "EINVAL")
#: Of each call, the first ones and as many of the others, by lot.
_FIRST = _OTHERS = 8
_LOG = "/run/testbed-strace"
#: Without a bus, the worker is a child of the command line.
_OPTIONS = ("-f", "-qq", "-y", "-o", _LOG, "-E", "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nonexistent")
#: What SQLite says instead of the kernel's words; a flush that fails is always the second.
_OF_SQLITE = ("database or disk is full", "disk I/O error", "unable to open database file")


@dataclass(frozen=True)
class Fault:
    """A call that fails at its Nth time in a process; of those to `paths` alone, if there are any."""

    call: str
    number: int
    error: str
    paths: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.call} {self.number} {self.error} {' '.join(self.paths)}".strip()

    @property
    def texts(self) -> tuple[str, ...]:
        """Words of which one has to be in the message."""
        return (os.strerror(getattr(errno, self.error)), *_OF_SQLITE)


def record(host: Host, words: tuple[str, ...]) -> list[str]:
    """Run a command undisturbed and return the lines of strace: pid, call, arguments, with paths."""
    calls = ",".join(f"?{name}" for name in (*_PLAIN, *_WRITES, "openat"))
    host.run("strace", *_OPTIONS, f"--trace={calls}", "apt-ostree", *words)
    return host.sh(f"cat {_LOG}").splitlines()


def faults(lines: list[str], dice: random.Random) -> list[Fault]:
    """Return the faults to try, from a recording: an error by lot for each call."""
    counts: Counter[tuple[str, str]] = Counter()
    creating: set[int] = set()
    written: Counter[tuple[str, str]] = Counter()
    for line in lines:
        match = re.match(r"(\d+) +(\w+)\((.*)", line)
        if not match:
            continue
        pid, call, rest = match.groups()
        counts[pid, call] += 1
        if call == "openat" and re.search("O_CREAT|O_TMPFILE", rest):
            creating.add(counts[pid, call])
        if call in _WRITES and (path := _NAMED.match(rest)):
            written[call, path[1]] += 1
    found = [
        Fault(call, number, dice.choice(_ERRORS))
        for call in _PLAIN
        if (most := max((n for (_pid, name), n in counts.items() if name == call), default=0))
        for number in _some(range(1, most + 1), dice)
    ]
    found += [Fault("openat", number, dice.choice(_ERRORS)) for number in _some(sorted(creating), dice)]
    for (call, path), most in sorted(written.items()):
        numbers = _some(range(1, most + 1), dice)
        found += [Fault(call, number, dice.choice(_ERRORS), (path,)) for number in numbers]
    return found


def _some(numbers: range | list[int], dice: random.Random) -> list[int]:
    others = list(numbers[_FIRST:])
    return [*numbers[:_FIRST], *sorted(dice.sample(others, min(_OTHERS, len(others))))]


def run(
    host: Host, words: tuple[str, ...], fault: Fault
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run a command with a fault; return how it ended, and the calls that failed."""
    inject = f"--inject={fault.call}:error={fault.error}:when={fault.number}"
    paths = [f"--trace-path={path}" for path in fault.paths]
    options = [*_OPTIONS, *paths, f"--trace={fault.call}", inject]
    done = host.run("strace", *options, "apt-ostree", *words, check=False)
    return done, host.sh(f"grep INJECTED {_LOG} || true").splitlines()
