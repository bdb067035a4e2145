"""The record of automatic updates, which anybody may read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apt_ostree.system import files, statedb

if TYPE_CHECKING:  # `status` looks for the record each time, and mostly there is none
    from apt_ostree.model.automatic import Record

RECORD = statedb.DIRECTORY / "automatic.json"
#: Exists from a reboot that an automatic update makes until the command after it has succeeded.
REBOOTING = statedb.DIRECTORY / "rebooting"


def read() -> Record | None:
    """Return the record; None if there never was a run."""
    text = files.text_of(RECORD)
    if not text:
        return None
    from apt_ostree.model.automatic import parse_record

    return parse_record(text)


def write(record: Record) -> None:
    """Replace the record."""
    from apt_ostree.model.automatic import format_record

    RECORD.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    files.replace_text(RECORD, format_record(record) + "\n")
