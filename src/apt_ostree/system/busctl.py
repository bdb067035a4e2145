"""Questions to services of the system bus, by busctl(1).

What does not run is not started for a question, and what does not answer has no answer.
"""

from __future__ import annotations

import json
from typing import Any

from apt_ostree.errors import ExternalFailure
from apt_ostree.system import process

_PATIENCE = 10.0  # seconds for an answer on the bus


def call(service: str, path: str, interface: str, method: str) -> list[Any]:
    """Return the values that a method without arguments returns; none if nobody answers."""
    answers = _ask("call", service, path, interface, method)
    return list(answers[0]["data"]) if answers else []


def properties(service: str, path: str, interface: str, *names: str) -> list[Any]:
    """Return the values of properties; none if nobody answers."""
    return [one["data"] for one in _ask("get-property", service, path, interface, *names)]


def _ask(*arguments: str) -> list[Any]:
    options = ("--system", "--json=short", "--auto-start=no", f"--timeout={_PATIENCE:.0f}")
    try:
        done = process.run(
            ["busctl", *options, *arguments], what="ask the bus", check=False, timeout=2 * _PATIENCE
        )
    except ExternalFailure:
        return []
    return [json.loads(line) for line in done.stdout.splitlines()] if done.returncode == 0 else []
