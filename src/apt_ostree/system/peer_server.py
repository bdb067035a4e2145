"""A D-Bus server on a socket: clients connect to it without a bus. Owns Gio.DBusServer.

Any user can connect. The kernel tells who it is (the mechanism EXTERNAL); no other mechanism is accepted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gi.repository import Gio, GLib

from apt_ostree.errors import ExternalFailure

#: Connections that a server has.
_MOST = 32
#: What is called when a connection has ended.
Closed = Callable[[], None]


def forget_all(directory: Path) -> None:
    """Remove the sockets of servers that were killed."""
    for path in directory.glob("*.sock"):
        path.unlink()


class PeerServer:
    """A server on a new socket, NAME.sock; raises ExternalFailure if it cannot be made.

    connected: is called from the main loop with each connection and the uid of its client; it returns what is
        called when the connection ends.
    """

    def __init__(self, socket: Path, connected: Callable[[Any, int], Closed]) -> None:
        self._socket = socket
        self._connected = connected
        self._connections: list[Any] = []
        self._observer = Gio.DBusAuthObserver()
        self._observer.connect("allow-mechanism", lambda _observer, mechanism: mechanism == "EXTERNAL")
        guid, flags = Gio.dbus_generate_guid(), Gio.DBusServerFlags.NONE
        try:
            self._server = Gio.DBusServer.new_sync(self.address, flags, guid, self._observer, None)
        except GLib.Error as error:
            raise ExternalFailure(f"cannot make the socket {socket}: {error.message}") from error
        socket.chmod(0o666)
        self._server.connect("new-connection", self._on_connection)
        self._server.start()

    @property
    def address(self) -> str:
        """Return the D-Bus address."""
        return f"unix:path={self._socket}"

    def _on_connection(self, _server: Any, connection: Any) -> bool:
        if len(self._connections) >= _MOST:  # a user must not take all descriptors of the service
            connection.close(None, None)
            return False
        credentials = connection.get_peer_credentials()
        closed = self._connected(connection, credentials.get_unix_user())
        self._connections.append(connection)

        def on_closed(*_: Any) -> None:
            self._connections.remove(connection)
            closed()

        connection.connect("closed", on_closed)
        return True

    def flush(self, seconds: float) -> None:
        """Send what was emitted, as far as the clients read it in time."""
        stop = Gio.Cancellable()
        timer = threading.Timer(seconds, stop.cancel)
        timer.start()
        for connection in self._connections:
            with suppress(GLib.Error):  # its client has left, or does not read
                connection.flush_sync(stop)
        timer.cancel()

    def stop(self) -> None:
        """Close the socket and all connections."""
        self._server.stop()
        self._socket.unlink(missing_ok=True)
        for connection in list(self._connections):
            connection.close(None, None)


def close_flushed(connection: Any) -> None:
    """Close a connection when its client has been sent what was emitted."""
    connection.flush(None, lambda *_: connection.close(None, None))
