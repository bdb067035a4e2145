"""Paths, errors and the one way to run a program; knows nothing of machines or images."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("APT_OSTREE_TESTBED_CACHE", "/var/cache/apt-ostree-testbed"))
#: Kept on the host's own file system: locks, sockets, console logs, mount points.
MACHINES = CACHE / "machines"

#: What programs see, on the host and in a machine, whatever the caller's shell had set.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TERM": os.environ.get("TERM", "dumb"),
}


class TestbedError(Exception):
    """A failure that one line explains to the user."""

    __test__ = False  # pytest: not a test class


def say(text: str) -> None:
    """Tell progress on stderr, where it does not mix with a command's output."""
    print(f"testbed: {text}", file=sys.stderr, flush=True)


def run(
    *argv: str | Path, cwd: Path | None = None, input: str | None = None, env: dict[str, str] | None = None
) -> str:
    """Run a program to its end; return its stdout, or raise with the tail of its stderr."""
    words = [os.fspath(word) for word in argv]
    done = subprocess.run(
        words,
        cwd=cwd,
        input=input,
        stdin=None if input is not None else subprocess.DEVNULL,
        env={**ENVIRONMENT, **(env or {})},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()[-20:]
        raise TestbedError("\n".join([f"exit code {done.returncode} from: {shlex.join(words)}", *lines]))
    return done.stdout


def wait_until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Poll until `condition` holds; raise when it does not within the time."""
    end = time.monotonic() + seconds
    pause = 0.002
    while not condition():
        if time.monotonic() > end:
            raise TestbedError(f"{what}: not within {seconds:g} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, waiting for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def hash_of(*parts: str | bytes) -> str:
    """Return a short key for a list of inputs; the split between the parts counts."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def hash_of_files(root: Path, names: Sequence[str]) -> str:
    """Return a key for the names, modes and contents of files below `root`."""
    parts: list[str | bytes] = []
    for name in sorted(names):
        path = root / name
        if path.is_symlink():
            parts += [name, "link", str(path.readlink())]
        elif path.is_file():
            parts += [name, "x" if os.access(path, os.X_OK) else "-", path.read_bytes()]
    return hash_of(*parts)
