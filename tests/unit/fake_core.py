"""Stands where a module of core is, in the worker's process: what a verb may do to its surroundings.

Run as a program it is apt_ostree.worker, in which the verbs rollback and install are the
function whose name is given.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Cancelled, Refused
from apt_ostree.model.events import PlanShown, Progress
from apt_ostree.model.requests import Request
from apt_ostree.model.result import Result

PLACE = "APT_OSTREE_TEST_PLACE"


def tell(tx: Transaction, request: Request) -> Result:
    """Tell something of every kind, and what was asked for."""
    with tx.task("one"):
        tx.report(Progress("one", 1, 2))
    tx.warning("careful")
    return Result(changed=True, live=False, next_boot=True, details={"title": tx.title, **request.to_json()})


def without_system(put: Callable[[Any, str, Any], None]) -> None:
    """Have transactions see a system on which there is nothing."""
    repo = SimpleNamespace(has_commit=lambda _checksum: False)
    put(Transaction, "sysroot", SimpleNamespace(unlocked=nullcontext, repo=repo))
    put(Transaction, "records", SimpleNamespace(generations=tuple, overlays=tuple))
    put(Transaction, "deployments", ())


def ask(tx: Transaction, _request: Request) -> Result:
    """Ask twice, as long as the answer is yes."""
    for number in range(2):
        tx.confirm(PlanShown("test", {"number": number}))
        tx.message(f"yes to {number}")
    return Result(changed=True)


def refuse(_tx: Transaction, _request: Request) -> Result:
    """Refuse, with everything that an error may have."""
    raise Refused("no", details=["one", "two"], hint="another way", internals=["command: x"])


def disk_is_full(_tx: Transaction, _request: Request) -> Result:
    """Meet an error of the system."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/where")


def bug(_tx: Transaction, _request: Request) -> Result:
    """Meet an error of the program."""
    return Result(changed={}["no such key"])  # type: ignore[index]


def chatter(tx: Transaction, _request: Request) -> Result:
    """Write to stdout in every way that a library has."""
    print('{"event": "end", "ok": true}', flush=True)
    os.write(1, b"from the descriptor\n")
    os.system("echo from a child")
    tx.message("from us")
    return Result(changed=False)


def work(tx: Transaction, _request: Request) -> Result:
    """Work until a cancel comes, and put everything back as it was."""
    place = Path(os.environ[PLACE])
    place.write_text("half done")
    try:
        tx.message("working")
        time.sleep(60)
    except Cancelled:
        place.write_text("put back")
        signal.raise_signal(signal.SIGTERM)  # an undo is not to be cancelled
        raise
    return Result(changed=True)


def fork(tx: Transaction, _request: Request) -> Result:
    """Be cancelled where Python drops exceptions."""
    os.register_at_fork(before=lambda: signal.raise_signal(signal.SIGTERM))
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(60)
    return Result(changed=True)


def outlive(tx: Transaction, _request: Request) -> Result:
    """Go on telling when nobody listens any more, and come to the end."""
    tx.message("begun")
    sys.stdin.read()  # until the client is gone
    for _ in range(3):
        tx.message("is there anybody?")
    os.kill(os.getpid(), signal.SIGHUP)  # the terminal is gone, too
    Path(os.environ[PLACE]).write_text("done")
    return Result(changed=True)


def descriptors(_tx: Transaction, request: Request) -> Result:
    """Read a passed file, and list what a child inherits."""
    (file,) = request.open_files
    text = os.read(file.fd, 100).decode()
    place = Path(os.environ[PLACE])
    with place.open("w") as out:
        actions = [(os.POSIX_SPAWN_DUP2, out.fileno(), 1)]
        command = ["/bin/ls", "/proc/self/fd"]
        os.waitpid(os.posix_spawn(command[0], command, os.environ, file_actions=actions), 0)
    umask = os.umask(0)
    return Result(changed=False, details={"text": text, "child": place.read_text().split(), "umask": umask})


def die(_tx: Transaction, _request: Request) -> Result:
    """Be killed."""
    os.kill(os.getpid(), signal.SIGKILL)
    return Result(changed=False)


if __name__ == "__main__":
    without_system(setattr)
    boot_previous = install = globals()[sys.argv.pop()]
    here = sys.modules[__name__]
    sys.modules |= {f"apt_ostree.core.{name}": here for name in ("deployments", "packages")}
    from apt_ostree import worker

    sys.exit(worker.main())
