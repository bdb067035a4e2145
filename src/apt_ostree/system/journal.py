"""The systemd journal (sd-journal(3)): writes entries, and reads what a unit's programs printed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

IDENTIFIER = "apt-ostree"
ERROR, INFO = 3, 6  # priorities (syslog(3))
_ENTRIES = 200  # read at most


def send(lines: Iterable[str], *, priority: int = INFO, fields: Mapping[str, str] | None = None) -> None:
    """Write each line as an entry with these further fields; errors are ignored."""
    from systemd import journal

    common = [f"PRIORITY={priority}", f"SYSLOG_IDENTIFIER={IDENTIFIER}"]
    common += [f"{name}={value}" for name, value in (fields or {}).items()]
    with contextlib.suppress(OSError):  # a full or broken journal must not fail an operation
        for line in lines:
            if line.strip():
                journal.sendv(f"MESSAGE={line}".encode(errors="replace"), *common)


def last_error(unit: str, since: float) -> str:
    """Return the last line that begins with "error: " which a unit's programs printed, without these words.

    It is empty if there is none, or if the caller may not read the journal.

    since: seconds since 1970; older lines do not count.
    """
    from systemd import journal

    with contextlib.suppress(OSError), journal.Reader() as reader:
        reader.add_match(_SYSTEMD_UNIT=unit)
        reader.seek_realtime(since)
        messages = [str(entry.get("MESSAGE", "")) for entry in islice(_entries(reader), _ENTRIES)]
        errors = [message.removeprefix("error: ") for message in messages if message.startswith("error: ")]
        return errors[-1] if errors else ""
    return ""


def _entries(reader: Any) -> Iterator[Mapping[str, Any]]:
    while entry := reader.get_next():
        yield entry
