"""The record of the update that the last check found. Anybody may read it."""

from __future__ import annotations

from pathlib import Path

from apt_ostree.model.update import Update, format_record, parse_record
from apt_ostree.system import files

RECORD = Path("/var/cache/apt-ostree/available-update.json")


def read() -> Update | None:
    """Return the update as last recorded, if there was one."""
    return parse_record(files.text_of(RECORD))


def write(update: Update) -> None:
    """Record what a check found; nothing is recorded of one that would change nothing."""
    if update:
        files.write_text(RECORD, format_record(update))
    else:
        forget()


def forget() -> None:
    """Remove the record."""
    RECORD.unlink(missing_ok=True)
