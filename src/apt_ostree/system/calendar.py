"""Calendar events and spans of time as systemd reads them (systemd.time(7)); systemd-analyze(1) does it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from apt_ostree.errors import ExternalFailure, UsageError
from apt_ostree.model.policy import Times, Window
from apt_ostree.system import process

_SPAN = re.compile(r"^\s*[uμ]s: (\d+)$", re.MULTILINE)
_NEXT = re.compile(r"^\s*Next elapse: (.+)$", re.MULTILINE)
_IN_UTC = re.compile(r"^\s*\(in UTC\): (.+)$", re.MULTILINE)
_STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def times(windows: Iterable[Window], now: float) -> Times:
    """Return how a moment lies to windows, by the clock and the time zone of the machine.

    now: seconds since 1970.

    Raises UsageError, without the place of the setting, for a text that systemd cannot read.
    """
    ends, openings = [], []
    for window in windows:
        length = seconds_of(window.span)
        begun = _next(window.calendar, now - length)
        if begun and begun[0] <= now:
            ends.append(begun[0] + length)
        if opens := _next(window.calendar, now):
            openings.append(opens)
    until = max(ends, default=None)
    return Times(until, *min(openings)) if openings else Times(until)


def seconds_of(span: str) -> float:
    """Return the seconds of a span such as "4h" or "1h 30min"; raise UsageError for another text."""
    mistake = f"{span!r} is no span of time such as 4h"
    microseconds = _SPAN.search(_output(("timespan", "--", span), mistake))
    if microseconds is None or not int(microseconds[1]):
        raise UsageError(mistake)
    return int(microseconds[1]) / 1_000_000


def _next(calendar: str, after: float) -> tuple[float, str] | None:
    """Return when an event comes next, in seconds since 1970 and as local time; None if it never does."""
    arguments = ("calendar", f"--base-time=@{int(after)}", "--", calendar)
    out = _output(arguments, f"{calendar!r} is no calendar event such as 'Sat 02:00'")
    local = _NEXT.search(out)
    utc = _IN_UTC.search(out) or local
    stamp = _STAMP.search(utc[1]) if utc else None
    if local is None or stamp is None:  # "never"
        return None
    moment = datetime.fromisoformat(stamp[0]).replace(tzinfo=UTC)
    return moment.timestamp(), local[1].strip()


def _output(arguments: tuple[str, ...], mistake: str) -> str:
    """Return what systemd-analyze prints; raise UsageError with the mistake if it does not read the text."""
    done = process.run(["systemd-analyze", *arguments], what="read a time", check=False, merge_stderr=True)
    if done.returncode < 0:
        raise ExternalFailure("cannot read a time: systemd-analyze was killed")
    if done.returncode:
        raise UsageError(mistake, details=done.stdout.splitlines(), hint="see systemd.time(7)")
    return done.stdout
