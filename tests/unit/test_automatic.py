"""Automatic updates: what is decided of facts and settings, a simulated month, and a fleet of machines."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from apt_ostree.core.automatic import Ran, run
from apt_ostree.errors import AptOstreeError, Cancelled, ExternalFailure, Refused
from apt_ostree.model import automatic
from apt_ostree.model.automatic import Facts, Offer, Record
from apt_ostree.model.automatic_settings import AutomaticSettings, Policy
from apt_ostree.model.history import Entry, Outcome
from apt_ostree.model.package import PackageChange, PackageDiff
from apt_ostree.model.plan import LivePlan, UnitAction, UnitStep
from apt_ostree.model.prediction import Prediction, describe, predict
from apt_ostree.model.update import Update
from apt_ostree.model.verdict import Way

HOUR, DAY = 3600.0, 86400.0
NOW = 1_800_000_000.0
FACTS = Facts(now=NOW, uptime=30 * DAY, machine="m")
OFFER = Offer("one", "c" * 64, "13.2", NOW)
PLAIN, WAITING = Record(), Record(waiting_since=NOW - 8 * DAY)
FAILED = Record(target="one", attempts=1, failed_at=NOW - HOUR / 2, failure="dpkg failed")
ALICE = replace(FACTS, users=("alice", "bob"))
METERED, BATTERY = replace(FACTS, metered=True), replace(FACTS, on_battery=True)
BUSY, JUST_BOOTED = replace(FACTS, load=3.5), replace(FACTS, uptime=HOUR)
OLD = Offer("one", "c" * 64, "13.2", NOW - 10 * DAY)
PACKAGES = Offer("one", "c" * 64, "13.2")
URL = "https://updates.example.com/halt"


def settings(halt_at: str = "", **changes) -> AutomaticSettings:
    return replace(AutomaticSettings(), halt=halt_at, **changes)


def begins(facts, record=PLAIN, **changes):
    return automatic.against_run(settings(**changes), record, facts)


def stages(facts=FACTS, record=PLAIN, offer=OFFER, halt="", **changes):
    return automatic.against_stage(settings(**changes), record, facts, offer, halt)


def reboots(facts=FACTS, record=PLAIN, halt="", **changes):
    return automatic.against_reboot(settings(**changes), record, facts, OFFER, halt)


def lives(facts=FACTS, record=PLAIN, halt="", **changes):
    return automatic.against_live(settings(**changes), record, facts, OFFER, halt)


@pytest.mark.parametrize(
    ("reasons", "made_by"),
    [
        # a run
        (begins(FACTS), []),
        (begins(METERED), ["OnMetered=no"]),
        (begins(METERED, on_metered=True), []),
        (begins(BATTERY), ["OnBattery=no"]),
        (begins(BATTERY, on_battery=True), []),
        (begins(replace(METERED, on_battery=True)), ["OnMetered=no", "OnBattery=no"]),
        (begins(replace(FACTS, driver="Zincati"), WAITING, max_defer=DAY), [""]),
        (begins(BUSY), []),
        (begins(BUSY, max_load=2.0), ["MaxLoad=2"]),
        (begins(BUSY, max_load=4.0), []),
        (begins(ALICE), []),
        (begins(METERED, WAITING), ["OnMetered=no"]),
        (begins(METERED, WAITING, max_defer=7 * DAY), []),
        (begins(METERED, WAITING, max_defer=9 * DAY), ["OnMetered=no"]),
        (begins(METERED, PLAIN, max_defer=DAY), ["OnMetered=no"]),
        # a deployment
        (stages(), []),
        (stages(ALICE), []),
        (stages(record=FAILED), ["RetryPause=1h"]),
        (stages(record=replace(FAILED, failed_at=NOW - HOUR)), []),
        (stages(record=replace(FAILED, attempts=2, failed_at=NOW - HOUR)), ["RetryPause=1h"]),
        (stages(record=replace(FAILED, attempts=2, failed_at=NOW - 2 * HOUR)), []),
        (stages(record=replace(FAILED, attempts=3, failed_at=0)), ["Attempts=3"]),
        (stages(record=replace(FAILED, attempts=3, failed_at=0), attempts=5), []),
        (stages(record=replace(FAILED, attempts=3, waiting_since=1.0), max_defer=DAY), ["Attempts=3"]),
        (stages(phases=(0.0, 1.0)), ["Phases=0% 100%"]),
        (stages(phases=(0.0, 1.0), record=WAITING, max_defer=DAY), ["Phases=0% 100%"]),
        (stages(phases=(0.0, 1.0), offer=OLD), []),
        (stages(phases=(0.0, 1.0), offer=PACKAGES, record=Record(since=NOW)), ["Phases=0% 100%"]),
        (stages(phases=(0.0, 1.0), offer=PACKAGES, record=Record(since=NOW - DAY)), []),
        (stages(halt="all"), []),
        (stages(halt="", halt_at=URL), []),
        (stages(halt="all # until Monday", halt_at=URL), [f"Halt={URL}"]),
        (stages(halt="# all\n13.2\n", halt_at=URL), [f"Halt={URL}"]),
        (stages(halt="c" * 64, halt_at=URL), [f"Halt={URL}"]),
        (stages(halt="13.1", halt_at=URL), []),
        (stages(halt=None, halt_at=URL), [f"Halt={URL}"]),
        (stages(halt="all", halt_at=URL, record=WAITING, max_defer=DAY), [f"Halt={URL}"]),
        # a reboot
        (reboots(), []),
        (reboots(ALICE), ["RebootWithUsers=no"]),
        (reboots(ALICE, reboot_with_users=True), []),
        (reboots(ALICE, WAITING, max_defer=7 * DAY), []),
        (reboots(JUST_BOOTED), []),
        (reboots(JUST_BOOTED, reboot_interval=DAY), ["RebootInterval=1d"]),
        (reboots(reboot_interval=DAY), []),
        (reboots(halt="all", halt_at=URL), [f"Halt={URL}"]),
        # a live change
        (lives(), []),
        (lives(ALICE), []),
        (lives(ALICE, live_with_users=False), ["LiveWithUsers=no"]),
        (lives(record=FAILED), ["RetryPause=1h"]),
        (lives(JUST_BOOTED, reboot_interval=DAY), []),
        (lives(halt="all", halt_at=URL), [f"Halt={URL}"]),
    ],
)  # fmt: skip
def test_what_is_deferred_and_by_which_setting(reasons, made_by):
    assert [reason.setting for reason in reasons] == made_by


def test_a_reason_names_the_users():
    assert "alice, bob" in reboots(ALICE)[0].text


# --- the identity of an update


def test_the_same_update_has_the_same_identity_anywhere():
    change = PackageChange("dash", "amd64", "1", "2")
    update = Update(
        against="a", osname="debian", origin="d:x", commit="c", version="2", timestamp=5, new_base=True,
        gpg_enabled=False, diff=PackageDiff(changed=(change,)),
    )  # fmt: skip
    here = automatic.offer_of(update, "x")
    assert (here.commit, here.version, here.made) == ("c", "2", 5.0)
    assert automatic.offer_of(replace(update, against="b", osname="other"), "y").identity == here.identity
    newer = replace(update, diff=PackageDiff(changed=(replace(change, new="3"),)))
    assert automatic.offer_of(newer, "x").identity != here.identity
    assert automatic.offer_of(replace(update, new_base=False), "x").made is None
    assert automatic.offer_of(None, "x").identity != automatic.offer_of(None, "y").identity


# --- what a deployment would mean


def plan(*units: UnitStep, **more) -> LivePlan:
    return LivePlan("a", "b", PackageDiff(), {}, (), units, **more)


def entry(number: int, outcome: Outcome, **steps: float) -> Entry:
    return Entry(number, "boot", "upgrade", "root", 0.0, "a", "b", steps=steps, outcome=outcome)


RESTART = UnitStep("web.service", UnitAction.RESTART, "why")
SESSION = UnitStep("session-3.scope", UnitAction.DEFER, "why", acts=False)
DEFERRED = UnitStep("dbus.service", UnitAction.DEFER, "why", acts=False)
NAMED = UnitStep("cron.service", UnitAction.RESTART, "why", acts=False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (plan(), ["live: acts on no units"]),
        (plan(RESTART, NAMED), ["live: acts on web.service"]),
        (plan(SESSION), ["live: acts on no units", "old code stays in: session-3.scope"]),
        (
            plan(RESTART, DEFERRED, deferred=("kernel 6.12 waits for the reboot",)),
            ["live: acts on web.service",
             "waits for a reboot: kernel 6.12 waits for the reboot, dbus.service"],
        ),
        (plan(RESTART, refusals=("no space",)), ["needs a reboot: no space"]),
    ],
)  # fmt: skip
def test_what_a_plan_would_mean(given, expected):
    prediction = predict("b", given, ())
    assert list(describe(prediction.to_json())) == expected
    assert (prediction.impact, prediction.seconds) == (given.impact, None)
    record = Record(prediction=prediction)
    assert automatic.parse_record(automatic.format_record(record)) == record


def test_the_time_is_that_of_earlier_changes():
    history = [
        entry(1, Outcome.LIVE, detection=1.0, application=2.0),
        entry(2, Outcome.FAILED, detection=90.0),
        entry(3, Outcome.ENDED, detection=2.0, application=3.0),
        entry(4, Outcome.LIVE, detection=60.0),
    ]
    found = predict("b", plan(RESTART), history)
    assert found.seconds == 5.0
    assert "in about 5 s" in next(describe(found.to_json()))


def test_many_units_are_counted():
    units = [UnitStep(f"{number}.service", UnitAction.RESTART, "why") for number in range(9)]
    assert "4.service, 4 more" in next(describe(predict("b", plan(*units), ()).to_json()))


# --- the record


def test_a_record_comes_back():
    record = Record(last_run=1.5, policy=Policy.APPLY, outcome="deferred", reasons=("x",), attempts=2)
    assert automatic.parse_record(automatic.format_record(record)) == record


@pytest.mark.parametrize("text", ["", "{", "[]", '{"later": 1}', '{"policy": "sometimes"}'])
def test_a_record_that_cannot_be_read_is_a_new_one(text):
    assert automatic.parse_record(text) == Record()


def test_users_are_told_while_something_waits():
    assert automatic.message_of_the_day(Record(outcome="current")) == ""
    text = automatic.message_of_the_day(replace(WAITING, outcome="deferred", reasons=("the reason",)))
    assert "the reason" in text
    assert all(line.startswith("Updates: ") for line in text.splitlines())


# --- facts


def test_users_are_those_who_use_a_session():
    sessions = [
        ("alice", "user", "active"),
        ("alice", "user", "online"),
        ("bob", "user", "closing"),
        ("gdm", "greeter", "active"),
        ("carol", "background", "active"),
        ("carol", "manager", "active"),
    ]
    assert automatic.users_of(sessions) == ("alice",)


MAINS, BATTERY_FILES = {"type": "Mains", "online": "0"}, {"type": "Battery", "status": "Discharging"}


@pytest.mark.parametrize(
    ("supplies", "battery"),
    [
        ([], False),
        ([BATTERY_FILES], True),
        ([MAINS, BATTERY_FILES], True),
        ([{**MAINS, "online": "1"}, BATTERY_FILES], False),
        ([{"type": "USB", "online": "2"}, BATTERY_FILES], False),
        ([{**BATTERY_FILES, "scope": "Device"}], False),
        ([{"type": "Battery", "status": "Full"}], False),
    ],
)
def test_power_from_a_battery(supplies, battery):
    assert automatic.runs_on_battery(supplies) is battery


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "5s"), (90, "1.5min"), (3600, "1h"), (5400, "1.5h"), (172800, "2d"), (40000, "11h")],
)
def test_spans_are_short(seconds, text):
    assert automatic.show_span(seconds) == text


# --- one run


@dataclass
class Machine:
    """A machine that is only simulated: what it is offered, what it is at, and what was done when.

    offered: the newest update of the archives, or None before the first one.
    at: the update that it runs. staged: the one for the next boot.
    failing: updates that cannot be deployed. closed: whether a policy refuses changes now.
    needs_reboot: a live change is refused.
    """

    facts_now: Facts = FACTS
    offered: str | None = None
    at: str | None = None
    staged: str | None = None
    live: str | None = None
    failing: frozenset[str] = frozenset()
    closed: bool = False
    needs_reboot: bool = False
    halt_text: str | None = ""
    no_reboot: str = ""
    done: list[tuple[float, str]] = field(default_factory=list)
    record: Record = field(default_factory=Record)

    def facts(self) -> Facts:
        return self.facts_now

    def check(self) -> Offer | None:
        self._do("check")
        newest = self.offered if self.offered not in (self.staged or self.at, None) else None
        return Offer(newest, newest, newest, None) if newest else None

    def halt(self) -> str | None:
        return self.halt_text

    def stage(self, *, live: bool) -> str:
        if self.closed:
            raise Refused("outside the maintenance window")
        if live and self.needs_reboot:
            raise Refused("the kernel changes")
        self._do("stage")
        if self.offered in self.failing:
            raise ExternalFailure(f"{self.offered} cannot be installed")
        self.staged = self.offered
        if live:
            self.apply_live()
        return self.staged

    def predict(self) -> Prediction | None:
        return Prediction(commit=self.staged or "", units=("a.service",))

    def pending(self) -> Offer | None:
        return Offer(self.staged, self.staged, self.staged) if self.staged else None

    def is_live(self) -> bool:
        return self.staged is not None and self.live == self.staged

    def apply_live(self) -> None:
        if self.closed or self.needs_reboot:
            raise Refused("the kernel changes" if self.needs_reboot else "outside the maintenance window")
        self._do("live")
        self.live = self.staged

    def may_reboot(self) -> str:
        if self.closed:
            raise Refused("outside the maintenance window")
        return self.no_reboot

    def _do(self, what: str) -> None:
        self.done.append((self.facts_now.now, what))

    def run(self, policy: Policy, given: AutomaticSettings) -> Ran:
        ran = run(policy, given, self.record, self)
        self.record = ran.record
        if ran.reboot:
            self._do("reboot")
            self.at, self.staged, self.live = self.staged, None, None
        return ran

    def verbs(self) -> list[str]:
        return [what for _when, what in self.done]


@pytest.mark.parametrize(
    ("policy", "verbs", "outcome"),
    [
        (Policy.CHECK, ["check"], "noted"),
        (Policy.STAGE, ["check", "stage"], "staged"),
        (Policy.APPLY, ["check", "stage", "reboot"], "reboot"),
        (Policy.LIVE, ["check", "stage", "live"], "live"),
    ],
)
def test_a_policy_does_so_much(policy, verbs, outcome):
    machine = Machine(offered="one")
    ran = machine.run(policy, AutomaticSettings())
    assert (machine.verbs(), ran.record.outcome) == (verbs, outcome)
    assert ran.failure is None


@pytest.mark.parametrize("policy", [Policy.CHECK, Policy.STAGE, Policy.APPLY, Policy.LIVE])
def test_without_an_update_nothing_is_done(policy):
    machine = Machine(offered="one", at="one")
    assert machine.run(policy, AutomaticSettings()).record.outcome == "current"
    assert machine.verbs() == ["check"]
    assert machine.record.waiting_since == 0


def test_a_metered_connection_is_not_used():
    machine = Machine(METERED, offered="one")
    assert machine.run(Policy.CHECK, AutomaticSettings()).record.reasons == (
        "the connection is metered [OnMetered=no]",
    )
    assert machine.verbs() == []


def test_a_reboot_that_was_deferred_is_made_later():
    machine = Machine(ALICE, offered="one")
    ran = machine.run(Policy.APPLY, AutomaticSettings())
    assert (ran.record.outcome, ran.reboot, machine.staged) == ("deferred", False, "one")
    machine.facts_now = replace(FACTS, now=NOW + HOUR)
    assert machine.run(Policy.APPLY, AutomaticSettings()).reboot
    assert machine.verbs() == ["check", "stage", "check", "reboot"]


def test_the_administrators_own_deployment_is_not_booted_into():
    machine = Machine(offered="one", at="one", staged="one")
    assert machine.run(Policy.APPLY, AutomaticSettings()).record.outcome == "current"
    assert machine.verbs() == ["check"]


def test_the_command_before_a_reboot_can_defer_it():
    machine = Machine(offered="one", no_reboot="lock: exited with 1")
    ran = machine.run(Policy.APPLY, AutomaticSettings())
    assert (ran.reboot, ran.record.reasons) == (False, ("lock: exited with 1 [BeforeReboot]",))


def test_a_refusal_is_no_failure():
    machine = Machine(offered="one", closed=True)
    ran = machine.run(Policy.APPLY, AutomaticSettings())
    assert (ran.failure, ran.record.outcome) == (None, "deferred")
    assert ran.record.reasons == ("outside the maintenance window",)
    assert machine.record.attempts == 0


def test_an_error_of_the_system_is_a_failure():
    class Full(Machine):
        def stage(self, *, live):
            raise OSError(28, "No space left on device")

    ran = Full(offered="one").run(Policy.STAGE, AutomaticSettings())
    assert (ran.record.attempts, ran.record.outcome) == (1, "failed")
    assert isinstance(ran.failure, ExternalFailure)


@pytest.mark.parametrize("act", ["check", "stage", "apply_live"])
def test_a_cancel_is_not_remembered_as_a_failure(act, monkeypatch):
    def cancelled(_self, **_options):
        raise Cancelled("cancelled")

    monkeypatch.setattr(Machine, act, cancelled)
    machine = Machine(ALICE, offered="one")
    with pytest.raises(Cancelled):
        machine.run(
            Policy.STAGE if act == "stage" else Policy.LIVE, settings(live_with_users=act != "apply_live")
        )
        machine.facts_now = FACTS
        machine.run(Policy.LIVE, AutomaticSettings())
    assert machine.record.attempts == 0


def test_what_cannot_be_live_waits_for_the_reboot():
    machine = Machine(offered="one", needs_reboot=True)
    ran = machine.run(Policy.LIVE, AutomaticSettings())
    assert (ran.record.outcome, ran.record.reasons) == ("deferred", ("the kernel changes",))
    assert (machine.staged, machine.live, ran.changed, ran.failure) == ("one", None, True, None)
    assert not machine.run(Policy.LIVE, AutomaticSettings()).changed


def test_what_fails_live_is_not_staged():
    machine = Machine(offered="one", failing=frozenset({"one"}))
    ran = machine.run(Policy.LIVE, AutomaticSettings())
    assert (ran.record.outcome, ran.record.attempts, machine.staged) == ("failed", 1, None)
    assert machine.verbs() == ["check", "stage"]


@pytest.mark.parametrize(
    ("policy", "way", "verbs"),
    [
        (Policy.STAGE, Way.BOOT, ["check"]),
        (Policy.LIVE, Way.BOOT, ["check"]),
        (Policy.LIVE, Way.LIVE, ["check"]),
        (Policy.STAGE, Way.LIVE, ["check", "stage"]),
    ],
)
def test_what_is_marked_is_left(policy: Policy, way: Way, verbs: list[str]):
    class Marked(Machine):
        def check(self):
            offer = super().check()
            return offer and replace(offer, failed={way: "on Monday: a check"})

    machine = Marked(offered="one")
    record = machine.run(policy, AutomaticSettings(max_defer=1.0)).record
    assert machine.verbs() == verbs
    if verbs == ["check"]:
        assert (record.outcome, record.attempts) == ("deferred", 0)
        text = "it has failed before and is left until there is another update: on Monday: a check"
        assert record.reasons == (text,)


def test_a_live_change_that_was_deferred_is_made_later():
    machine, given = Machine(ALICE, offered="one"), settings(live_with_users=False)
    assert machine.run(Policy.LIVE, given).record.outcome == "deferred"
    machine.facts_now = FACTS
    assert machine.run(Policy.LIVE, given).record.outcome == "live"
    assert machine.verbs() == ["check", "stage", "check", "live"]


def test_a_check_that_fails_is_no_attempt():
    class Offline(Machine):
        def check(self):
            raise ExternalFailure("no network")

    ran = Offline(offered="one").run(Policy.STAGE, AutomaticSettings())
    assert (str(ran.failure), ran.record.attempts, ran.record.outcome) == ("no network", 0, "failed")


# --- a month


@dataclass(frozen=True)
class Hour:
    """An hour of the month: what the administrator's plan and the users make of it."""

    when: datetime

    @property
    def stamp(self) -> float:
        return self.when.timestamp()

    @property
    def window(self) -> bool:
        return self.when.weekday() >= 5 and 2 <= self.when.hour < 6  # Saturday and Sunday, at night

    @property
    def users(self) -> tuple[str, ...]:
        works_late = self.when.weekday() == 5 and self.when.day <= 9
        return ("alice",) if 8 <= self.when.hour < 18 or works_late else ()


#: Day of the month -> what the archives offer from then on.
OFFERS = {3: "real-1", 10: "failing", 17: "real-2", 24: "real-3"}
FIRST = datetime(2026, 8, 1, tzinfo=UTC)


def month() -> Iterator[Hour]:
    for number in range(31 * 24):
        yield Hour(FIRST + timedelta(hours=number))


def live_through(policy: Policy, given: AutomaticSettings, *, windows: bool) -> tuple[Machine, list[Ran]]:
    """Have a machine's timer run each hour of a month."""
    machine = Machine(failing=frozenset({"failing"}), at="real-0", offered="real-0")
    booted, runs = FIRST.timestamp() - 30 * DAY, []
    for hour in month():
        machine.offered = (
            OFFERS.get(hour.when.day, machine.offered) if hour.when.hour >= 5 else machine.offered
        )
        machine.closed = windows and not hour.window
        machine.facts_now = Facts(hour.stamp, hour.stamp - booted, users=hour.users, machine="m")
        runs.append(machine.run(policy, given))
        booted = hour.stamp if runs[-1].reboot else booted
    return machine, runs


def days(machine: Machine, what: str) -> list[int]:
    return [datetime.fromtimestamp(when, UTC).day for when, one in machine.done if one == what]


def at(machine: Machine, what: str) -> list[Hour]:
    return [Hour(datetime.fromtimestamp(when, UTC)) for when, one in machine.done if one == what]


def test_a_month_with_users():
    machine, runs = live_through(Policy.APPLY, AutomaticSettings(), windows=False)
    assert days(machine, "reboot") == [3, 17, 24]
    assert not [hour for hour in at(machine, "reboot") if hour.users]
    assert machine.at == "real-3"
    # tried three times, after one and two hours, and then left until the 17th
    tried = [hour.stamp - Hour(FIRST).stamp for hour in at(machine, "stage") if hour.when.day == 10]
    assert [(b - a) / HOUR for a, b in itertools.pairwise(tried)] == [1.0, 2.0]
    assert days(machine, "stage") == [3, 10, 10, 10, 17, 24]
    assert sum(ran.failure is not None for ran in runs) == 3
    left = [ran for ran in runs if any("Attempts=3" in reason for reason in ran.record.reasons)]
    assert len(left) > 6 * 24
    assert len(days(machine, "check")) == 31 * 24


def test_a_month_with_windows():
    machine, runs = live_through(Policy.APPLY, AutomaticSettings(), windows=True)
    changes = [*at(machine, "stage"), *at(machine, "reboot")]
    assert changes
    assert not [hour for hour in changes if not hour.window]
    assert not [hour for hour in at(machine, "reboot") if hour.users]
    assert machine.at == "real-3"
    assert {ran.failure.kind for ran in runs if ran.failure} <= {"ExternalFailure"}
    assert any("window" in reason for ran in runs for reason in ran.record.reasons)


def test_a_month_without_anything_new():
    machine = Machine(offered="one", at="one")
    for hour in month():
        machine.facts_now = Facts(hour.stamp)
        machine.run(Policy.APPLY, AutomaticSettings())
    assert set(machine.verbs()) == {"check"}


def test_a_month_of_checks_changes_nothing():
    machine, _runs = live_through(Policy.CHECK, AutomaticSettings(), windows=False)
    assert set(machine.verbs()) == {"check"}


def test_a_live_month_has_no_reboot():
    machine, _runs = live_through(Policy.LIVE, AutomaticSettings(), windows=False)
    assert days(machine, "live") == [3, 17, 24]
    assert "reboot" not in machine.verbs()


def test_users_cannot_defer_for_ever():
    given = settings(max_defer=2 * DAY)
    machine, reboot_at = Machine(offered="one"), 0.0
    for number in range(100):
        machine.facts_now = Facts(NOW + number * HOUR, uptime=DAY, users=("alice",))
        if machine.run(Policy.APPLY, given).reboot:
            reboot_at = number
            break
    assert reboot_at == 48


# --- a fleet

PHASES = settings(phases=(0.1, 0.25, 0.5, 1.0), halt_at=URL)
FLEET = [f"{number:032x}" for number in range(1000)]


def fleet(halted: Callable[[float], str | None]) -> list[int]:
    """Return how many of the machines have the update after each quarter of five days.

    halted: the text of the file that halts updates, at an hour.
    """
    machines = [Machine(Facts(NOW, machine=name), offered="one", halt_text="") for name in FLEET]
    counts = []
    for hour in range(0, 121, 6):
        for machine in machines:
            machine.facts_now = replace(machine.facts_now, now=NOW + hour * HOUR)
            machine.halt_text = halted(hour)
            machine.run(Policy.STAGE, PHASES)
        counts.append(sum(machine.staged == "one" for machine in machines))
    return counts


def test_phases_grow_as_configured():
    counts = fleet(lambda _hour: "")
    for day, share in enumerate((0.1, 0.25, 0.5, 1.0)):
        during = set(counts[day * 4 : day * 4 + 4])
        assert len(during) == 1, "within a phase nobody joins"
        assert during.pop() == pytest.approx(1000 * share, abs=45)
    assert counts[-1] == 1000


@pytest.mark.parametrize("text", ["all", "one", None])
def test_a_halt_stops_all_that_have_not_begun(text):
    counts = fleet(lambda hour: text if hour >= 30 else "")
    assert counts[4] == counts[-1] == pytest.approx(250, abs=45)


def test_a_halt_that_is_lifted_goes_on():
    assert fleet(lambda hour: "all" if 30 <= hour < 100 else "")[-1] == 1000


def test_a_halt_of_another_update_stops_nobody():
    assert fleet(lambda _hour: "another\n# all\n")[-1] == 1000


def test_each_update_has_another_order():
    first = {name for name in FLEET if automatic.share_of(name, "one") < 0.1}
    second = {name for name in FLEET if automatic.share_of(name, "two") < 0.1}
    assert len(first & second) < 40
    assert all(0 <= automatic.share_of(name, "one") < 1 for name in FLEET)


def test_a_failure_is_an_error_for_the_caller():
    machine = Machine(offered="one", failing=frozenset({"one"}))
    ran = machine.run(Policy.STAGE, AutomaticSettings())
    assert isinstance(ran.failure, AptOstreeError)
    assert json.loads(automatic.format_record(ran.record))["failure"] == "one cannot be installed"
