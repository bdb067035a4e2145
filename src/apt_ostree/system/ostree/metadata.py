"""Values in the metadata of commits, and the order of the bytes of their numbers.

GVariant keeps a number in the order of the machine that wrote it, and no commit says which one that was. Here
numbers are big-endian, as `ostree show` reads them and rpm-ostree's composes write them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from apt_ostree.system.ostree.gi_ostree import GLib


def unpack(value: GLib.Variant) -> Any:
    """Return a value of a commit's metadata as plain values."""
    return _swapped(value).unpack()


def numbers(values: Sequence[int]) -> GLib.Variant:
    """Return the value of numbers that are not negative, of 64 bits, as a tuple."""
    return _swapped(GLib.Variant(f"({'t' * len(values)})", tuple(values)))


def of_json(value: Any) -> GLib.Variant:
    """Return the value of one of JSON, with the types that rpm-ostree gives it.

    These are b, x (64 bits), d and s; a list is av, an object a{sv}. There is none for null.
    """
    return _swapped(_typed(value))


def _typed(value: Any) -> GLib.Variant:
    if isinstance(value, dict):
        return GLib.Variant("a{sv}", {key: _typed(item) for key, item in value.items()})
    if isinstance(value, list):
        return GLib.Variant("av", [_typed(item) for item in value])
    if isinstance(value, bool):  # before int, which it is one of
        return GLib.Variant("b", value)
    if isinstance(value, int):
        return GLib.Variant("x", value)
    return GLib.Variant("d" if isinstance(value, float) else "s", value)


def _swapped(value: GLib.Variant) -> GLib.Variant:
    """Return a value between this machine's order and big-endian, in both directions."""
    return value.byteswap() if sys.byteorder == "little" else value
