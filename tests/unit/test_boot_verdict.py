"""The first boot of a deployment is judged, and what has failed is not tried again: on real deployments."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apt_ostree.core import apply_live, deployments
from apt_ostree.core.boot import moments
from apt_ostree.core.build.layering import Built
from apt_ostree.core.deploy import Recipe, Target, deploy
from apt_ostree.core.live import health
from apt_ostree.core.state import marks
from apt_ostree.core.status import status
from apt_ostree.errors import ExternalFailure, Refused
from apt_ostree.model import layout
from apt_ostree.model.history import Outcome
from apt_ostree.model.origin import Origin
from apt_ostree.model.package_plan import PackagePlan
from apt_ostree.model.queries import Status
from apt_ostree.model.requests.deployments import Rollback
from apt_ostree.model.requests.live import ApplyLive, Moment, Recover
from apt_ostree.model.requests.options import DeployOptions, LiveOptions
from apt_ostree.model.verdict import BootPolicy, Mark, Memory, Way
from apt_ostree.system import motd, statedb, verdicts
from tests.unit import repos
from tests.unit.repos import System

COMPLETE = "boot-complete.target"
TWO = LiveOptions(allow_replacement=True)


class Killed(BaseException):
    """The program ends in the middle."""


@pytest.fixture(autouse=True)
def messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of messages for users who log in."""
    monkeypatch.setattr(motd, "_DIRECTORY", tmp_path / "motd.d")
    return tmp_path / "motd.d"


@pytest.fixture
def check(system: System, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A required health check; what it is called with is its exit code."""
    directory = system.place / "health.d"
    repos.write_files(directory, {"check": "#!/bin/sh\n"})
    monkeypatch.setattr(health, "_REQUIRED", (str(directory),))

    def ends_with(code: int) -> None:
        system.programs.results[str(directory / "check")] = lambda _words: (code, "")

    return ends_with


@pytest.fixture
def fresh(system: System, monkeypatch: pytest.MonkeyPatch) -> System:
    """The second commit was deployed, and this is its first boot."""
    with system.open() as machine:
        machine.stage(system.two, Origin("two"), machine.deployments().all[0])
    system.programs.add_unit(COMPLETE)
    system.settings = replace(system.settings, boot_policy=BootPolicy.ROLLBACK)
    boots(system, monkeypatch)
    return system


def boots(system: System, monkeypatch: pytest.MonkeyPatch, *, again: bool = False) -> None:
    """Boot what is next. again: it is the deployment that the last boot was of."""
    first = system.order()[0]
    assert again == (system.booted == first)
    system.booted = first
    system.reboot(monkeypatch)
    system.events.clear()
    if not again:
        verdicts.UNJUDGED.touch()


def recover(system: System, at: Moment = Moment.VERDICT) -> Any:
    return system.run(moments.recover, Recover(at=at))


def deploying(system: System, commit: str, **options: Any) -> Any:
    def verb(tx, _request):
        with tx.changing("deploy"):
            return deploy(tx, Target(Origin("two"), commit), DeployOptions(**options))

    return system.run(verb, Rollback())


def reasons() -> list[str]:
    return [mark.reason for mark in verdicts.read().marks]


# --- the judgement


def test_a_good_boot_is_judged_once(fresh: System, check, monkeypatch):
    check(0)
    fresh.programs.add_unit("usual.service", ActiveState="failed")
    fresh.programs.add_unit("fine.service")
    assert recover(fresh).changed
    assert fresh.told()[-1].endswith("is good.")
    well = verdicts.read().well
    assert well and "fine.service" in well and "usual.service" not in well
    assert not verdicts.UNJUDGED.exists()
    check(1)
    assert not recover(fresh).changed
    verdicts.UNJUDGED.touch()  # after a boot of another deployment
    boots(fresh, monkeypatch, again=True)
    assert not recover(fresh).next_boot
    assert reasons() == []


def test_a_failed_boot_goes_back_and_the_next_one_says_why(fresh: System, check, monkeypatch):
    check(1)
    assert recover(fresh).next_boot
    assert fresh.order() == [fresh.one, fresh.two]
    boots(fresh, monkeypatch)
    result = recover(fresh)
    assert result.changed
    assert not result.next_boot  # the check fails here, too, but what runs has not failed before
    assert any("is booted again, because the boot of" in text for text in fresh.told("warning"))
    (booted, left) = status(Status()).deployments
    assert booted.back
    assert "cannot pass the health check" in booted.back.reason
    assert [mark.way for mark in left.failed] == [Way.BOOT]


@pytest.mark.parametrize("policy", [BootPolicy.TELL, BootPolicy.NONE])
def test_only_if_the_settings_say_so(fresh: System, check, policy: BootPolicy):
    fresh.settings = replace(fresh.settings, boot_policy=policy)
    check(1)
    assert not recover(fresh).next_boot
    assert fresh.order() == [fresh.two, fresh.one]
    assert len(reasons()) == (policy is BootPolicy.TELL)
    assert verdicts.UNJUDGED.exists() == (policy is BootPolicy.TELL)


def test_a_later_good_boot_takes_the_mark_away(fresh: System, check, monkeypatch):
    fresh.settings = replace(fresh.settings, boot_policy=BootPolicy.TELL)
    fresh.programs.units[COMPLETE]["ActiveState"] = "inactive"
    check(0)
    recover(fresh)
    assert reasons() == ["boot-complete.target was not reached"]
    assert not recover(fresh).changed  # of this boot all is said
    fresh.settings = replace(fresh.settings, boot_policy=BootPolicy.ROLLBACK)
    boots(fresh, monkeypatch, again=True)
    assert not recover(fresh).next_boot  # only the first boot leads back
    fresh.programs.units[COMPLETE]["ActiveState"] = "active"
    boots(fresh, monkeypatch, again=True)
    recover(fresh)
    assert reasons() == []
    assert not verdicts.UNJUDGED.exists()


def test_what_has_failed_live_may_boot_well(fresh: System, check):
    content = marks.content_of(fresh.repo, fresh.two)
    verdicts.write(Memory(marks=(Mark(content, Way.LIVE, fresh.two, 1.0, "a check"),)))
    check(0)
    recover(fresh)
    assert reasons() == []


def test_units_count_against_the_last_good_boot(fresh: System, check):
    check(0)
    verdicts.write(replace(verdicts.read(), well=("fine.service", "other.service")))
    for name in ("usual.service", "new.service", "fine.service"):
        fresh.programs.add_unit(name, ActiveState="failed")
    assert recover(fresh).next_boot
    assert reasons() == ["fine.service has failed, not so in the last good boot"]


def test_a_boot_has_its_time(fresh: System, check, monkeypatch):
    check(0)
    began = f"{int((time.monotonic() - 100) * 1e6)}\n"
    results = fresh.programs.results
    real = fresh.programs._systemctl
    results["systemctl"] = lambda words: (
        (0, began) if "--property=UserspaceTimestampMonotonic" in words else real(words)
    )
    assert not recover(fresh, Moment.TIMEOUT).changed
    assert fresh.programs.ran("systemd-run", "--on-active=500", "--at=timeout")
    # The boot that it is about may not have come to sysinit.target, and waits for the lock that is held now.
    for unit in ("property", "timer-property"):
        assert fresh.programs.ran("systemd-run", f"--{unit}=DefaultDependencies=no")
    fresh.settings = replace(fresh.settings, boot_timeout=90.0)
    assert recover(fresh, Moment.TIMEOUT).next_boot
    assert reasons() == ["it did not come to its end in 90 seconds"]


def test_a_boot_that_was_judged_is_not_late(fresh: System, check):
    fresh.settings = replace(fresh.settings, boot_policy=BootPolicy.TELL, boot_timeout=0.001)
    check(1)
    recover(fresh)
    assert not recover(fresh, Moment.TIMEOUT).changed
    assert len(reasons()) == 1


@pytest.mark.parametrize(
    "point", ["verdict.marked", "deployments.before-write", "deployments.after-write", "verdict.recorded"]
)
def test_killed_on_the_way_back(fresh: System, check, monkeypatch, point: str):
    """The next boot is of the old or the new deployment; of the new one it is judged as the first."""
    check(1)
    with monkeypatch.context() as patch:
        repos.fail_at(patch, point, Killed())
        with pytest.raises(Killed):
            recover(fresh)
    assert len(reasons()) == 1
    again = fresh.order()[0] == fresh.two
    assert again == (point in ("verdict.marked", "deployments.before-write"))
    boots(fresh, monkeypatch, again=again)
    assert recover(fresh).next_boot == again
    assert fresh.order() == [fresh.one, fresh.two]
    if not again:
        assert any("is booted again" in text for text in fresh.told("warning"))


def test_killed_when_a_good_boot_is_recorded(fresh: System, check, monkeypatch):
    check(0)
    with monkeypatch.context() as patch:
        repos.fail_at(patch, "verdict.settled", Killed())
        with pytest.raises(Killed):
            recover(fresh)
    boots(fresh, monkeypatch, again=True)
    recover(fresh)
    assert not verdicts.UNJUDGED.exists()
    assert fresh.order() == [fresh.two, fresh.one]


def test_the_boot_loader_has_given_up(fresh: System, monkeypatch):
    verdicts.UNJUDGED.unlink()
    fresh.booted = fresh.one
    monkeypatch.setattr(verdicts, "_ENTRIES", fresh.place / "boot/loader/entries")
    monkeypatch.setattr(verdicts, "_SYSROOT", fresh.place.resolve())
    assert fresh.told() == []
    (entry,) = (
        path
        for path in (fresh.place / "boot/loader/entries").iterdir()
        if fresh.two in str(_target(fresh, path))
    )
    entry.rename(entry.with_name(f"{entry.stem}+0-3.conf"))
    recover(fresh)
    assert reasons() == ["the boot loader gave it up after 3 attempts"]
    recover(fresh)
    assert len(verdicts.read().marks) == 1
    assert [len(one.failed) for one in status(Status()).deployments] == [1, 0]


def _target(system: System, entry: Path) -> Path:
    from apt_ostree.model.bootcounting import root_of

    return Path(f"{system.place}{root_of(entry.read_text())}").resolve()


# --- not tried again


@pytest.fixture
def failed(fresh: System, check, monkeypatch: pytest.MonkeyPatch) -> System:
    """The boot of the second commit has failed, and the first is booted again."""
    check(1)
    recover(fresh)
    boots(fresh, monkeypatch)
    check(0)
    recover(fresh)
    fresh.events.clear()
    return fresh


def test_what_has_failed_is_not_deployed_again(failed: System):
    before = failed.order()
    with pytest.raises(Refused, match="have failed before") as caught:
        deploying(failed, failed.two)
    assert "boot on 2" in caught.value.details[0]
    assert "--allow-failed" in str(caught.value.hint)
    assert failed.order() == before
    assert deploying(failed, failed.two, dry_run=True).details["failed"]
    assert "it is refused without --allow-failed" in failed.told("warning")[0]
    assert deploying(failed, failed.two, allow_failed=True).next_boot


@pytest.mark.parametrize("also", [{}, {"commands": (("true",),)}])
def test_another_initramfs_may_mend_a_boot(failed: System, monkeypatch: pytest.MonkeyPatch, also):
    """Its mark is about the arguments with which it is made, not about the files that it holds."""
    built = Built(PackagePlan(), failed.two)
    monkeypatch.setattr("apt_ostree.core.deploy._build", lambda *_args, **_options: built)

    def verb(tx, _request):
        with tx.changing("make the initramfs"):
            recipe = Recipe(failed.two, initramfs=True, **also)
            return deploy(tx, Target(Origin("two"), failed.two, recipe), DeployOptions())

    if also:
        with pytest.raises(Refused, match="have failed before"):
            failed.run(verb, Rollback())
    else:
        assert failed.run(verb, Rollback()).next_boot


def test_the_same_packages_in_another_commit_are_the_same(system: System):
    def layered(text: str, packages: str) -> str:
        words = {layout.META_BASE: system.one}
        tree = {**repos.TWO, "usr/x": text}
        return repos.write_commit(system.repo, tree, packages=repos.PACKAGES[packages], **words)

    commits = [layered("a", "two"), layered("b", "two"), layered("c", "one"), system.two]
    assert len(set(commits)) == 4
    one, again, others, base = (marks.content_of(system.repo, commit) for commit in commits)
    assert one == again
    assert len({one, others, base}) == 3


def test_no_rollback_to_what_has_failed(failed: System):
    with pytest.raises(Refused, match="have failed before"):
        failed.run(deployments.boot_previous, Rollback())
    assert failed.run(deployments.boot_previous, Rollback(dry_run=True)).changed
    assert failed.run(deployments.boot_previous, Rollback(allow_failed=True)).next_boot


def test_other_kernel_arguments_are_another_boot(failed: System):
    def verb(tx, _request):
        with tx.changing("deploy"):
            target = Target(Origin("two"), failed.two, kernel_arguments=("nomodeset",))
            return deploy(tx, target, DeployOptions())

    assert failed.run(verb, Rollback()).next_boot


def test_what_failed_to_boot_is_not_made_live(failed: System):
    with pytest.raises(Refused, match="have failed before"):
        failed.run(apply_live.apply_live, ApplyLive(target=failed.two, live=TWO))
    live = replace(TWO, allow_failed=True)
    assert failed.run(apply_live.apply_live, ApplyLive(target=failed.two, live=live)).live
    assert len(reasons()) == 1  # the boot may fail yet


# --- live changes


def applied(system: System, **options: Any) -> Any:
    live = replace(TWO, **options)
    return system.run(apply_live.apply_live, ApplyLive(target=system.two, live=live))


def outcomes() -> list[Outcome]:
    with statedb.read_only() as records:
        return [entry.outcome for entry in records.history()] if records else []


def test_a_live_change_that_fails_is_marked(system: System, check):
    check(1)
    with pytest.raises(ExternalFailure):
        applied(system)
    (mark,) = verdicts.read().marks
    assert (mark.way, mark.commit) == (Way.LIVE, system.two)
    check(0)
    with pytest.raises(Refused, match="have failed before"):
        applied(system)
    assert applied(system, allow_failed=True).live
    assert reasons() == []


def test_a_failure_that_is_not_of_health_is_not_marked(system: System, monkeypatch):
    with monkeypatch.context() as patch:
        repos.fail_at(patch, "act.switched")
        with pytest.raises(ExternalFailure):
            applied(system)
    assert not verdicts.exists()


@pytest.mark.parametrize("point", ["marks.before-write", "marks.written", "watch.begun", "confirm.armed"])
def test_killed_when_a_live_change_is_marked_or_watched(system: System, check, monkeypatch, point: str):
    """It is undone in any case, and the mark is there or not."""
    watches = not point.startswith("marks")
    system.settings = replace(system.settings, live_watch=60.0)
    check(0 if watches else 1)
    with monkeypatch.context() as patch:
        repos.fail_at(patch, point, Killed())
        with pytest.raises(Killed):
            applied(system)
    recover(system, Moment.CALL)
    assert system.kernel.usr == []
    assert len(reasons()) == (point == "marks.written")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is added to the clock."""
    ahead, real = [0.0], time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + ahead[0])
    return ahead


def test_what_is_watched_is_undone_when_something_fails(system: System, check, clock):
    check(0)
    system.programs.add_unit("usual.service", ActiveState="failed")
    system.settings = replace(system.settings, live_watch=60.0)
    with system.open() as machine:
        machine.stage(system.two, Origin("two"), machine.deployments().all[0])
    applied(system)
    assert system.programs.ran("systemd-run", "--on-active=30", "--at=deadline")
    clock[0] = 31
    assert not recover(system, Moment.DEADLINE).changed
    system.programs.add_unit("new.service", ActiveState="failed")
    clock[0] = 60
    assert recover(system, Moment.DEADLINE).changed
    assert outcomes() == [Outcome.UNHEALTHY]
    assert reasons() == ["new.service has failed"]
    assert system.order() == [system.one]
    assert system.kernel.usr == []


def test_watching_ends(system: System, check, clock):
    check(0)
    system.settings = replace(system.settings, live_watch=60.0)
    applied(system)
    clock[0] = 60
    recover(system, Moment.DEADLINE)
    check(1)
    clock[0] = 90
    assert not recover(system, Moment.DEADLINE).changed
    assert system.kernel.sources() == ["apt-ostree:1"]


def test_of_two_that_are_watched_the_newer_goes_first(system: System, check, clock):
    check(0)
    system.settings = replace(system.settings, live_watch=600.0)
    third = repos.write_commit(system.repo, {**repos.TWO, "usr/x": "3"}, ref="three", packages=[])
    applied(system)
    system.run(apply_live.apply_live, ApplyLive(target=third, live=TWO))
    check(1)
    assert recover(system, Moment.DEADLINE).changed
    assert system.kernel.sources()[-1] == "apt-ostree:1"
    assert recover(system, Moment.DEADLINE).changed
    assert system.kernel.usr == []
    assert len(reasons()) == 2


def test_confirming_and_watching_go_together(system: System, check, clock):
    check(0)
    system.settings = replace(system.settings, live_watch=600.0)
    applied(system, confirm_within=60.0)
    clock[0] = 61
    assert recover(system, Moment.DEADLINE).changed
    assert outcomes() == [Outcome.UNCONFIRMED]
    assert not verdicts.exists()
