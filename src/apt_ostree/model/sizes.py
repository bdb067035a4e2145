"""Sizes in bytes: read as people write them, and shown as apt prints them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

_UNITS = "kMGT"


@dataclass(frozen=True, slots=True)
class Space:
    """What a file system has free.

    available: bytes that may be written; unused: bytes, those reserved for root included; inodes: how many
    files can be made, None where the file system does not count them.
    """

    available: int
    unused: int
    inodes: int | None


def read_size(text: str) -> int:
    """Return the bytes of a size such as 500000, 500k, 0.5M or 2G; the units are decimal, as apt's.

    ValueError says that it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKMGT]?)B?", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a size such as 500k, 20M or 2G")
    number, unit = found.groups()
    return int(Decimal(number) * 1000 ** (_UNITS.index(unit.replace("K", "k")) + 1 if unit else 0))


def show_size(number: int) -> str:
    """Return a size in decimal units, as apt prints it."""
    amount = float(number)
    for unit in ("B", "kB", "MB"):
        if abs(amount) < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
