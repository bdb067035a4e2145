"""Cancels that arrive while foreign code runs: libapt and libostree swallow what a callback raises."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_CANCELS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held(on_signal: Callable[[], object]) -> Iterator[list[int]]:
    """Hold SIGINT and SIGTERM back until the end; `on_signal` is called at once, in a thread of its own.

    on_signal: tells the foreign code to stop. Whatever that then raises, the signal's own handler has the
    last word, unless the body empties the list that it was given: the signal came too late. An ignore()
    in the body outlasts it.
    """
    held_back: list[int] = []
    read, write = os.pipe()
    os.set_blocking(write, False)  # as set_wakeup_fd() wants it
    watcher = threading.Thread(target=lambda: os.read(read, 1) and on_signal(), daemon=True)

    def hold(number: int, _frame: object) -> None:
        held_back.append(number)

    before = {n: signal.signal(n, hold) for n in _CANCELS}
    wakeup = signal.set_wakeup_fd(write)
    watcher.start()
    try:
        yield held_back
    finally:
        signal.set_wakeup_fd(wakeup)
        os.close(write)
        watcher.join()
        os.close(read)
        for number, handler in before.items():
            if signal.getsignal(number) is hold:
                signal.signal(number, handler)
        if held_back:
            signal.raise_signal(held_back[0])


def ignore() -> None:
    """Take no cancel any more: what was asked for is done."""
    for number in _CANCELS:
        signal.signal(number, signal.SIG_IGN)
