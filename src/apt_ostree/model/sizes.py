"""Sizes in bytes: parses and formats them with decimal units, as apt does."""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNITS = "kMGT"
#: What ext4 keeps for itself and yet counts as unused: up to 4096 blocks (ext4_calculate_resv_clusters).
_KEPT_BY_EXT4 = 4096 * 4096


@dataclass(frozen=True, slots=True)
class Space:
    """The free space of a file system.

    available: bytes for users other than root.
    unused: bytes, including those reserved for root.
    inodes: number of free inodes, or None if the file system has no limit.
    """

    available: int
    unused: int
    inodes: int | None

    @property
    def for_root(self) -> int:
        """Return the bytes that root can use; where little is unused, it may be a bit more."""
        return max(self.available, self.unused - _KEPT_BY_EXT4)


def read_size(text: str) -> int:
    """Return the bytes of a size such as 500000, 500k, 0.5M or 2G; the units are decimal.

    ValueError is raised for an invalid size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKMGT]?)B?", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 500k, 20M or 2G")
    number, unit = match.groups()
    from decimal import Decimal  # few commands have a size to read, and it takes 3 ms

    return int(Decimal(number) * 1000 ** (_UNITS.index(unit.replace("K", "k")) + 1 if unit else 0))


def show_size(number: int) -> str:
    """Return a size in decimal units, as apt prints it."""
    amount = float(number)
    for unit in ("B", "kB", "MB"):
        if abs(amount) < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
