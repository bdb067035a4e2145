"""The caller of a command, as identified by the kernel and systemd."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller.

    uid: of the worker, or of the client of the service.
    login_uid: of the user who logged in, unchanged by sudo (pam_loginuid(8)); None without a login.
    user: name, or else number, of login_uid or uid.
    unit: the systemd unit that this process runs in.
    session: of the login, as loginctl(1) lists it; "" without one.
    tty: its terminal, such as "pts/0", or "".
    remote: the host from which the user has logged in, or "".
    """

    uid: int
    login_uid: int | None
    user: str
    unit: str
    session: str = ""
    tty: str = ""
    remote: str = ""
