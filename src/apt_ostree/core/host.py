"""Opens the system that a verb works on, for reading or for changing, with what must hold first."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from apt_ostree.errors import NotAuthorized, Refused
from apt_ostree.model.deployment import Deployment, Deployments
from apt_ostree.model.events import Message, Report
from apt_ostree.system import mounts
from apt_ostree.system.ostree.sysroot import Sysroot, require_booted

#: What the kernel says where nobody logged in (linux/audit.h).
_UNSET = 2**32 - 1


def require_root(what: str) -> None:
    """Refuse to go on without root's rights."""
    if os.geteuid() != 0:
        raise NotAuthorized(f"cannot {what} without root's rights", hint="run the command with sudo")


@contextlib.contextmanager
def reading(path: str = "/") -> Iterator[Sysroot]:
    """Open the running system, or the one below `path`, to read it."""
    if path == "/":
        require_booted()
    with Sysroot(path) as sysroot:
        yield sysroot


@contextlib.contextmanager
def changing(what: str, report: Report) -> Iterator[Sysroot]:
    """Open the running system for a change: booted from OSTree, as root, alone, in a private namespace.

    Waits until no other program changes it.
    """
    require_root(what)
    require_booted()
    mounts.enter_private_namespace()

    def on_wait() -> None:
        report(Message("Another program is changing the system; waiting for it to end..."))

    with Sysroot(writable=True, on_wait=on_wait) as sysroot:
        yield sysroot


def caller() -> str:
    """Return who asks, for the record: whoever logged in, also behind sudo (pam_loginuid(8))."""
    try:
        number = int(Path("/proc/self/loginuid").read_text())
    except (OSError, ValueError):
        number = _UNSET
    if number == _UNSET:
        number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def is_user(name: str) -> bool:
    """Tell whether a user of that name is known here."""
    try:
        pwd.getpwnam(name)
    except (KeyError, ValueError):
        return False
    return True


def merge_deployment(deployments: Deployments) -> Deployment:
    """Return the deployment that a new one is made from."""
    merge = deployments.merge
    if merge is None:
        raise Refused("there is no deployment to start from")
    return merge
