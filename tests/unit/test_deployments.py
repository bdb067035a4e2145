"""Which deployment is pending or the rollback, and what rollback and cleanup make of the order."""

import os

import pytest

from apt_ostree.cli import plans
from apt_ostree.model.deployment import Deployment, Deployments, Uncompleted, plan_cleanup, plan_rollback
from apt_ostree.model.origin import Origin
from tests.unit.repos import System


def deployments(words):
    """Make deployments of words such as "staged booted old pinned other:old"."""
    found = []
    for index, word in enumerate(words.split()):
        osname, _, name = word.rpartition(":")
        found.append(
            Deployment(
                index=index,
                osname=osname or "debian",
                checksum=f"{index}" * 64,
                serial=0,
                path=name,
                origin=Origin(),
                booted=name == "booted",
                staged=name == "staged",
                pinned=name == "pinned",
                unlocked="none",
            )
        )
    return Deployments(tuple(found))


def names(found):
    return " ".join(deployment.path for deployment in found)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("booted old", "old booted"),
        ("old booted", "booted old"),  # takes the first rollback back
        ("next booted old", "old next booted"),
        ("booted pinned old", "pinned booted old"),
    ],
)
def test_rollback(before, after):
    plan = plan_rollback(deployments(before))
    assert plan is not None
    assert (names(plan.order), plan.dropped) == (after, ())


@pytest.mark.parametrize("words", ["booted", "booted other:old"])
def test_nothing_to_roll_back_to(words):
    assert plan_rollback(deployments(words)) is None


@pytest.mark.parametrize(
    ("before", "options", "after", "kept"),
    [
        ("staged booted old", {"pending": True}, "booted old", ""),
        ("staged booted old", {"rollback": True}, "staged booted", ""),
        ("staged next booted old older", {"pending": True, "rollback": True}, "booted", ""),
        ("booted pinned old", {"rollback": True}, "booted pinned", "pinned"),
        ("booted old other:old", {"rollback": True}, "booted old", ""),
        ("staged booted old", {}, "staged booted old", ""),
    ],
)
def test_cleanup(before, options, after, kept):
    plan = plan_cleanup(deployments(before), "debian", **{"pending": False, "rollback": False, **options})
    assert names(plan.order) == after
    assert names(d for d, _reason in plan.kept) == kept


def test_cleanup_of_another_stateroot():
    plan = plan_cleanup(deployments("booted old other:old"), "other", pending=True, rollback=True)
    assert [d.osname for d, _reason in plan.dropped] == ["other"]


def test_text_names_what_is_dropped_and_why():
    plan = plan_cleanup(deployments("staged booted old"), "debian", pending=True, rollback=False)
    lines = list(plans.lines("deployments", plan.to_json()))
    assert lines == [f"Next boot: debian-{'1' * 64}.0", "Dropped:", f"  debian-{'0' * 64}.0 (pending)"]


def test_a_staged_deployment_that_no_shutdown_completed(system: System):
    """Staging writes the origin last; without it, staging itself was interrupted."""
    with system.open(writable=False) as sysroot:
        assert sysroot.uncompleted() is None
        (present,) = sysroot.deployments().all
        place = sysroot.directory(present).parent
        for name, time in ((f"{'a' * 64}.0", 100), (f"{'b' * 64}.1", 200), (f"{'c' * 64}.0", None)):
            (place / name).mkdir()
            if time:
                (place / f"{name}.origin").touch()
                os.utime(place / f"{name}.origin", (time, time))
        without_directory = place / f"{'d' * 64}.0.origin"
        without_directory.touch()
        os.utime(without_directory, (300, 300))
        assert sysroot.uncompleted() == Uncompleted("b" * 64, 200.0)
        os.utime(without_directory, (1e10, 1e10))  # nothing was staged since
        assert sysroot.uncompleted() == Uncompleted("d" * 64, 1e10)
