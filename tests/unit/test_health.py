"""Whether the system is well."""

from __future__ import annotations

import pytest

from apt_ostree.model.health import checks_in_force, is_well, problem, watched_for
from apt_ostree.model.unit import Unit

VENDOR, ADMIN = "/usr/lib/apt-ostree/health.d", "/etc/apt-ostree/health.d"
OTHER_VENDOR, OTHER_ADMIN = "/usr/lib/greenboot/check/required.d", "/etc/greenboot/check/required.d"
DIRECTORIES = (VENDOR, ADMIN, OTHER_VENDOR, OTHER_ADMIN)


@pytest.mark.parametrize(
    ("programs", "in_force"),
    [
        ({}, ()),
        ({VENDOR: {"a": True, "README": False}}, (f"{VENDOR}/a",)),
        ({VENDOR: {"a": True}, ADMIN: {"a": True}}, (f"{ADMIN}/a",)),
        ({VENDOR: {"a": True}, ADMIN: {"a": False}}, ()),  # a link to /dev/null
        ({VENDOR: {"a": True}, OTHER_ADMIN: {"a": False}}, (f"{VENDOR}/a",)),  # of another kind
        ({VENDOR: {"b": True}, ADMIN: {"a": True}}, (f"{ADMIN}/a", f"{VENDOR}/b")),  # by name
        ({OTHER_VENDOR: {"a": True}, VENDOR: {"z": True}}, (f"{VENDOR}/z", f"{OTHER_VENDOR}/a")),
    ],
)
def test_checks_in_force(programs: dict[str, dict[str, bool]], in_force: tuple[str, ...]):
    assert checks_in_force(DIRECTORIES, lambda directory: programs.get(directory, {})) == in_force


def unit(**properties: str) -> Unit:
    return Unit("a.service", {"ActiveState": "active", "Type": "simple", **properties})


@pytest.mark.parametrize(
    ("now", "before", "is_trouble"),
    [
        (unit(), unit(), False),
        (unit(), None, False),
        (unit(ActiveState="activating"), unit(), False),  # it takes its time
        (unit(ActiveState="failed"), unit(), True),
        (unit(ActiveState="inactive"), unit(), True),
        (unit(ActiveState="inactive", Type="oneshot"), unit(), False),  # it has done its work
        (unit(ActiveState="failed", Type="oneshot"), unit(), True),
        (unit(ActiveState="activating", SubState="auto-restart"), None, True),
        (unit(NRestarts="3"), unit(NRestarts="3"), False),  # from before
        (unit(NRestarts="4"), unit(NRestarts="3"), True),
        (unit(NRestarts="4"), unit(), True),
        (unit(NRestarts="4"), None, False),  # nobody knows when
    ],
)
def test_trouble(now: Unit, before: Unit | None, is_trouble: bool):
    assert bool(problem(now, before)) is is_trouble


@pytest.mark.parametrize(
    ("now", "is_trouble"),
    [
        (unit(), False),
        (unit(ActiveState="inactive"), False),  # a condition was not met, or it had nothing to do
        (unit(ActiveState="failed"), True),
        (unit(ActiveState="activating", SubState="auto-restart"), True),
        (unit(NRestarts="1"), True),
    ],
)
def test_trouble_of_a_unit_that_did_not_run_before(now: Unit, is_trouble: bool):
    assert bool(problem(now, unit(), new=True)) is is_trouble


@pytest.mark.parametrize(
    ("state", "seconds", "well"),
    [("active", 1.0, False), ("active", 2.0, True), ("activating", 9.0, False), ("inactive", 0.0, True)],
)
def test_how_long_a_unit_is_watched(state: str, seconds: float, well: bool):
    assert is_well(unit(ActiveState=state), seconds, 2.0) is well


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [("simple", 2.0), ("exec", 2.0), ("idle", 2.0), ("forking", 2.0), ("notify", 0.5), ("dbus", 0.5),
     ("oneshot", 0.5), ("", 0.5)],
)  # fmt: skip
def test_what_reports_its_readiness_is_watched_for_a_shorter_time(kind: str, seconds: float):
    assert watched_for(unit(Type=kind), 2.0) == seconds
