"""The main loop of a service or a client. Owns GLib's loop, its timers and its watches of files."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from gi.repository import Gio, GLib

_RATE = 20  # milliseconds between two reports about one file, at least


class MainLoop:
    """A main loop.

    idle: seconds without a call of `touch` after which `run` returns; 0: it does not by itself.
    is_busy: whether it must not, although nobody calls.
    """

    def __init__(self, idle: float = 0.0, is_busy: Callable[[], bool] = lambda: False) -> None:
        self._loop = GLib.MainLoop()
        self._idle = idle
        self._is_busy = is_busy
        self._timer = 0

    def touch(self) -> None:
        """Begin the idle time anew."""
        if self._timer:
            GLib.source_remove(self._timer)
        self._timer = GLib.timeout_add(int(self._idle * 1000), self._on_idle) if self._idle else 0

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function once, from the loop, after so many seconds."""

        def call() -> bool:
            function()
            return bool(GLib.SOURCE_REMOVE)

        GLib.timeout_add(int(seconds * 1000), call)

    def watch(self, path: Path, changed: Callable[[], object]) -> Callable[[], None]:
        """Call a function whenever a file, or what is in a directory, has changed; return how to end that."""
        monitor = Gio.File.new_for_path(str(path)).monitor(Gio.FileMonitorFlags.NONE, None)
        monitor.set_rate_limit(_RATE)
        monitor.connect("changed", lambda *_: changed())

        def unwatch() -> None:
            monitor.cancel()

        return unwatch

    def watch_mounts(self, changed: Callable[[], object]) -> Callable[[], None]:
        """Call a function whenever something was mounted or unmounted (proc(5)); return how to end that."""
        fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)

        def told(_fd: int, _condition: object) -> bool:
            changed()
            return bool(GLib.SOURCE_CONTINUE)

        conditions = GLib.IOCondition.PRI | GLib.IOCondition.ERR
        source = GLib.unix_fd_add_full(GLib.PRIORITY_DEFAULT, fd, conditions, told)

        def unwatch() -> None:
            GLib.source_remove(source)
            os.close(fd)

        return unwatch

    def run(self) -> None:
        """Serve until the service is idle, SIGTERM comes, or `quit` is called."""
        if self._idle:
            GLib.unix_signal_add(GLib.PRIORITY_HIGH, signal.SIGTERM, self._end)
        self.touch()
        self._loop.run()

    def quit(self) -> None:
        """Have `run` return."""
        self._loop.quit()

    def drain(self) -> None:
        """Serve what has come already."""
        context = GLib.MainContext.default()
        while context.pending():
            context.iteration(may_block=False)

    def _on_idle(self) -> bool:
        if self._is_busy():
            return bool(GLib.SOURCE_CONTINUE)
        return self._end()

    def _end(self) -> bool:
        self._timer = 0
        self._loop.quit()
        return bool(GLib.SOURCE_REMOVE)
