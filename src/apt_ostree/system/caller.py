"""Identifies the caller by the properties of a process, never by the request."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from apt_ostree.errors import NotAuthorized
from apt_ostree.model.caller import Caller
from apt_ostree.model.transaction import id_of_unit
from apt_ostree.system import running, transaction_files

#: The kernel's value for a process without a login (linux/audit.h).
_UNSET = 2**32 - 1


def read_caller() -> Caller:
    """Return the caller that started this process; in a unit of the service the client of the service."""
    unit = running.unit_of_cgroup(Path("/proc/self/cgroup").read_text())
    transaction = id_of_unit(unit)
    if transaction is not None:
        return transaction_files.caller(transaction)
    return _caller(os.getuid(), Path("/proc/self"))


def caller_of(uid: int, pid: int) -> Caller:
    """Return the caller that a client of the service is. pid: tells about it while it lives."""
    return _caller(uid, Path(f"/proc/{pid}"))


def _caller(uid: int, process: Path) -> Caller:
    login_uid = _login_uid(process)
    try:
        unit = running.unit_of_cgroup((process / "cgroup").read_text())
    except OSError:
        unit = ""
    return Caller(uid, login_uid, user_name(uid if login_uid is None else login_uid), unit)


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


def _login_uid(process: Path) -> int | None:
    try:
        number = int((process / "loginuid").read_text())
    except (OSError, ValueError):
        return None
    return None if number == _UNSET else number


def user_name(number: int) -> str:
    """Return the name of a user, or the number if there is none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
