"""Metadata of a commit from a file with a JSON object, as `--add-metadata-from-json` takes it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from apt_ostree.errors import UsageError
from apt_ostree.model import layout

#: Whole numbers have 64 bits.
_SMALLEST, _LARGEST = -(1 << 63), (1 << 63) - 1
#: A value of GVariant may have 128 levels, and each one of JSON takes up to three.
_DEEPEST = 32
#: Keys that apt-ostree writes, and later relies on.
_OWN = "apt-ostree."


def parse(text: str, *, name: str) -> dict[str, Any]:
    """Return the object; UsageError names a mistake, or what no commit can hold. name: of the file."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{name}: expected an object, got another value of JSON")
    for place, reason in _mistakes(value, "", 0):
        raise UsageError(f"{name}: {place}: {reason}")
    for key in value:
        if key.startswith(_OWN):
            raise UsageError(f"{name}: {key}: keys that begin with {_OWN} are apt-ostree's own")
    if not isinstance(value.get(layout.META_VERSION, ""), str):
        raise UsageError(f"{name}: {layout.META_VERSION}: expected a string")
    return value


def _mistakes(value: Any, place: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield where a value is that a commit cannot hold, and why."""
    if depth > _DEEPEST:
        yield place, f"values may be nested {_DEEPEST} deep"
    elif isinstance(value, dict):
        for key, item in value.items():
            where = f"{place}.{key}" if place else key
            yield from _mistakes(key, where, depth)
            yield from _mistakes(item, where, depth + 1)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _mistakes(item, f"{place}[{number}]", depth + 1)
    elif reason := _wrong(value):
        yield place, reason


def _wrong(value: Any) -> str | None:
    """Return why a commit cannot hold a plain value, or None."""
    if value is None:
        return "null has no type that D-Bus knows"
    if isinstance(value, str):
        return None if _is_text(value) else "expected a text without NUL and half pairs of surrogates"
    if isinstance(value, float):
        return None if math.isfinite(value) else "expected a number that is finite"
    if not _SMALLEST <= value <= _LARGEST:
        return f"expected a whole number from {_SMALLEST} to {_LARGEST}"
    return None


def _is_text(value: str) -> bool:
    return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
