"""The main loop of a service, which ends when nobody has used it for some time. Owns GLib's loop."""

from __future__ import annotations

import signal

from gi.repository import GLib


class MainLoop:
    """A main loop.

    idle: seconds without a call of `touch` after which `run` returns.
    """

    def __init__(self, idle: float) -> None:
        self._loop = GLib.MainLoop()
        self._idle = idle
        self._timer = 0

    def touch(self) -> None:
        """Begin the idle time anew."""
        if self._timer:
            GLib.source_remove(self._timer)
        self._timer = GLib.timeout_add(int(self._idle * 1000), self._end)

    def run(self) -> None:
        """Serve until the service is idle, or SIGTERM comes."""
        GLib.unix_signal_add(GLib.PRIORITY_HIGH, signal.SIGTERM, self._end)
        self.touch()
        self._loop.run()

    def drain(self) -> None:
        """Serve what has come already."""
        context = GLib.MainContext.default()
        while context.pending():
            context.iteration(may_block=False)

    def _end(self) -> bool:
        self._timer = 0
        self._loop.quit()
        return bool(GLib.SOURCE_REMOVE)
