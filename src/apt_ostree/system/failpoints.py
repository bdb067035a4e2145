"""Failpoints: named places where a test makes the program fail or end.

There is one at each step of each mutation. It does nothing unless root sets
`APT_OSTREE_FAILPOINT=NAME=ACTION` with ACTION one of `error` (an OSError, as a failing disk gives),
`kill` (SIGKILL to this process) or `stop` (SIGSTOP, so that a test can inspect the system or cut the power).
An entry fires once a process; `NAME=ACTION:N` fires at the Nth passing.
"""

from __future__ import annotations

import errno
import os
import signal

_VARIABLE = "APT_OSTREE_FAILPOINT"
_passed: dict[str, int] = {}


def are_set() -> bool:
    """Return whether a test has set a failpoint."""
    return _VARIABLE in os.environ


def failpoint(name: str) -> None:
    """Fail here if APT_OSTREE_FAILPOINT names this failpoint; otherwise do nothing."""
    setting = os.environ.get(_VARIABLE)
    if not setting:
        return
    target, _, action = setting.partition("=")
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
