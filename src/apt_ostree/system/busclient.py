"""The client's side of the system bus. Owns jeepney, whose errors end here as BusError.

It is not Gio: importing that takes longer than a call, and a command that the service carries out needs
nothing else of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jeepney import (
    DBusAddress,
    HeaderFields,
    MatchRule,
    Message,
    MessageFlag,
    MessageType,
    new_method_call,
)
from jeepney.auth import AuthenticationError
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection

#: Seconds that connecting may take: a bus that hangs must not keep root from working without it.
_CONNECT = 1.0
#: The errors of a call whose service, or the bus, ends before it has replied.
_LOST = (
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.Disconnected",
)
#: The errors of a call to a service that cannot be started, or that ends while it starts.
_TIMED_OUT = "org.freedesktop.DBus.Error.TimedOut"
_NO_OWNER, _SPAWN = "org.freedesktop.DBus.Error.NameHasNoOwner", "org.freedesktop.DBus.Error.Spawn."
#: Seconds for a call of the bus itself.
_BUS_CALL = 25.0
_OWNER_CHANGED = "NameOwnerChanged"


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
        self._received: deque[Message] = deque()  # while a reply was waited for
        self._owner = ""

    def call(
        self,
        target: Object,
        method: str,
        kind: str,
        arguments: Sequence[Any],
        *,
        seconds: float,
        dialog: bool = False,
    ) -> tuple[Any, ...]:
        """Call a method and wait for its values.

        kind: the type of the arguments (D-Bus specification). Those of type h are descriptors, and those of
            type v are pairs of a type and a value.
        dialog: whether the service may have the user asked.
        """
        message = _message(target, method, kind, arguments)
        if dialog:
            message.header.flags |= MessageFlag.allow_interactive_authorization
        return self._call(message, seconds)

    def send(self, target: Object, method: str, kind: str, arguments: Sequence[Any]) -> None:
        """Call a method and wait for nothing; a handler of a signal can do that."""
        message = _message(target, method, kind, arguments)
        message.header.flags |= MessageFlag.no_reply_expected
        try:
            self._connection.send(message)
        except OSError as error:
            raise _closed(error) from error

    def subscribe(self, target: Object, signal: str) -> None:
        """Have `receive` return a signal's values, and tell when the service begins or ends."""
        rule = MatchRule(
            type="signal", sender=target.service, interface=target.interface, member=signal, path=target.path
        )
        owner = MatchRule(
            type="signal", sender=message_bus.bus_name, interface=message_bus.interface, member=_OWNER_CHANGED
        )
        owner.add_arg_condition(0, target.service)
        for one in (rule, owner):
            self._call(message_bus.AddMatch(one), _BUS_CALL)

    def receive(self) -> tuple[Any, ...] | None:
        """Wait for the next signal and return its values; None if the service has begun or ended."""
        while True:
            message = self._received.popleft() if self._received else self._next(None)
            fields = message.header.fields
            if message.header.message_type is not MessageType.signal:
                continue
            sender, member = fields.get(HeaderFields.sender), fields.get(HeaderFields.member)
            if sender == message_bus.bus_name and member == _OWNER_CHANGED:
                self._owner = message.body[2]
                return None
            if sender == self._owner:  # anybody can send a signal to this connection
                return tuple(message.body)

    def _call(self, message: Message, seconds: float) -> tuple[Any, ...]:
        serial = next(self._connection.outgoing_serial)
        try:
            self._connection.send(message, serial=serial)
        except OSError as error:
            raise _closed(error) from error
        while True:
            reply = self._next(seconds)
            fields = reply.header.fields
            if fields.get(HeaderFields.reply_serial) == serial:
                break
            self._received.append(reply)
        if reply.header.message_type is MessageType.error:
            text = reply.body[0] if reply.body and isinstance(reply.body[0], str) else ""
            raise BusError(fields[HeaderFields.error_name], text)
        if fields[HeaderFields.sender] != message_bus.bus_name:
            self._owner = fields[HeaderFields.sender]
        return tuple(reply.body)

    def _next(self, seconds: float | None) -> Message:
        try:
            return self._connection.receive(timeout=seconds)
        except TimeoutError as error:
            raise BusError("", f"no reply within {seconds:g} seconds") from error
        except OSError as error:
            raise _closed(error) from error


def _message(target: Object, method: str, kind: str, arguments: Sequence[Any]) -> Message:
    address = DBusAddress(target.path, target.service, target.interface)
    return new_method_call(address, method, kind, tuple(arguments))


def _connect() -> Any:
    try:
        return open_dbus_connection("SYSTEM", enable_fds=True, auth_timeout=_CONNECT)
    # RuntimeError: an address of another kind than unix:; ValueError: one that is none.
    except (OSError, AuthenticationError, RuntimeError, ValueError) as error:
        raise NoBus(str(error)) from error


def _closed(error: OSError) -> BusError:
    return BusError("", f"the bus has closed the connection: {error.strerror or error}")
