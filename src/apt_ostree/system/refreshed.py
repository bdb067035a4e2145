"""The record of the last download of package lists. It is read without libapt."""

from __future__ import annotations

from pathlib import Path

RECORD = Path("/var/cache/apt-ostree/refreshed")


def when() -> float | None:
    """Return when package lists were last downloaded, in seconds since 1970; None: never."""
    try:
        return RECORD.stat().st_mtime
    except FileNotFoundError:
        return None
