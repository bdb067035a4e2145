"""Finds out who asks: from the worker's own process, never from what it is told."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from apt_ostree.errors import NotAuthorized
from apt_ostree.model.caller import Caller
from apt_ostree.system import running

#: What the kernel says where nobody logged in (linux/audit.h).
_UNSET = 2**32 - 1


def read_caller() -> Caller:
    """Return who started this process."""
    uid, login_uid = os.getuid(), _login_uid()
    unit = running.unit_of_cgroup(Path("/proc/self/cgroup").read_text())
    return Caller(uid, login_uid, _user_name(uid if login_uid is None else login_uid), unit)


def require_root(what: str) -> None:
    """Refuse to go on without root's rights."""
    if os.geteuid() != 0:
        raise NotAuthorized(f"cannot {what} without root's rights", hint="run the command with sudo")


def is_user(name: str) -> bool:
    """Tell whether a user of that name exists here."""
    try:
        pwd.getpwnam(name)
    except (KeyError, ValueError):
        return False
    return True


def _login_uid() -> int | None:
    try:
        number = int(Path("/proc/self/loginuid").read_text())
    except (OSError, ValueError):
        return None
    return None if number == _UNSET else number


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
