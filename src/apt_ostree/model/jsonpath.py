"""JSONPath, as far as rpm-ostree's `status --jsonpath` (json-glib) understands it.

`$`, `.name`, `['name']`, `.*`, `[*]`, `[n]`, `[a,b]`, `[from:to:step]`, and `..` before a name or bracket.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from apt_ostree.errors import UsageError

_STEP = re.compile(
    r"(?P<deep>\.\.)?(?:(?P<dot>\.)?(?P<name>[A-Za-z_][\w-]*|\*)|\[\s*(?P<inside>[^]]*?)\s*\])"
)
_SLICE = re.compile(r"(-?\d*):(-?\d*)(?::(-?\d+))?")

Selector = Callable[[Any], Iterator[Any]]


def query(document: Any, path: str) -> list[Any]:
    """Return every node that `path` selects, in document order; UsageError for what is not a path."""
    if not path.startswith("$"):
        raise _mistake(path, "it begins with '$'")
    nodes, position = [document], 1
    while position < len(path):
        found = _STEP.match(path, position)
        if not found or (found["name"] and bool(found["deep"]) == bool(found["dot"])):
            raise _mistake(path, f"{path[position:]!r} is no step of one")
        if found["deep"]:
            nodes = [inner for node in nodes for inner in _descend(node)]
        select = _named(found["name"]) if found["name"] else _bracket(path, found["inside"])
        nodes = [inner for node in nodes for inner in select(node)]
        position = found.end()
    return nodes


def _named(name: str) -> Selector:
    if name == "*":
        return _children

    def select(node: Any) -> Iterator[Any]:
        if isinstance(node, dict) and name in node:
            yield node[name]

    return select


def _bracket(path: str, inside: str) -> Selector:
    if inside == "*":
        return _children
    if quoted := re.fullmatch(r"'([^']*)'|\"([^\"]*)\"", inside):
        return _named(quoted[1] or quoted[2])
    if found := _SLICE.fullmatch(inside):
        cut = slice(*(int(word) if word else None for word in found.groups()))
        if cut.step != 0:
            return lambda node: iter(node[cut] if isinstance(node, list) else ())
    if re.fullmatch(r"-?\d+(\s*,\s*-?\d+)*", inside):
        return _indexed([int(word) for word in inside.split(",")])
    raise _mistake(path, f"[{inside}] selects nothing known")


def _indexed(indices: list[int]) -> Selector:
    def select(node: Any) -> Iterator[Any]:
        if isinstance(node, list):
            yield from (node[n] for n in indices if -len(node) <= n < len(node))

    return select


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        yield from node.values()
    elif isinstance(node, list):
        yield from node


def _descend(node: Any) -> Iterator[Any]:
    yield node
    for child in _children(node):
        yield from _descend(child)


def _mistake(path: str, reason: str) -> UsageError:
    return UsageError(
        f"{path!r} is not a JSONPath: {reason}", hint="an example: --jsonpath '$.deployments[0].version'"
    )
