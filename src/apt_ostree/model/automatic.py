"""When an automatic update may do what: facts and settings in, reasons against it out.

Each reason names the setting that made it. A hard one also counts when the limit of deferral is over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from apt_ostree.errors import UsageError
from apt_ostree.model import jsonvalue
from apt_ostree.model.automatic_settings import AutomaticSettings, Policy
from apt_ostree.model.prediction import Prediction
from apt_ostree.model.update import Update
from apt_ostree.model.verdict import Way

_PAUSES = 6  # doublings of the pause between attempts, at most
_USER_CLASSES = ("user", "user-early", "user-incomplete", "user-light", "user-early-light")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the decisions are made of.

    now: seconds since 1970.
    uptime: seconds since the boot.
    load: the load average of a minute, for each processor.
    users: names of users who are logged in, each once.
    machine: the machine id.
    driver: the program that decides about updates instead, or empty.
    """

    now: float
    uptime: float = 0.0
    metered: bool = False
    on_battery: bool = False
    load: float = 0.0
    users: tuple[str, ...] = ()
    machine: str = ""
    driver: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """An update that a check has noted.

    identity: the same for all machines with the same update.
    commit, version: of the base after it.
    made: when the new base was made, in seconds since 1970; None for newer packages on the same base.
    failed: when and why the same packages have failed: way (model.verdict.Way) -> text.
    """

    identity: str
    commit: str = ""
    version: str | None = None
    made: float | None = None
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason against doing something now. setting: the one that made it. hard: no limit overrides it."""

    text: str
    setting: str = ""
    hard: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is remembered from one run to the next. Times are in seconds since 1970; 0 is never.

    last_run, policy, outcome, reasons: of the last run.
    target, since: the identity of the update, and when it was first noted.
    waiting_since: since when the machine is not up to date.
    attempts, failed_at, failure: how often the update has failed, when, and the last message.
    staged: the commit of the deployment that was made of it, until it is booted.
    prediction: what that deployment would mean.
    """

    last_run: float = 0.0
    policy: Policy = Policy.NONE
    outcome: str = ""
    reasons: tuple[str, ...] = ()
    target: str = ""
    since: float = 0.0
    waiting_since: float = 0.0
    attempts: int = 0
    failed_at: float = 0.0
    failure: str = ""
    staged: str = ""
    prediction: Prediction | None = None


def format_record(record: Record) -> str:
    """Return the text of a record."""
    return json.dumps(asdict(record))


def parse_record(text: str) -> Record:
    """Return a record; an empty one for a text that cannot be read, as of another version."""
    try:
        return jsonvalue.read(Record, json.loads(text), name="record")
    except (ValueError, UsageError):
        return Record()


def offer_of(update: Update | None, commit: str) -> Offer:
    """Return the offer of an update that was noted. commit: what is known of one that was not."""
    if update is None:
        return Offer(_digest(commit), commit)
    changes = update.to_json()["diff"]
    identity = _digest(json.dumps([update.commit, changes], sort_keys=True))
    made = float(update.timestamp) if update.new_base else None
    return Offer(identity, update.commit, update.version, made)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- decisions: each returns the reasons against it; none means that it is done


def against_run(settings: AutomaticSettings, record: Record, facts: Facts) -> tuple[Reason, ...]:
    """Return what is against looking for updates at all."""
    return _judged(settings, record, facts, _conditions(settings, facts))


def _conditions(settings: AutomaticSettings, facts: Facts) -> Iterator[Reason]:
    if facts.driver:
        yield Reason(f"updates are driven by {facts.driver}", hard=True)
    if facts.metered and not settings.on_metered:
        yield Reason("the connection is metered", "OnMetered=no")
    if facts.on_battery and not settings.on_battery:
        yield Reason("the machine runs on battery", "OnBattery=no")
    if settings.max_load and facts.load > settings.max_load:
        limit = f"MaxLoad={settings.max_load:g}"
        yield Reason(f"the load of each processor is {facts.load:.1f}", limit)


def against_stage(
    settings: AutomaticSettings, record: Record, facts: Facts, offer: Offer, halt: str | None = ""
) -> tuple[Reason, ...]:
    """Return what is against making a deployment of an update.

    halt: the text of the file that halts updates; None if it cannot be read.
    """
    reasons = (
        *_halted(settings, offer, halt),
        *_failed_before(settings, record, facts),
        *_phase(settings, record, facts, offer),
    )
    return _judged(settings, record, facts, reasons)


def against_reboot(
    settings: AutomaticSettings, record: Record, facts: Facts, offer: Offer, halt: str | None = ""
) -> tuple[Reason, ...]:
    """Return what is against a reboot into a deployment. halt: see `against_stage`."""
    reasons = [*_halted(settings, offer, halt)]
    if facts.users and not settings.reboot_with_users:
        reasons.append(_users(facts, "RebootWithUsers=no"))
    if facts.uptime < settings.reboot_interval:
        limit = f"RebootInterval={show_span(settings.reboot_interval)}"
        reasons.append(Reason(f"the last boot was {show_span(facts.uptime)} ago", limit))
    return _judged(settings, record, facts, reasons)


def against_live(
    settings: AutomaticSettings, record: Record, facts: Facts, offer: Offer, halt: str | None = ""
) -> tuple[Reason, ...]:
    """Return what is against applying a deployment to the running system. halt: see `against_stage`."""
    reasons = [*_halted(settings, offer, halt), *_failed_before(settings, record, facts)]
    if facts.users and not settings.live_with_users:
        reasons.append(_users(facts, "LiveWithUsers=no"))
    return _judged(settings, record, facts, reasons)


def _judged(
    settings: AutomaticSettings, record: Record, facts: Facts, reasons: Iterable[Reason]
) -> tuple[Reason, ...]:
    waited = facts.now - record.waiting_since if record.waiting_since else 0.0
    overdue = settings.max_defer and waited >= settings.max_defer
    return tuple(reason for reason in reasons if reason.hard or not overdue)


def _users(facts: Facts, setting: str) -> Reason:
    return Reason(f"users logged in ({', '.join(facts.users)})", setting)


def _failed_before(settings: AutomaticSettings, record: Record, facts: Facts) -> Iterator[Reason]:
    if not record.attempts:
        return
    if record.attempts >= settings.attempts:
        text = f"it failed {_times(record.attempts)} and is left until there is another update"
        yield Reason(f"{text}: {record.failure}", f"Attempts={settings.attempts}", hard=True)
        return
    pause = settings.retry_pause * 2 ** min(record.attempts - 1, _PAUSES)
    if (left := record.failed_at + pause - facts.now) > 0:
        text = f"it failed {_times(record.attempts)} and is tried again in {show_span(left)}"
        yield Reason(f"{text}: {record.failure}", f"RetryPause={show_span(settings.retry_pause)}", hard=True)


def failed_before(policy: Policy, offer: Offer) -> tuple[Reason, ...]:
    """Return what is against an update of which a boot, or the live change that is wanted, has failed."""
    ways = [way for way in offer.failed if way == Way.BOOT or policy is Policy.LIVE]
    text = "it has failed before and is left until there is another update"
    return tuple(Reason(f"{text}: {offer.failed[way]}", hard=True) for way in ways)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _halted(settings: AutomaticSettings, offer: Offer, halt: str | None) -> Iterator[Reason]:
    if not settings.halt:
        return
    setting = f"Halt={settings.halt}"
    if halt is None:
        yield Reason("the file that halts updates cannot be read", setting, hard=True)
        return
    for line in halt.splitlines():
        name = line.partition("#")[0].strip()
        if name == "all" or (name and name in (offer.commit, offer.version)):
            yield Reason(f"updates are halted ({name})", setting, hard=True)
            return


# --- phases


def share_of(machine: str, identity: str) -> float:
    """Return the place of a machine among all, from 0 to below 1; each update has another order."""
    digest = hashlib.sha256(f"{machine}\n{identity}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def open_share(settings: AutomaticSettings, age: float) -> float:
    """Return the share of the machines that may have an update of this age in seconds."""
    if not settings.phases:
        return 1.0
    return settings.phases[min(int(max(age, 0.0) / settings.phase_length), len(settings.phases) - 1)]


def _phase(settings: AutomaticSettings, record: Record, facts: Facts, offer: Offer) -> Iterator[Reason]:
    began = offer.made if offer.made is not None else record.since
    share = open_share(settings, facts.now - began)
    place = share_of(facts.machine, offer.identity)
    if place >= share:
        phases = " ".join(f"{phase * 100:g}%" for phase in settings.phases)
        text = f"it is for {share * 100:g}% of the machines so far, and this one is at {place * 100:.0f}%"
        yield Reason(text, f"Phases={phases}", hard=True)


# --- facts


def users_of(sessions: Iterable[tuple[str, str, str]]) -> tuple[str, ...]:
    """Return the users of sessions (user, class, state; see sd_session_get_class(3)), each once.

    Greeters, services and sessions that are closing do not count.
    """
    names = {user for user, kind, state in sessions if kind in _USER_CLASSES and state != "closing"}
    return tuple(sorted(names))


def runs_on_battery(supplies: Sequence[Mapping[str, str]]) -> bool:
    """Return whether a machine has no other power than a battery. supplies: files of power_supply(7).

    Batteries of devices, such as a mouse, do not count.
    """
    lines = [one for one in supplies if one.get("type") in ("Mains", "USB")]
    if any(one.get("online", "0") != "0" for one in lines):
        return False
    batteries = [one for one in supplies if one.get("type") == "Battery" and one.get("scope") != "Device"]
    return any(one.get("status") == "Discharging" for one in batteries)


# --- texts


def describe(record: Record) -> Iterator[str]:
    """Yield lines about the last run."""
    texts = {
        "current": "There is no update.",
        "noted": "There is an update.",
        "staged": "The update is staged, for the next boot.",
        "live": "The update is live.",
        "reboot": "The system reboots for the update.",
    }
    if record.outcome in texts:
        yield texts[record.outcome]
    for reason in record.reasons:
        yield f"{record.outcome}: {reason}"


def message_of_the_day(record: Record) -> str:
    """Return what users who log in are told, or "" if nothing waits."""
    if not record.waiting_since:
        return ""
    lines = [f"Updates: {line}" for line in describe(record)]
    lines.append("Updates: see 'apt-ostree status'.")
    return "".join(f"{line}\n" for line in lines)


def show_span(seconds: float) -> str:
    """Return a span of time in its largest whole units, such as 2d, 3h or 5min."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return (
                f"{seconds / size:.0f}{unit}"
                if seconds % size == 0 or seconds >= 10 * size
                else (f"{seconds / size:.1f}".rstrip("0").rstrip(".") + unit)
            )
    return f"{seconds:.0f}s"
