"""The record of the update driver, which anybody may read. It ends with the boot, as in rpm-ostree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from apt_ostree.errors import UsageError
from apt_ostree.system import files

if TYPE_CHECKING:  # `status` looks for the record each time, and mostly there is none
    from apt_ostree.model.driver import Driver

RECORD = Path("/run/apt-ostree/update-driver.json")


def read() -> Driver | None:
    """Return the registered driver; None without one, and for a record that another version has written."""
    text = files.text_of(RECORD)
    if not text:
        return None
    from apt_ostree.model.driver import Driver

    try:
        return Driver.from_text(text)
    except UsageError:
        return None


def write(driver: Driver) -> None:
    """Replace the record."""
    RECORD.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    files.replace_text(RECORD, driver.to_text() + "\n")
