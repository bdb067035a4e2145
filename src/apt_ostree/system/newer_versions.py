"""The record of newer versions that archives offer: written when the package lists are read, for `status`.

Reading the lists takes a second, which `status` cannot spend. Anybody may read the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from apt_ostree.model.newer import Newer, format_record, parse_record
from apt_ostree.system import files

RECORD = Path("/var/cache/apt-ostree/newer-versions.json")


def read() -> tuple[Newer, ...]:
    """Return the newer versions as last recorded."""
    return parse_record(files.text_of(RECORD))


def write(versions: Sequence[Newer]) -> None:
    """Record the newer versions."""
    files.write_text(RECORD, format_record(versions))


def forget() -> None:
    """Remove the record, when there are no package lists any more."""
    RECORD.unlink(missing_ok=True)
