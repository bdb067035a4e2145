"""The time that a reproducible build has (SOURCE_DATE_EPOCH), from and for the environment of programs."""

from __future__ import annotations

import os
import time

from apt_ostree.errors import UsageError

_NAME = "SOURCE_DATE_EPOCH"


def settle() -> int:
    """Return the build's time in seconds since 1970, and let all programs that we start use the same.

    UsageError says that the environment's is none.
    """
    wanted = os.environ.get(_NAME) or str(int(time.time()))
    if not wanted.isdecimal():
        raise UsageError(f"{_NAME}: expected seconds since 1970, got {wanted!r}")
    os.environ[_NAME] = wanted
    return int(wanted)
