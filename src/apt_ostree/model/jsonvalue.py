"""Reads JSON into frozen dataclasses; an error names the field and the expected type."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

from apt_ostree.errors import UsageError

T = TypeVar("T")


def read(kind: type[T], value: Any, *, name: str) -> T:
    """Return an instance of a dataclass from a JSON object; UsageError names an invalid field.

    Every key must be a field, and every field without a default must be present. The type of a field is
    bool, int, float, str, an enum of strings, another dataclass, `X | None`, a tuple of these or a mapping
    of strings.

    name: of the value, for messages.
    """
    if not isinstance(value, Mapping):
        raise UsageError(f"{name}: expected an object, got {_describe(value)}")
    hints: Mapping[str, Any] = _hints(kind)  # type: ignore[arg-type]  # a class can be hashed
    if unknown_keys := sorted(str(key) for key in value if key not in hints):
        raise UsageError(
            f"{name}: unknown field {unknown_keys[0]!r}", hint=f"fields: {', '.join(hints) or 'none'}"
        )
    missing = [field.name for field in dataclasses.fields(kind) if _is_required(field)]  # type: ignore[arg-type]
    if absent := [key for key in missing if key not in value]:
        raise UsageError(f"{name}: the field {absent[0]!r} is missing")
    try:
        return kind(**{key: _convert(hints[key], value[key], f"{name}: {key}") for key in value})
    except ValueError as error:  # raised by a dataclass's own checks
        raise UsageError(f"{name}: {error}") from error


@cache
def _hints(kind: type[Any]) -> Mapping[str, Any]:
    """Return the types of a dataclass's fields."""
    hints = get_type_hints(kind)
    return {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, name: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _convert(arguments[0], value, name)
    if origin is tuple:
        return _tuple(arguments, value, name)
    if origin is not None:  # the only other generic is a mapping
        return _mapping(arguments, value, name)
    if dataclasses.is_dataclass(hint):
        return read(hint, value, name=name)  # type: ignore[arg-type]
    if issubclass(hint, StrEnum):
        if value in [*hint]:
            return hint(value)
        raise _wrong(name, f"one of {', '.join(hint)}", value)
    expected, fits = _PLAIN[hint]
    if not fits(value):
        raise _wrong(name, expected, value)
    return float(value) if hint is float else value


def _tuple(arguments: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _wrong(name, "a list", value)
    if arguments[1:] == (Ellipsis,):
        return tuple(_convert(arguments[0], item, f"{name}[{i}]") for i, item in enumerate(value))
    if len(value) != len(arguments):
        raise _wrong(name, f"a list of {len(arguments)}", value)
    pairs = zip(arguments, value, strict=True)
    return tuple(_convert(hint, item, f"{name}[{i}]") for i, (hint, item) in enumerate(pairs))


def _mapping(arguments: tuple[Any, ...], value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _wrong(name, "an object", value)
    return {key: _convert(arguments[1], item, f"{name}[{key!r}]") for key, item in value.items()}


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _is_text(value: Any) -> bool:
    """Tell whether a value is a string that the kernel takes for a path (os.fsencode)."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a pair of surrogates
        return False
    return True


_PLAIN: Mapping[type, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: ("a number", _is_number),
    str: ("a string", _is_text),
}


def _wrong(name: str, expected: str, value: Any) -> UsageError:
    return UsageError(f"{name}: expected {expected}, got {_describe(value)}")


def _describe(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return "an object"
    if value is None or isinstance(value, bool):  # not by equality: 1 == True
        return {None: "nothing", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) < 60 else f"{text:.57}..."
