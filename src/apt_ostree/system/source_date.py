"""The time of a reproducible build (SOURCE_DATE_EPOCH), read from and set in the environment."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from apt_ostree.errors import UsageError

_NAME = "SOURCE_DATE_EPOCH"


def read(default: int | None = None) -> int:
    """Return the build's time in seconds since 1970.

    default: the time if the environment has none; None is now.

    UsageError is raised if the environment has an invalid one.
    """
    seconds = os.environ.get(_NAME) or str(int(time.time()) if default is None else default)
    if not seconds.isdecimal():
        raise UsageError(f"{_NAME}: expected seconds since 1970, got {seconds!r}")
    return int(seconds)


def settle(default: int | None = None) -> int:
    """Return what `read` does, and set it for all programs that we start from now on."""
    seconds = read(default)
    os.environ[_NAME] = str(seconds)
    return seconds


@contextmanager
def set_to(seconds: int) -> Iterator[None]:
    """Give programs that are started in the block another time."""
    before = os.environ.get(_NAME)
    os.environ[_NAME] = str(seconds)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NAME]
        else:
            os.environ[_NAME] = before
