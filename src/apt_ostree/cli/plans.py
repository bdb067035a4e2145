"""Turns a plan (a JSON object of a known kind) into lines of text. Pure; `render` prints them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

_RENDERERS: dict[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {}


def lines(kind: str, plan: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a plan."""
    return _RENDERERS[kind](plan)
