"""systemd-logind (org.freedesktop.login1(5)): inhibits a shutdown during a change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_NAME, _PATH = "org.freedesktop.login1", "/org/freedesktop/login1"


@contextmanager
def inhibited(why: str) -> Iterator[None]:
    """Inhibit shutdown and sleep inside the block, if logind runs. why: shown to users."""
    fd = _inhibit(why)
    try:
        yield
    finally:
        if fd is not None:
            os.close(fd)


def _inhibit(why: str) -> int | None:
    from dasbus.connection import SystemMessageBus
    from dasbus.error import DBusError
    from dasbus.unix import GLibClientUnix

    from apt_ostree.system.ostree.gi_ostree import GLib

    bus = SystemMessageBus()
    try:
        manager = bus.get_proxy(_NAME, _PATH, client=GLibClientUnix)
        return int(manager.Inhibit("shutdown:sleep", "apt-ostree", why, "block"))
    except (DBusError, GLib.Error, OSError):
        return None  # a system without logind, or without a bus
    finally:
        bus.disconnect()
