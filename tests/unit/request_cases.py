"""Values of requests, right and wrong, made from the types of their fields: new ones are covered, too."""

from __future__ import annotations

import dataclasses
import json
import random
import types
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

from hypothesis import assume
from hypothesis import strategies as st

from apt_ostree.model.requests import Request

#: What one field may be wrong with: (the field as the message names it, the JSON of the whole request).
Malformed = tuple[str, dict[str, Any]]

#: JSON values of each kind; what a field's type accepts is left out.
_JSON: Mapping[str, tuple[Any, ...]] = {
    "null": (None,),
    "bool": (True, False),
    "int": (0, 1, 7),
    "float": (1.5, float("nan"), float("inf")),
    "str": ("", "no word of it", "nul\0", "half a pair \ud800"),
    "list": ([], [[]], [None], [1, 2, 3], [{}]),
    "object": ({}, {"no such field": 1}, {"key": None}),
}
#: A path that is not UTF-8 travels as Python reads it from the command line (os.fsdecode).
_text = st.binary(max_size=20).map(lambda data: data.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
_PLAIN: Mapping[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(0, 7) | st.integers(-(2**62), 2**62),
    float: st.floats(min_value=0, allow_infinity=False, exclude_min=True),
    str: _text,
}


def hints(kind: type[Any]) -> dict[str, Any]:
    """Return the types of a dataclass's fields, by name."""
    found = get_type_hints(kind)
    return {name: hint for name, hint in found.items() if get_origin(hint) is not ClassVar}


def required(kind: type[Any]) -> list[str]:
    """Return the fields that have no default."""
    missing = dataclasses.MISSING
    return [f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is missing]


# --- right values


def instances(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for instances of a dataclass, with any of the optional fields left out."""
    needed = required(kind)
    rows = {name: values(hint) for name, hint in hints(kind).items()}
    optional = {name: row for name, row in rows.items() if name not in needed}
    arguments = st.fixed_dictionaries({name: rows[name] for name in needed}, optional=optional)
    return _made(kind, arguments)


@st.composite
def _made(draw: st.DrawFn, kind: type[Any], arguments: st.SearchStrategy[dict[str, Any]]) -> Any:
    for _ in range(20):
        try:
            return kind(**draw(arguments))
        except ValueError:  # what a dataclass says of its own values
            continue
    return assume(False)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the values that a field of this type may have."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return st.none() | values(arguments[0])
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    if origin is not None:
        return st.dictionaries(*map(values, arguments), max_size=3)
    if dataclasses.is_dataclass(hint):
        return instances(hint)
    return st.sampled_from([*hint]) if issubclass(hint, StrEnum) else _PLAIN[hint]


def smallest(kind: type[Any]) -> dict[str, Any]:
    """Return a JSON object that is a request with as little as may be, and every required field."""
    found = {name: _small(hint) for name, hint in hints(kind).items() if name in required(kind)}
    return found or _chosen(kind)


def _chosen(kind: type[Any]) -> dict[str, Any]:
    """Return the object with the first field, if any, without which the dataclass takes no value."""
    for name in (None, *hints(kind)):
        given = {name: _small(hints(kind)[name])} if name else {}
        try:
            kind(**given)
        except ValueError:
            continue
        return given
    raise AssertionError(f"no single field makes a {kind.__name__}")


def _small(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return _small(get_args(hint)[0])
    if dataclasses.is_dataclass(hint):
        return {name: _small(inner) for name, inner in hints(hint).items() if name in required(hint)}
    if get_origin(hint) is tuple:
        return [] if get_args(hint)[1:] == (Ellipsis,) else [_small(inner) for inner in get_args(hint)]
    if get_origin(hint) is not None:
        return {}
    return next(iter(hint)) if issubclass(hint, StrEnum) else hint(1)


# --- wrong values


def malformed(kind: type[Request]) -> Iterator[Malformed]:
    """Yield JSON objects that are no request, with the field that is wrong."""
    right = smallest(kind)
    yield "no such field", {**right, "no such field": 1}
    for name in required(kind):
        yield name, {key: value for key, value in right.items() if key != name}
    for name, hint in hints(kind).items():
        for label, value in wrong(hint, name):
            yield label, {**right, name: value}


def wrong(hint: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield JSON values that a field of this type does not accept, with the words that name them."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        yield from ((label, value) for label, value in wrong(arguments[0], name) if value is not None)
        return
    yield from ((name, value) for kind in _JSON.keys() - _accepted(hint) for value in _JSON[kind])
    if origin is tuple and arguments[1:] == (Ellipsis,):
        yield from ((name, [value]) for _label, value in wrong(arguments[0], name))
    elif origin is tuple:
        right = [_small(inner) for inner in arguments]
        yield from ((name, [*right[:-1], value]) for _label, value in wrong(arguments[-1], name))
        yield from ((name, row) for row in ([], right[:-1], [*right, right[-1]]))
    elif origin is not None:
        yield from ((name, {"key": value}) for _label, value in wrong(arguments[1], name))
    elif dataclasses.is_dataclass(hint):
        right = {key: _small(inner) for key, inner in hints(hint).items() if key in required(hint)}
        yield "no such field", {**right, "no such field": 1}
        for key, inner in hints(hint).items():
            yield from ((label, {**right, key: value}) for label, value in wrong(inner, key))
    elif issubclass(hint, StrEnum):
        yield from ((name, value) for value in _JSON["str"])
    elif hint is str:
        yield from ((name, value) for value in _JSON["str"][2:])
    elif hint is float:
        yield from ((name, value) for value in (*_JSON["float"][1:], 10**400))


def _accepted(hint: Any) -> set[str]:
    """Return the kinds of JSON of which at least some values are right."""
    if get_origin(hint) is tuple:
        return {"list"}
    if get_origin(hint) is not None or dataclasses.is_dataclass(hint):
        return {"object"}
    return {bool: {"bool"}, int: {"int"}, float: {"int", "float"}}.get(hint, {"str"})


# --- anything at all

#: What may stand where the name of a verb or a query should.
NAMES = (None, "", "no such name", 1, (), {}, True)


def anything(rng: random.Random, depth: int = 3) -> Any:
    """Return a random JSON value."""
    kind = rng.choice([*_JSON])
    if depth and kind == "list":
        return [anything(rng, depth - 1) for _ in range(rng.randrange(4))]
    if depth and kind == "object":
        return {rng.choice(["packages", "live", "name", "\0", ""]): anything(rng, depth - 1)}
    return rng.choice(_JSON[kind])


def spoiled(rng: random.Random, value: Any) -> Any:
    """Return a JSON value with something in it replaced, added or left out."""
    value = json.loads(json.dumps(value))
    here, inner = None, value
    while isinstance(inner, dict | list) and inner and (here is None or rng.random() < 0.7):
        here, key = inner, rng.choice([*inner] if isinstance(inner, dict) else range(len(inner)))
        inner = here[key]
    if here is None:
        return anything(rng)
    if rng.random() < 0.2:
        del here[key]
    elif rng.random() < 0.2 and isinstance(here, dict):
        here[rng.choice(["no such field", f"{key} "])] = inner
    else:
        here[key] = anything(rng)
    return value
