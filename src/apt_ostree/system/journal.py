"""The systemd journal (sd-journal(3)): writes entries, and reads what a unit's programs printed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

IDENTIFIER = "apt-ostree"
ERROR, WARNING, INFO = 3, 4, 6  # priorities (syslog(3))
_ENTRIES = 200  # read at most


def send(lines: Iterable[str], *, priority: int = INFO, fields: Mapping[str, str] | None = None) -> None:
    """Write each line as an entry with these further fields; errors are ignored."""
    # What systemd.journal.sendv is; that module takes 20 ms to import, for what reads and for logging.
    from systemd import _journal as journal

    common = [f"PRIORITY={priority}".encode(), f"SYSLOG_IDENTIFIER={IDENTIFIER}".encode()]
    common += [f"{name}={value}".encode(errors="replace") for name, value in (fields or {}).items()]
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


def entries(message_ids: Iterable[str], names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return these fields of root's entries with any of these message ids, the oldest first; "" for none.

    It is empty if the caller may not read the journal.
    """
    from systemd import journal

    rows: list[tuple[str, ...]] = []
    with contextlib.suppress(OSError), journal.Reader() as reader:
        for message_id in message_ids:
            reader.add_match(MESSAGE_ID=message_id)
        reader.add_match(_UID=0)
        rows.extend(tuple(str(entry.get(name, "")) for name in names) for entry in _entries(reader))
    return rows


def _entries(reader: Any) -> Iterator[Mapping[str, Any]]:
    while entry := reader.get_next():
        yield entry
