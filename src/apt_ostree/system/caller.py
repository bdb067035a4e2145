"""Identifies the caller by the properties of a process, never by the request."""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import replace
from pathlib import Path

from apt_ostree.errors import NotAuthorized
from apt_ostree.model.caller import Caller
from apt_ostree.model.transaction import id_of_unit
from apt_ostree.system import running, systemd_login, transaction_files

#: The kernel's value for a process without a login (linux/audit.h).
_UNSET = 2**32 - 1
_SESSION = re.compile(r"session-(.+)\.scope")
#: Majors of terminals, and the first minor of serial ones (Documentation/admin-guide/devices.txt of Linux).
_PTS, _TTY, _SERIAL = range(136, 144), 4, 64


def read_caller() -> Caller:
    """Return the caller that started this process; in a unit of the service the client of the service."""
    transaction = _transaction()
    if transaction is not None:
        return transaction_files.caller(transaction)
    # Of the parent, as a worker has a session of its own, without a terminal.
    return replace(_caller(os.getuid(), Path("/proc/self")), tty=_terminal(Path(f"/proc/{os.getppid()}")))


def is_of_service() -> bool:
    """Return whether this process is a worker of the service."""
    return _transaction() is not None


def _transaction() -> int | None:
    return id_of_unit(running.unit_of_cgroup(Path("/proc/self/cgroup").read_text()))


def caller_of(uid: int, pid: int) -> Caller:
    """Return the caller that a client of the service is. pid: tells about it while it lives."""
    return _caller(uid, Path(f"/proc/{pid}"))


def _caller(uid: int, process: Path) -> Caller:
    login_uid = _login_uid(process)
    try:
        unit = running.unit_of_cgroup((process / "cgroup").read_text())
    except OSError:
        unit = ""
    session = _session(process, unit)
    return Caller(
        uid,
        login_uid,
        user_name(uid if login_uid is None else login_uid),
        unit,
        session=session,
        tty=_terminal(process),
        remote=systemd_login.remote_host(session) if session else "",
    )


def _session(process: Path, unit: str) -> str:
    """Return the session of a process: of its unit, or else the kernel's, which systemd-logind takes over."""
    if match := _SESSION.fullmatch(unit):
        return match[1]
    number = _number(process / "sessionid")
    return "" if number is None else str(number)


def _terminal(process: Path) -> str:
    """Return the terminal of a process (proc_pid_stat(5)), or ""."""
    try:
        device = int((process / "stat").read_text().rpartition(")")[2].split()[4])
    except (OSError, ValueError, IndexError):
        return ""
    major, minor = os.major(device), os.minor(device)
    if major in _PTS:
        return f"pts/{minor + (major - _PTS.start) * 256}"
    if major == _TTY:
        return f"tty{minor}" if minor < _SERIAL else f"ttyS{minor - _SERIAL}"
    return ""


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
    return _number(process / "loginuid")


def _number(path: Path) -> int | None:
    try:
        number = int(path.read_text())
    except (OSError, ValueError):
        return None
    return None if number == _UNSET else number


def user_name(number: int) -> str:
    """Return the name of a user, or the number if there is none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
