"""The record of the update that the last check found. Anybody may read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from apt_ostree.system import files

if TYPE_CHECKING:  # `status` looks for the record each time, and mostly there is none
    from apt_ostree.model.update import Update

RECORD = Path("/var/cache/apt-ostree/available-update.json")


def read(merge: str | None) -> Update | None:
    """Return the update as last recorded, if it is one of this commit, which the next upgrade starts from."""
    text = files.text_of(RECORD) if merge else ""
    if not text:
        return None
    from apt_ostree.model.update import parse_record

    noted = parse_record(text)
    return noted if noted and noted.against == merge else None


def write(update: Update) -> None:
    """Record what a check found; nothing is recorded of one that would change nothing."""
    from apt_ostree.model.update import format_record

    if update:
        files.write_text(RECORD, format_record(update))
    else:
        forget()


def forget() -> None:
    """Remove the record."""
    RECORD.unlink(missing_ok=True)
