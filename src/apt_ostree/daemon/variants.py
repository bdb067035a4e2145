"""JSON as values of D-Bus: an object is a{sv}, and what is null is left out, for which D-Bus has no value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dasbus.typing import get_variant

#: Keys whose numbers have another type than x (64 bits), as in rpm-ostree.
_NUMBERS = {"serial": "i", "index": "i", "timestamp": "t", "base-timestamp": "t"}
#: The metadata of a commit may have such numbers.
_TOO_LARGE = 1 << 63
#: Keys of lists of objects, which may be empty. All other empty lists are of strings.
_OF_OBJECTS = frozenset(
    {"added", "removed", "changed", "newer-versions", "upgraded-packages", "base-removals",
     "base-local-replacements", "events"}
)  # fmt: skip


def dictionary(obj: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object as a{sv}."""
    kinds = {key: _kind(key, value) for key, value in obj.items() if value is not None}
    return {key: get_variant(kind, _value(obj[key])) for key, kind in kinds.items()}


def dictionaries(objects: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return JSON objects as aa{sv}."""
    return [dictionary(obj) for obj in objects]


def _kind(key: str, value: Any) -> str:
    """Return the type of the value of a key; that of a list whose elements differ is av."""
    if isinstance(value, Mapping):
        return "a{sv}"
    if isinstance(value, bool):
        return "b"
    if isinstance(value, int):
        return _NUMBERS.get(key, "x" if value < _TOO_LARGE else "t")
    if isinstance(value, float):
        return "d"
    if isinstance(value, list | tuple):
        if not value:
            return "aa{sv}" if key in _OF_OBJECTS else "as"
        kinds = {_kind(key, item) for item in value}
        return f"a{kinds.pop()}" if len(kinds) == 1 else "av"
    return "s"


def _value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dictionary(value)
    if isinstance(value, list | tuple):
        kinds = {_kind("", item) for item in value}
        if len(kinds) > 1:
            return [get_variant(_kind("", item), _value(item)) for item in value]
        return [_value(item) for item in value]
    return value
