"""JSONPath, with the subset of rpm-ostree's `status --jsonpath` (json-glib).

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
    """Return the nodes that `path` selects, in document order; UsageError for an invalid path."""
    if not path.startswith("$"):
        raise _mistake(path, "it begins with '$'")
    nodes, position = [document], 1
    while position < len(path):
        step = _STEP.match(path, position)
        if not step or (step["name"] and bool(step["deep"]) == bool(step["dot"])):
            raise _mistake(path, f"{path[position:]!r} is not a valid step")
        if step["deep"]:
            nodes = [inner for node in nodes for inner in _descend(node)]
        select = _named(step["name"]) if step["name"] else _bracket(path, step["inside"])
        nodes = [inner for node in nodes for inner in select(node)]
        position = step.end()
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
    if bounds := _SLICE.fullmatch(inside):
        cut = slice(*(int(number) if number else None for number in bounds.groups()))
        if cut.step != 0:
            return lambda node: iter(node[cut] if isinstance(node, list) else ())
    if re.fullmatch(r"-?\d+(\s*,\s*-?\d+)*", inside):
        return _indexed([int(number) for number in inside.split(",")])
    raise _mistake(path, f"[{inside}] is not a valid selector")


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
