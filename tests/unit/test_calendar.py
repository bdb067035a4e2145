"""Windows as systemd itself reads them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from apt_ostree.errors import UsageError
from apt_ostree.model.policy import Window
from apt_ostree.system import calendar


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


BERLIN = Window("Sun 04:00 Europe/Berlin", "1h")
SATURDAY = Window("Sat 02:00 UTC", "4h")
WEDNESDAY = Window("Wed 03:00 UTC", "1h 30min")


@pytest.mark.parametrize(
    ("windows", "now", "until", "opens"),
    [
        # 2026-11-28 is a Saturday.
        ([SATURDAY], "2026-11-28 01:59:59", None, "2026-11-28 02:00"),
        ([SATURDAY], "2026-11-28 02:00:00", "2026-11-28 06:00", "2026-12-05 02:00"),
        ([SATURDAY], "2026-11-28 05:59:59", "2026-11-28 06:00", "2026-12-05 02:00"),
        ([SATURDAY], "2026-11-28 06:00:00", None, "2026-12-05 02:00"),
        ([SATURDAY, WEDNESDAY], "2026-11-28 06:00:00", None, "2026-12-02 03:00"),
        ([SATURDAY, WEDNESDAY], "2026-12-02 04:29:59", "2026-12-02 04:30", "2026-12-05 02:00"),
        ([Window("*-*-* 22:00 UTC", "4h")], "2026-11-28 01:30", "2026-11-28 02:00", "2026-11-28 22:00"),
        ([Window("Mon..Fri 12:00 UTC", "1h")], "2026-11-28 12:30", None, "2026-11-30 12:00"),
        ([Window("2026-01-01 00:00 UTC", "1h")], "2026-11-28 12:30", None, None),
        # The clocks of Berlin are set back on 2026-10-25 and forward on 2026-03-29.
        ([BERLIN], "2026-10-18 02:30", "2026-10-18 03:00", "2026-10-25 03:00"),
        ([BERLIN], "2026-03-29 02:30", "2026-03-29 03:00", "2026-04-05 02:00"),
    ],
)
def test_how_a_moment_lies(windows, now, until, opens):
    times = calendar.times(windows, at(now))
    assert times.until == (at(until) if until else None)
    assert times.opens == (at(opens) if opens else None)
    assert bool(times.opens_text) == bool(opens)


@pytest.mark.parametrize(
    "window", [Window("Sot 02:00", "4h"), Window("Sat 02:00", "4 bananas"), Window("Sat", "0")]
)
def test_what_systemd_cannot_read(window):
    with pytest.raises(UsageError):
        calendar.times([window], 0)


def test_a_text_is_no_option():
    for window in (Window("--help", "1h"), Window("Sat", "--version")):
        with pytest.raises(UsageError):
            calendar.times([window], 0)
