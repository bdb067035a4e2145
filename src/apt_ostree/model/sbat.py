"""SBAT, by which shim decides whether a loader is too old: what a program says, and the firmware's level.

A program names its components with a generation each. The level, which shim keeps in the firmware, names the
least generation of some. With Secure Boot, shim starts nothing that is below it. Source: SBAT.md of shim.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

_PE_OFFSET = 0x3C
_SECTION = struct.Struct("<8sIIII16x")
_NAME = b".sbat"


@dataclass(frozen=True, slots=True)
class Sbat:
    """What a program says of itself.

    generations: by component, such as grub -> 5.
    version: that of the last component, which the distribution has added; "" without any.
    """

    generations: Mapping[str, int]
    version: str = ""

    def below(self, level: Mapping[str, int]) -> list[str]:
        """Return what of the program is below a level, in words."""
        rows = ((name, number, level.get(name, 0)) for name, number in self.generations.items())
        return [
            f"{name} is of generation {number}, {least} is needed"
            for name, number, least in rows
            if number < least
        ]


def read_program(data: bytes) -> Sbat | None:
    """Return what an EFI program says of itself; None for a program, or another file, that says nothing."""
    try:
        text = _section(data)
    except struct.error:
        return None
    return None if text is None else _read_text(text)


def read_level(text: str) -> Mapping[str, int]:
    """Return the least generation of each component, of the text of SbatLevel."""
    return _read_text(text).generations


def _section(data: bytes) -> str | None:
    """Return the text of the section; None if there is none. Raises struct.error for a damaged file."""
    if data[:2] != b"MZ":
        return None
    (header,) = struct.unpack_from("<I", data, _PE_OFFSET)
    if data[header : header + 4] != b"PE\0\0":
        return None
    count, options = struct.unpack_from("<H12xH", data, header + 6)
    for number in range(count):
        place = header + 24 + options + number * _SECTION.size
        name, size, _address, raw_size, start = _SECTION.unpack_from(data, place)
        if name.rstrip(b"\0") == _NAME:
            return data[start : start + min(size, raw_size)].rstrip(b"\0").decode(errors="replace")
    return None


def _read_text(text: str) -> Sbat:
    rows = [line.split(",") for line in text.splitlines()]
    known = [row for row in rows if len(row) > 1 and row[1].isdigit()]
    version = known[-1][4] if known and len(known[-1]) > 4 else ""
    return Sbat({row[0]: int(row[1]) for row in known}, version)
