"""polkit's agent: asks the user of a terminal for a password when a service has polkit check them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def agent() -> Iterator[None]:
    """Have polkit ask on this terminal (pkttyagent(1)), if it is one."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        yield
        return
    ready, notify = os.pipe()
    # Not --fallback: polkit 126 ignores such an agent where there is no session, as after su(1).
    command = ["pkttyagent", "--process", str(os.getpid()), "--notify-fd", str(notify)]
    try:
        process = subprocess.Popen(command, pass_fds=[notify])
    except FileNotFoundError:  # polkit is not installed
        os.close(notify)
        os.close(ready)
        yield
        return
    os.close(notify)
    with os.fdopen(ready, "rb") as stream:
        stream.read()  # until it is registered, or has ended
    try:
        yield
    finally:
        process.terminate()
        process.wait()
