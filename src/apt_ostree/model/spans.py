"""Spans of time as people write them (systemd.time(7))."""

from __future__ import annotations

import re

_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def read_span(text: str) -> float:
    """Return the seconds of a span such as 90, 10m, 1h30m or 2d; ValueError for another text, or for 0."""
    parts = re.findall(r"(\d+)([a-z]*)", compact := text.replace(" ", ""))
    has_valid_units = all(unit in _SECONDS or not unit for _number, unit in parts)
    is_complete = "".join(n + u for n, u in parts) == compact
    if not (has_valid_units and is_complete and any(int(n) for n, _unit in parts)):
        raise ValueError(f"{text!r} is not a span of time such as 90s, 10m or 1h30m")
    return float(sum(int(number) * _SECONDS.get(unit, 1) for number, unit in parts))
