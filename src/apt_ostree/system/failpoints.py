"""Named places where a test makes the product fail or die.

A failpoint stands at each step of each mutation. It does nothing unless root sets
`APT_OSTREE_FAILPOINT=NAME=ACTION` with ACTION one of `error` (an OSError, as a failing disk gives),
`kill` (SIGKILL to this process) or `stop` (SIGSTOP, so that a test can look around or cut the power).
An entry fires once a process; `NAME=ACTION:N` fires at the Nth passing.
"""

from __future__ import annotations

import errno
import os
import signal

_passed: dict[str, int] = {}


def failpoint(name: str) -> None:
    """Fail here if a test asked for it; otherwise do nothing."""
    wanted = os.environ.get("APT_OSTREE_FAILPOINT")
    if not wanted:
        return
    target, _, action = wanted.partition("=")
    if target != name:
        return
    action, _, nth = action.partition(":")
    _passed[name] = _passed.get(name, 0) + 1
    if _passed[name] != int(nth or 1):
        return
    match action:
        case "error":
            raise OSError(errno.EIO, f"failpoint {name}")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
