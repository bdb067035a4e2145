"""Identifies the caller by the properties of the worker's own process, never by the request."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from apt_ostree.errors import NotAuthorized
from apt_ostree.model.caller import Caller
from apt_ostree.system import running

#: The kernel's value for a process without a login (linux/audit.h).
_UNSET = 2**32 - 1


def read_caller() -> Caller:
    """Return the caller that started this process."""
    uid, login_uid = os.getuid(), _login_uid()
    unit = running.unit_of_cgroup(Path("/proc/self/cgroup").read_text())
    return Caller(uid, login_uid, _user_name(uid if login_uid is None else login_uid), unit)


def require_root(what: str) -> None:
    """Raise NotAuthorized without root's privileges. what: for the message, "cannot {what}"."""
    if os.geteuid() != 0:
        raise NotAuthorized(f"cannot {what} without root's rights", hint="run the command with sudo")


def is_user(name: str) -> bool:
    """Return whether a user of that name exists on this system."""
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
