"""Plans as text: what fits a screen, and what is always in full."""

from __future__ import annotations

from typing import Any

from apt_ostree.cli import plans
from apt_ostree.model.package import Package, PackageDiff
from apt_ostree.model.package_plan import PackagePlan, Step
from apt_ostree.model.plan import EtcAction, EtcStep, LivePlan, UnitAction, UnitStep


def shown(*steps: EtcStep, verbose: bool = False, **fields: Any) -> list[str]:
    files = {"added": 0, "changed": 0, "removed": 0}
    plan = LivePlan("a", "b", PackageDiff(), files, steps, (), **fields)
    lines = list(plans.lines("live", plan.to_json(), verbose=verbose))
    return lines[lines.index("/etc:") + 1 :]


NEW = [EtcStep(f"nginx/{number}", EtcAction.WRITE, "new", "nginx-common") for number in range(35)]
LINK = EtcStep("systemd/system/multi-user.target.wants/nginx.service", EtcAction.WRITE, "new")


def test_many_new_files_are_one_line_with_their_count_and_their_packages():
    assert shown(*NEW, LINK) == ["  write 36 paths: new (nginx-common 35, no package 1; -v lists them)"]


def test_all_are_listed_when_details_are_asked_for():
    lines = shown(*NEW, LINK, verbose=True)
    assert len(lines) == 36
    assert lines[0] == "  write nginx/0: new (nginx-common)"
    assert lines[-1] == f"  write {LINK.path}: new"


def test_few_are_listed():
    assert len(shown(*NEW[:5])) == 5


def test_only_the_first_packages_are_named():
    steps = [EtcStep(f"{name}.conf", EtcAction.REMOVE, "gone", name) for name in "aabbccddeeff"]
    assert shown(*steps) == [
        "  remove 12 paths: gone (a 2, b 2, c 2, d 2 and 2 more packages; -v lists them)"
    ]


def test_conflicts_and_refusals_are_always_in_full():
    kept = [EtcStep(f"{number}.conf", EtcAction.KEEP, "the administrator edited it") for number in range(50)]
    lines = shown(*kept, refusals=tuple(f"reason {number}" for number in range(30)))
    assert len(lines) == 50 + 1 + 30


def test_plans_of_older_records_can_still_be_shown():
    plan = LivePlan(
        "a", "b", PackageDiff(), {"added": 0, "changed": 0, "removed": 0}, tuple(NEW), ()
    ).to_json()
    for step in plan["etc"]:
        del step["package"]
    assert "  write 35 paths: new (no package 35; -v lists them)" in plans.lines("live", plan)


def live(packages: PackageDiff, units: tuple[UnitStep, ...] = ()) -> dict[str, Any]:
    return LivePlan("a", "b", packages, {"added": 0, "changed": 0, "removed": 0}, (), units).to_json()


def test_packages_that_were_just_shown_are_not_listed_again():
    plan = live(PackageDiff(added=(Package("a", "1", "all"),)))
    transaction = PackagePlan(install=(Step("a", "all", "", "1"), Step("b", "all", "", "1"))).to_json()
    assert "  a 1" in plans.lines("live", plan)
    assert "  a 1" not in plans.lines("live", plan, transaction=transaction)
    other = PackagePlan(install=(Step("b", "all", "", "1"),)).to_json()
    assert "  a 1" in plans.lines("live", plan, transaction=other)


def test_only_some_units_that_are_left_alone_are_listed():
    units = tuple(UnitStep(f"{n}.service", UnitAction.SKIP, "it runs", acts=False) for n in range(20))
    rows = list(plans.lines("live", live(PackageDiff(), units)))
    assert "  13 more units (-v lists them)" in rows and len(rows) == 11
    assert len(list(plans.lines("live", live(PackageDiff(), units), verbose=True))) == 23
