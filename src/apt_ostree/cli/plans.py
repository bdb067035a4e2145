"""Turns a plan (a JSON object of a known kind) into lines of text. Pure; `render` prints them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def lines(kind: str, plan: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a plan."""
    return _RENDERERS[kind](plan)


def _transaction(plan: Mapping[str, Any]) -> Iterator[str]:
    headings = (
        ("install", "Installing"),
        ("upgrade", "Upgrading"),
        ("downgrade", "Downgrading"),
        ("remove", "Removing"),
    )
    for key, heading in headings:
        steps = plan[key]
        if steps:
            yield f"{heading} {count(len(steps), 'package')}:"
            yield from (f"  {_step(step)}" for step in steps)
    yield f"Download {size(plan['download_bytes'])}, disk {size(plan['disk_bytes'])}"


def _step(step: Mapping[str, Any]) -> str:
    versions = " -> ".join(filter(None, (step["old"], step["new"])))
    notes = [step["reason"], step["origin"], "security" if step["security"] else ""]
    return f"{step['name']} {versions} ({', '.join(filter(None, notes))})"


def count(number: int, noun: str) -> str:
    """Return "1 package", "2 packages"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size(number: int) -> str:
    """Return a size in decimal units, as apt prints it."""
    amount = float(number)
    for unit in ("B", "kB", "MB"):
        if abs(amount) < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


_RENDERERS: dict[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {"transaction": _transaction}
