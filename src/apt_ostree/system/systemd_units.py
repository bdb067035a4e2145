"""Transient units of systemd, over the bus (org.freedesktop.systemd1(5)): one for each worker.

A unit outlives the service, has its own limits, and sees the system as PID 1 does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from dasbus.typing import Bool, List, Str, Tuple, UInt64, UnixFD, get_variant
from dasbus.unix import GLibClientUnix

_SYSTEMD = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_REBOOT = ("reboot.target", "replace-irreversibly")
_LOGIND = "org.freedesktop.login1"
_LOGIND_PATH, _LOGIND_MANAGER = "/org/freedesktop/login1", "org.freedesktop.login1.Manager"
_NO_SUCH_UNIT = "org.freedesktop.systemd1.NoSuchUnit"
#: Microseconds that an undo may take when the system shuts down; the boot's recovery does the rest.
_STOP = 180_000_000
_COMMAND = List[Tuple[Str, List[Str], Bool]]


class Units:
    """The manager of units.

    removed: is called with the name of a unit when systemd forgets it, because it has ended or systemd reads
        all units again.
    """

    def __init__(self, bus: Any, removed: Callable[[str], None]) -> None:
        self._bus = bus

        def on_removed(parameters: Any) -> None:
            removed(parameters.unpack()[0])

        GLibClientUnix.subscribe_signal(bus.connection, _SYSTEMD, _PATH, _MANAGER, "UnitRemoved", on_removed)
        self._call("Subscribe", None)

    def exists(self, name: str) -> bool:
        """Return whether a unit is loaded."""
        try:
            self._call("GetUnit", get_variant(Tuple[Str], (name,)))
        except RuntimeError as error:  # GLib.Error
            if GLibClientUnix.get_remote_error_name(error) != _NO_SUCH_UNIT:
                raise
            return False
        return True

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        description: str,
        environment: Mapping[str, str],
        limits: Mapping[str, int],
        descriptors: Mapping[str, int],
        failed: Callable[[str], None],
    ) -> None:
        """Start a program in a unit of its own, which is forgotten when it has ended.

        limits: further properties of the unit, which are numbers.
        descriptors: for StandardInput, StandardOutput and StandardError.
        failed: is called with the reason if it cannot be started.
        """
        properties = [
            ("Description", get_variant(Str, description)),
            ("Type", get_variant(Str, "exec")),
            ("ExecStart", get_variant(_COMMAND, [(command[0], list(command), False)])),
            ("Environment", get_variant(List[Str], [f"{k}={v}" for k, v in environment.items()])),
            ("CollectMode", get_variant(Str, "inactive-or-failed")),
            # At shutdown only the worker is told, which undoes; then what is left of it is killed.
            ("KillMode", get_variant(Str, "mixed")),
            ("TimeoutStopUSec", get_variant(UInt64, _STOP)),
            # So that the kernel does not take the worker for one of its children.
            ("OOMPolicy", get_variant(Str, "continue")),
            *((name, get_variant(UInt64, value)) for name, value in limits.items()),
            # Gio closes what it sends.
            *((f"{key}FileDescriptor", get_variant(UnixFD, os.dup(fd))) for key, fd in descriptors.items()),
        ]
        parameters = get_variant("(ssa(sv)a(sa(sv)))", (name, "fail", properties, []))
        GLibClientUnix.async_call(
            self._bus.connection, _SYSTEMD, _PATH, _MANAGER, "StartTransientUnit", parameters, None,
            _on_reply, callback_args=(failed,),
        )  # fmt: skip

    def terminate(self, name: str) -> None:
        """Send SIGTERM to the program of a unit, but not to its children; nothing if it has just ended."""
        with suppress(RuntimeError):  # GLib.Error
            self._call("KillUnit", get_variant("(ssi)", (name, "main", 15)))

    def _call(self, method: str, parameters: Any) -> Any:
        connection = self._bus.connection
        return GLibClientUnix.sync_call(connection, _SYSTEMD, _PATH, _MANAGER, method, parameters, None)


def reboot(bus: Any) -> None:
    """Reboot as systemctl does: logind tells the users, and lets programs delay it; without it, at once."""

    def replied(finish: Callable[[], Any]) -> None:
        try:
            finish()
        except RuntimeError:  # GLib.Error
            _call_async(bus, _SYSTEMD, _PATH, _MANAGER, "StartUnit", "(ss)", _REBOOT, lambda _finish: None)

    _call_async(bus, _LOGIND, _LOGIND_PATH, _LOGIND_MANAGER, "Reboot", "(b)", (False,), replied)


def _call_async(bus: Any, *where: Any) -> None:
    *target, kind, arguments, then = where
    GLibClientUnix.async_call(bus.connection, *target, get_variant(kind, arguments), None, then)


def _on_reply(finish: Callable[[], Any], failed: Callable[[str], None]) -> None:
    try:
        finish()
    except RuntimeError as error:  # GLib.Error
        failed(GLibClientUnix.get_remote_error_message(error))
