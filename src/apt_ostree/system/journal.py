"""What we write into the systemd journal (sd-journal(3)); must not read it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

IDENTIFIER = "apt-ostree"
ERROR, INFO = 3, 6  # priorities (syslog(3))


def send(lines: Iterable[str], *, priority: int = INFO, fields: Mapping[str, str] | None = None) -> None:
    """Write each line as an entry with these further fields; without a journal, nothing happens."""
    from systemd import journal

    same = [f"PRIORITY={priority}", f"SYSLOG_IDENTIFIER={IDENTIFIER}"]
    same += [f"{name}={value}" for name, value in (fields or {}).items()]
    with contextlib.suppress(OSError):  # a full or broken journal is no reason to fail
        for line in lines:
            if line.strip():
                journal.sendv(f"MESSAGE={line}".encode(errors="replace"), *same)
