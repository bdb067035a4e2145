"""A transaction as rpm-ostree's clients see it: on a socket of its own, to which each has a connection."""

# No `from __future__ import annotations`: dasbus makes the interface of the hints, which have to be types.
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from dasbus.connection import MessageBus
from dasbus.server.interface import dbus_interface, dbus_signal
from dasbus.typing import Bool, Str, UInt32

from apt_ostree.daemon.rpmostree.replies import Handler
from apt_ostree.errors import AptOstreeError
from apt_ostree.model.rpmostree import names
from apt_ostree.system import peer_server


class Followed(Protocol):
    """What a connection shows: a transaction that has a title, can be started, and can be cancelled."""

    initiator: str

    @property
    def title(self) -> str:
        """Return the command."""

    def start(self, connection: "Connection") -> bool:
        """Start it for a client; return whether that was done now."""

    def cancel(self, uid: int) -> None:
        """Cancel it for a user."""


@dbus_interface(names.TRANSACTION)
class Connection:
    """The transaction, for one client.

    uid: the client's user.
    """

    def __init__(self, followed: Followed, connection: Any, uid: int) -> None:
        self.uid = uid
        self._followed = followed
        self._connection = connection
        self._bus = _Peer(connection)
        self._progress: tuple[str, int] | None = None
        self._bus.publish_object(names.TRANSACTION_PATH, self, server_factory=Handler)

    @property
    def Title(self) -> Str:  # noqa: N802  # the name of the D-Bus property, as all that follow
        """The command as the history shows it."""
        return self._followed.title

    @property
    def InitiatingClientDescription(self) -> Str:  # noqa: N802
        """Who made the request."""
        return self._followed.initiator

    def Start(self) -> Bool:  # noqa: N802
        """Start the transaction; return whether this call did it."""
        return self._followed.start(self)

    def Cancel(self) -> None:  # noqa: N802
        """Have everything undone."""
        self._followed.cancel(self.uid)

    @dbus_signal
    def Message(self, text: Str) -> None:  # noqa: N802
        """Tell something."""

    @dbus_signal
    def TaskBegin(self, text: Str) -> None:  # noqa: N802
        """Tell that a step begins."""

    @dbus_signal
    def TaskEnd(self, text: Str) -> None:  # noqa: N802
        """Tell that the step has ended, with its result."""

    @dbus_signal
    def PercentProgress(self, text: Str, percentage: UInt32) -> None:  # noqa: N802
        """Tell how much of a step is done."""

    @dbus_signal
    def ProgressEnd(self) -> None:  # noqa: N802
        """Tell that the step has no more progress."""

    @dbus_signal
    def Finished(self, success: Bool, error_message: Str) -> None:  # noqa: N802
        """Tell that the transaction has ended."""

    def tell(self, event: Mapping[str, Any]) -> None:
        """Emit the signal of an event other than the end."""
        with suppress(RuntimeError):  # GLib.Error: the client has left
            if event["event"] == "progress":
                self._tell_progress(event["title"], event["done"], event["total"])
                return
            if self._progress:
                self._progress = None
                self.ProgressEnd.emit()
            if event["event"] == "task-begin":
                self.TaskBegin.emit(event["title"])
            elif event["event"] == "task-end":
                self.TaskEnd.emit(event["detail"] or "done")
            elif event["event"] == "message":
                self.Message.emit(event["text"])

    def _tell_progress(self, title: str, done: int, total: int) -> None:
        now = (title, min(100, 100 * done // total)) if total else None
        if now and now != self._progress:
            self._progress = now
            self.PercentProgress.emit(*now)

    def finish(self, success: bool, text: str) -> None:
        """Tell the end."""
        with suppress(RuntimeError):  # GLib.Error: the client has left
            self.Finished.emit(success, text)

    def close(self) -> None:
        """Close the connection."""
        peer_server.close_flushed(self._connection)

    def forget(self) -> None:
        """Release what a connection had that is closed."""
        self._bus.disconnect()


class _Peer(MessageBus):  # type: ignore[misc]  # dasbus has no types
    """A connection to a client, as dasbus wants it."""

    def __init__(self, connection: Any) -> None:
        super().__init__()
        self._given = connection

    def _get_connection(self) -> Any:
        return self._given


def read_event(line: str) -> Mapping[str, Any]:
    """Return an event; one without a name of a line that was cut short."""
    with suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict) and "event" in event:
            return event
    return {"event": ""}


def end_of(event: Mapping[str, Any]) -> tuple[bool, str]:
    """Return success, and the text of the error, of the event that is the end."""
    return (True, "") if event["ok"] else (False, AptOstreeError.from_json(event).to_text())
