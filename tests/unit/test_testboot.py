"""Test boots: which problems count."""

from __future__ import annotations

import pytest

from apt_ostree.model import testboot
from apt_ostree.model.testboot import Boot

ROWS = [
    {"unit": "a.service", "load": "loaded", "active": "active", "sub": "running"},
    {"unit": "b.service", "load": "loaded", "active": "failed", "sub": "failed"},
    {"unit": "c.service", "load": "loaded", "active": "activating", "sub": "auto-restart"},
    {"unit": "d.service", "load": "loaded", "active": "activating", "sub": "start"},
    {"unit": "e.service", "load": "not-found", "active": "inactive", "sub": "dead"},
]
FAILS = {"b.service": "it failed"}


def test_units_that_failed_or_are_restarted_are_in_trouble():
    assert testboot.troubled(ROWS).keys() == {"b.service", "c.service"}


def test_units_that_are_starting_are_not_ready():
    assert testboot.unready(ROWS).keys() == {"c.service", "d.service"}


@pytest.mark.parametrize(
    ("target", "present", "expected"),
    [
        (Boot("running"), Boot("running"), set()),
        (Boot("running"), Boot("degraded", FAILS), set()),
        (Boot("degraded", FAILS), Boot("running"), {"b.service"}),
        (Boot("degraded", FAILS), Boot("degraded", FAILS), set()),
        (Boot("degraded", FAILS), Boot("degraded", {"c.service": "it failed"}), {"b.service"}),
        (Boot("running", checks={"/etc/x": "no"}), Boot("running"), {"/etc/x"}),
        (Boot("running", checks={"/etc/x": "no"}), Boot("running", checks={"/etc/x": "not"}), set()),
        (Boot("starting"), Boot("running"), {"the boot"}),
        (Boot("starting"), Boot("starting"), set()),
        (Boot("starting", {"d.service": "late"}), Boot("starting"), {"d.service"}),
        (Boot("maintenance", FAILS), Boot("running"), {"b.service"}),
    ],
)
def test_what_the_present_tree_has_too_does_not_count(target: Boot, present: Boot, expected: set[str]):
    assert testboot.regressions(target, present).keys() == expected
