"""Runs the administrator's commands for automatic updates, in the file system that users see."""

from __future__ import annotations

from collections.abc import Sequence

from apt_ostree.errors import ExternalFailure
from apt_ostree.system import mounts, process

_LONGEST = 600.0  # seconds


def run(command: Sequence[str], *, text: str | None = None) -> str:
    """Run a command; return why it failed, with its last line of output, or "". text: its input."""
    try:
        with mounts.in_namespace_of(1):
            done = process.run(
                command,
                what=f"run {command[0]}",
                check=False,
                stdin=text,
                timeout=_LONGEST,
                merge_stderr=True,
            )
    except ExternalFailure as error:
        return error.message
    if done.returncode == 0:
        return ""
    last = process.tail(done.stdout.splitlines())[-1:]
    return ": ".join((f"{command[0]} exited with {done.returncode}", *last))
