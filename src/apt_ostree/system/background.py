"""Runs a program beside the main loop of a service, and passes text to it and back. Owns Gio.Subprocess."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from gi.repository import Gio, GLib

from apt_ostree.errors import ExternalFailure, Refused

_PIPES = Gio.SubprocessFlags.STDIN_PIPE | Gio.SubprocessFlags.STDOUT_PIPE


class Background:
    """A program that is run again for each text, one at a time.

    patience: seconds after which it is killed.
    most: how many texts may wait.
    """

    def __init__(self, command: Sequence[str], *, patience: float, most: int) -> None:
        self._command = list(command)
        self._patience = patience
        self._most = most
        self._waiting: deque[tuple[str, Callable[[str], None], Callable[[Exception], None]]] = deque()
        self._is_running = False

    @property
    def is_busy(self) -> bool:
        """Return whether the program runs."""
        return self._is_running

    def run(self, text: str, then: Callable[[str], None], failed: Callable[[Exception], None]) -> None:
        """Pass a text to the program, later if it runs; one of the functions is called from the main loop.

        Raises Refused if too many wait.
        """
        if len(self._waiting) >= self._most:
            raise Refused(f"{self._most} questions wait for an answer already", hint="try again later")
        self._waiting.append((text, then, failed))
        self._next()

    def _next(self) -> None:
        if self._is_running or not self._waiting:
            return
        text, then, failed = self._waiting.popleft()
        try:
            process = Gio.Subprocess.new(self._command, _PIPES)
        except GLib.Error as error:
            reason = f"cannot run {self._command[0]}: {error.message}"
            GLib.timeout_add(0, _fail, failed, reason)  # not before this was returned from
            return
        self._is_running = True
        timer = GLib.timeout_add(int(self._patience * 1000), _kill, process)

        def ended(_process: Any, result: Any) -> None:
            GLib.source_remove(timer)
            self._is_running = False
            try:
                _ok, out, _err = process.communicate_utf8_finish(result)
            except GLib.Error as error:
                failed(ExternalFailure(f"cannot read the output of {self._command[0]}: {error.message}"))
            else:
                then(out or "")
            self._next()

        process.communicate_utf8_async(text, None, ended)


def _kill(process: Any) -> bool:
    process.force_exit()
    return bool(GLib.SOURCE_CONTINUE)  # until its end removes the timer


def _fail(failed: Callable[[Exception], None], reason: str) -> bool:
    failed(ExternalFailure(reason))
    return bool(GLib.SOURCE_REMOVE)
