"""Who asks for a change, as the kernel and systemd tell it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller.

    uid: whose rights the worker has; login_uid: who logged in, also behind sudo (pam_loginuid(8)), None where
    nobody did; user: that user's name, or number; unit: the unit of systemd that the worker runs in.
    """

    uid: int
    login_uid: int | None
    user: str
    unit: str
