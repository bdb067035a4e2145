"""Handles signals that cancel while libapt or libostree runs: these ignore exceptions of callbacks."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_CANCELS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held(on_signal: Callable[[], object]) -> Iterator[list[int]]:
    """Defer SIGINT and SIGTERM to the end of the block, which gets the list of the deferred signals.

    At the end the first one is raised again, unless the block has emptied the list: it came too late. An
    `ignore` in the block stays in effect.

    on_signal: called at once, in a thread of its own, to make the library stop.
    """
    held_back: list[int] = []
    read, write = os.pipe()
    os.set_blocking(write, False)  # required by set_wakeup_fd()
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


@contextmanager
def deferred() -> Iterator[None]:
    """Take SIGINT and SIGTERM inside the block only after it, and drop them: they came too late."""
    before = {number: signal.signal(number, lambda *_: None) for number in _CANCELS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore() -> None:
    """Ignore signals that cancel from now on, since the request has been carried out."""
    for number in _CANCELS:
        signal.signal(number, signal.SIG_IGN)
