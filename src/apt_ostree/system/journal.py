"""Writes entries of the systemd journal (sd-journal(3)); never reads it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

IDENTIFIER = "apt-ostree"
ERROR, INFO = 3, 6  # priorities (syslog(3))


def send(lines: Iterable[str], *, priority: int = INFO, fields: Mapping[str, str] | None = None) -> None:
    """Write each line as an entry with these further fields; errors are ignored."""
    from systemd import journal

    common = [f"PRIORITY={priority}", f"SYSLOG_IDENTIFIER={IDENTIFIER}"]
    common += [f"{name}={value}" for name, value in (fields or {}).items()]
    with contextlib.suppress(OSError):  # a full or broken journal must not fail an operation
        for line in lines:
            if line.strip():
                journal.sendv(f"MESSAGE={line}".encode(errors="replace"), *common)
