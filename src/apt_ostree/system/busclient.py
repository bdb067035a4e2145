"""The client's side of the system bus. Owns Gio's types of D-Bus; its errors end here as BusError."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gi.repository import Gio, GLib

#: Seconds that connecting may take: a bus that hangs must not keep root from working without it.
_CONNECT = 1.0
_FLAGS = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
#: The errors of a call whose service, or the bus, ends before it has replied.
_LOST = (
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.Disconnected",
)
#: The errors of a call to a service that cannot be started, or that ends while it starts.
_TIMED_OUT = "org.freedesktop.DBus.Error.TimedOut"
_NO_OWNER, _SPAWN = "org.freedesktop.DBus.Error.NameHasNoOwner", "org.freedesktop.DBus.Error.Spawn."


class BusError(Exception):
    """An error of the bus or of a service on it.

    name: of a reply, such as org.freedesktop.DBus.Error.ServiceUnknown; "" for one of this side.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name

    @property
    def is_lost(self) -> bool:
        """Return whether the call may have been carried out, although there is no reply."""
        return not self.name or self.name in _LOST

    @property
    def is_absent(self) -> bool:
        """Return whether the service could not be started."""
        return self.name == _NO_OWNER or self.name.startswith(_SPAWN)

    @property
    def is_late(self) -> bool:
        """Return whether the service did not start in the time that the bus gives it (25 seconds)."""
        return self.name == _TIMED_OUT


class NoBus(Exception):
    """There is no system bus, or it does not answer."""


@dataclass(frozen=True, slots=True)
class Object:
    """An interface of an object of a service."""

    service: str
    path: str
    interface: str


class Bus:
    """A connection to the system bus; raises NoBus if there is none in time."""

    def __init__(self) -> None:
        self._connection = _connect()

    def call(
        self,
        target: Object,
        method: str,
        kind: str,
        arguments: Sequence[Any],
        *,
        seconds: float,
        files: Sequence[int] = (),
        dialog: bool = False,
    ) -> tuple[Any, ...]:
        """Call a method and wait for its values.

        kind: the type of the arguments (D-Bus specification); those of type h are indexes of `files`.
        dialog: whether the service may have the user asked.
        """
        handles = Gio.UnixFDList.new_from_array([os.dup(fd) for fd in files])  # which it closes
        flags = Gio.DBusCallFlags.ALLOW_INTERACTIVE_AUTHORIZATION if dialog else Gio.DBusCallFlags.NONE
        try:
            reply, _files = self._connection.call_with_unix_fd_list_sync(
                target.service, target.path, target.interface, method, GLib.Variant(kind, arguments), None,
                flags, int(seconds * 1000), handles, None,
            )  # fmt: skip
        except GLib.Error as error:
            raise _translated(error) from error
        return tuple(reply.unpack())

    def send(
        self,
        target: Object,
        method: str,
        kind: str,
        arguments: Sequence[Any],
        then: Callable[[Callable[[], tuple[Any, ...]]], None],
    ) -> None:
        """Call a method, and `then` from the main loop with what returns its values or raises its error."""

        def replied(connection: Any, result: Any) -> None:
            def finish() -> tuple[Any, ...]:
                try:
                    return tuple(connection.call_finish(result).unpack())
                except GLib.Error as error:
                    raise _translated(error) from error

            then(finish)

        self._connection.call(
            target.service, target.path, target.interface, method, GLib.Variant(kind, arguments), None,
            Gio.DBusCallFlags.NONE, -1, None, replied,
        )  # fmt: skip

    def on_signal(self, target: Object, name: str, act: Callable[..., None]) -> None:
        """Call a function from the main loop with the values of each signal of that name."""

        def received(_bus: Any, _sender: str, _path: str, _interface: str, _name: str, values: Any) -> None:
            act(*values.unpack())

        self._connection.signal_subscribe(
            target.service, target.interface, name, target.path, None, Gio.DBusSignalFlags.NONE, received
        )

    def on_owner(self, service: str, act: Callable[[], None]) -> None:
        """Call a function from the main loop now, and whenever the service begins or ends."""
        Gio.bus_watch_name_on_connection(
            self._connection, service, Gio.BusNameWatcherFlags.NONE, lambda *_: act(), lambda *_: act()
        )

    def on_closed(self, act: Callable[[], None]) -> None:
        """Call a function from the main loop when the bus has closed the connection."""
        self._connection.connect("closed", lambda *_: act())


def variant(kind: str, value: Any) -> Any:
    """Return a value with its type, for an argument of type v."""
    return GLib.Variant(kind, value)


def _connect() -> Any:
    loop, cancellable = GLib.MainLoop(), Gio.Cancellable()
    results: list[Any] = []

    def connected(_source: Any, result: Any) -> None:
        results.append(result)
        loop.quit()

    def expire() -> bool:
        cancellable.cancel()
        return bool(GLib.SOURCE_CONTINUE)

    try:
        address = Gio.dbus_address_get_for_bus_sync(Gio.BusType.SYSTEM, None)
        Gio.DBusConnection.new_for_address(address, _FLAGS, None, cancellable, connected)
        timer = GLib.timeout_add(int(_CONNECT * 1000), expire)
        loop.run()
        GLib.source_remove(timer)
        return Gio.DBusConnection.new_for_address_finish(results[0])
    except GLib.Error as error:
        raise NoBus(error.message) from error


def _translated(error: Any) -> BusError:
    name = Gio.DBusError.get_remote_error(error) or ""
    # strip_remote_error changes a copy in PyGObject 3.50.
    return BusError(name, error.message.removeprefix(f"GDBus.Error:{name}: "))
