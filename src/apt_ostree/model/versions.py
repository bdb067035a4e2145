"""Compares versions of Debian packages without libapt (Debian Policy, 5.6.12)."""

from __future__ import annotations

import re

_Key = tuple[int, list[tuple[tuple[int, ...], int]], list[tuple[tuple[int, ...], int]]]


def version_key(version: str) -> _Key:
    """Return a key by which versions are in their order."""
    epoch, _, rest = version.partition(":") if ":" in version else ("", "", version)
    upstream, dash, revision = rest.rpartition("-")
    number = int(epoch) if epoch.isdecimal() else 0
    return number, _parts(upstream if dash else rest), _parts(revision if dash else "0")


def epoch_of(version: str) -> int:
    """Return the epoch of a version, or 0."""
    return version_key(version)[0]


def _parts(text: str) -> list[tuple[tuple[int, ...], int]]:
    """Return the text as pairs of what is no number and a number; the last one is the end."""
    found = re.findall(r"([^0-9]*)([0-9]*)", text)
    return [((*map(_order, letters), 0), int(digits or 0)) for letters, digits in found]


def _order(character: str) -> int:
    """Return the place of a character: a tilde before the end (0), then letters, then all others."""
    if character == "~":
        return -1
    return ord(character) + (0 if character.isalpha() else 256)
