"""Typed reading of a parsed document; errors name the file, the line, the key and the expected type.

Used for treefiles and other configuration files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from apt_ostree.errors import UsageError

#: The path from the top of a document to a value: mapping keys and list indices.
KeyPath = tuple[str | int, ...]
#: Returns None for a valid string, otherwise a description of what is expected.
Check = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Source:
    """The origin of a document.

    name: of its file.
    lines: the line number of each key.
    guide: the hint of errors.
    """

    name: str
    lines: Mapping[KeyPath, int]
    guide: str | None = None

    def fail(self, path: KeyPath, expected: str, got: str) -> None:
        """Raise UsageError for the value at `path`."""
        line = next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), None)
        where = f"{self.name}:{line}" if line else self.name
        raise UsageError(
            f"{where}: {dotted(path) or 'the document'}: expected {expected}, got {got}",
            hint=self.guide,
        )


class Section:
    """A mapping of the document, read key by key; every key must have been read in the end."""

    def __init__(self, data: Any, path: KeyPath, source: Source) -> None:
        self._path = path
        self._source = source
        self._seen: set[str] = set()
        if not isinstance(data, dict):
            source.fail(path, "a mapping (key: value)", describe(data))
        self._data: dict[Any, Any] = data

    def fail(self, path: KeyPath, expected: str, got: str) -> None:
        """Raise UsageError for a value below this mapping."""
        self._source.fail((*self._path, *path), expected, got)

    def peek(self, key: str) -> Any:
        """Return a value without marking its key as read."""
        return self._data.get(key)

    def _take(self, key: str) -> Any:
        self._seen.add(key)
        return self._data.get(key)

    def string(self, key: str, check: Check | None = None) -> str | None:
        """Return a string, or None without the key; UsageError if `check` rejects it."""
        value = self._take(key)
        if value is None:
            return None
        return self._checked_string(value, (key,), check)

    def required(self, key: str, check: Check | None = None) -> str:
        """Return a string; UsageError if the key is missing."""
        value = self.string(key, check)
        if value is None:
            self.fail((), f"the key {key!r}", "none")
            raise AssertionError
        return value

    def boolean(self, key: str) -> bool | None:
        """Return a boolean, or None without the key."""
        value = self._take(key)
        if value is not None and not isinstance(value, bool):
            self.fail((key,), "true or false", describe(value))
        return bool(value) if value is not None else None

    def strings(self, key: str, check: Check | None = None, *, single: bool = False) -> tuple[str, ...]:
        """Return a list of strings, empty without the key. single: also accept one string."""
        value = self._take(key)
        if single and isinstance(value, str):
            value = [value]
        items = self._list(key, value, "a list of strings")
        return tuple(self._checked_string(item, (key, index), check) for index, item in enumerate(items))

    def mappings(self, key: str) -> list[Section]:
        """Return a list of mappings, empty without the key."""
        items = self._list(key, self._take(key), "a list of mappings")
        return [Section(item, (*self._path, key, n), self._source) for n, item in enumerate(items)]

    def mapping(self, key: str) -> Section:
        """Return a mapping, empty without the key."""
        value = self._take(key)
        return Section({} if value is None else value, (*self._path, key), self._source)

    def names(self) -> list[str]:
        """Return all keys, which are arbitrary."""
        for key in self._data:
            if not isinstance(key, str):
                self.fail((), "names as keys", describe(key))
        return list(self._data)

    def all_strings(self) -> list[tuple[str, str]]:
        """Return all keys, which are arbitrary, with their strings."""
        return [(key, self.required(key)) for key in self._data]

    def refuse_the_rest(self) -> None:
        """Raise UsageError for keys that have not been read."""
        for key in self._data:
            if key not in self._seen:
                keys = ", ".join(sorted(self._seen))
                self.fail((str(key),), f"one of the keys {keys}", f"{key!r}")

    def _list(self, key: str, value: Any, expected: str) -> list[Any]:
        if value is not None and not isinstance(value, list):
            self.fail((key,), expected, describe(value))
        return value or []

    def _checked_string(self, value: Any, path: KeyPath, check: Check | None) -> str:
        if not isinstance(value, str):
            quote = " (put it in quotes)" if isinstance(value, (int, float)) else ""
            self.fail(path, f"a string{quote}", describe(value))
        if not value:
            self.fail(path, "a string with something in it", "an empty one")
        expected = check(value) if check else None
        if expected:
            self.fail(path, expected, repr(value))
        return str(value)


def dotted(path: KeyPath) -> str:
    """Return a key path as text, such as archives[1].suite."""
    parts = (f"[{item}]" if isinstance(item, int) else f".{item}" for item in path)
    return "".join(parts).lstrip(".")


def describe(value: Any) -> str:
    """Return a description of a value for error messages."""
    match value:
        case None:
            return "nothing"
        case bool() | int() | float():
            return f"{value!r}".lower()
        case str():
            return repr(value)
        case list():
            return "a list"
        case dict():
            return "a mapping"
    return f"a {type(value).__name__}"
