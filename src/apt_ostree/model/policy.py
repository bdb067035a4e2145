"""What the administrator's policy decides about a change, and which setting decides it. Pure rules.

The facts are values: they are gathered in `core`, and `core.policing` carries the decision out. A rule gives
one reason for each thing that it does not allow, or one that says that it allows the change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any


class Rule(StrEnum):
    """What a setting is about."""

    NEVER = "never-packages"
    ONLY = "only-packages"
    ORIGINS = "origins"
    SECURITY = "security-only"
    HOLD = "hold"
    APPLY = "apply-window"
    REBOOT = "reboot-window"
    OVERRIDE = "override"


@dataclass(frozen=True, slots=True)
class Setting:
    """A line of the configuration.

    file: its path.
    """

    file: str
    section: str
    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.file}: [{self.section}] {self.key}={self.value}"


@dataclass(frozen=True, slots=True)
class Reason:
    """What one rule says about a change.

    allowed: whether it lets the change pass.
    subject: the package that it is about, or empty.
    opens: of a window that is closed, when it opens next, in seconds since 1970; None: never.
    """

    rule: Rule
    allowed: bool
    text: str
    setting: Setting
    subject: str = ""
    opens: float | None = None

    def __str__(self) -> str:
        return f"{self.text} ({self.setting})"

    def to_json(self) -> dict[str, Any]:
        """Return the reason as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Decision:
    """What all rules together say.

    reasons: those of the rules that are set.
    override: why root has the change made although a rule does not allow it; empty if nobody asked for that.
    """

    reasons: tuple[Reason, ...] = ()
    override: str = ""

    @property
    def refusals(self) -> tuple[Reason, ...]:
        """Return the reasons not to make the change, whether they are overridden or not."""
        return tuple(reason for reason in self.reasons if not reason.allowed)

    @property
    def overridden(self) -> bool:
        """Return whether the change is made although a rule does not allow it."""
        return bool(self.override and self.refusals) and not any(
            reason.rule is Rule.OVERRIDE for reason in self.refusals
        )

    @property
    def allowed(self) -> bool:
        """Return whether the change is made."""
        return not self.refusals or self.overridden

    def to_json(self) -> dict[str, Any]:
        """Return the decision as a JSON object."""
        reasons = [reason.to_json() for reason in self.reasons]
        return {"allowed": self.allowed, "reasons": reasons, "override": self.override or None}


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a request goes (model.governed).

    preview: it only shows what would be done, so that a decision is told and holds nothing up.
    applies: it changes the running system, or what the next boot starts.
    reboots: it ends with a reboot.
    override: why the policy is to be overridden, or empty.
    """

    preview: bool = False
    applies: bool = True
    reboots: bool = False
    override: str = ""


@dataclass(frozen=True, slots=True)
class Names:
    """Patterns of names of packages (fnmatch(3)), and the setting that has them."""

    patterns: tuple[str, ...]
    setting: Setting

    def match(self, name: str) -> bool:
        """Return whether a pattern matches a name."""
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive, by the fields of its Release file and the host that it comes from."""

    origin: str = ""
    label: str = ""
    suite: str = ""
    codename: str = ""
    component: str = ""
    site: str = ""

    @property
    def described(self) -> str:
        """Return its fields as a pattern has them."""
        named = {key: value for key, value in asdict(self).items() if value}
        return ",".join(f"{key}={value}" for key, value in named.items()) or "an archive without a name"


@dataclass(frozen=True, slots=True)
class ArchivePattern:
    """Fields of an archive, each with a pattern of its value (fnmatch(3)); all have to match."""

    fields: tuple[tuple[str, str], ...]

    def match(self, archive: Archive) -> bool:
        """Return whether all fields match those of an archive."""
        return all(fnmatchcase(getattr(archive, field), pattern) for field, pattern in self.fields)


@dataclass(frozen=True, slots=True)
class Origins:
    """The archives that packages may come from.

    files: packages may also come from files.
    """

    patterns: tuple[ArchivePattern, ...]
    files: bool
    setting: Setting

    def match(self, archives: tuple[Archive, ...]) -> bool:
        """Return whether one of the archives is allowed; without archives, whether files are."""
        if not archives:
            return self.files
        return any(pattern.match(archive) for pattern in self.patterns for archive in archives)


@dataclass(frozen=True, slots=True)
class Hold:
    """A pattern of names of packages that keep their versions until a time.

    until: without a time zone, it is that of the machine.
    """

    pattern: str
    until: datetime
    setting: Setting

    def is_over(self, now: datetime) -> bool:
        """Return whether the end has passed. now: with the time zone of the machine."""
        return self.until <= (now if self.until.tzinfo else now.replace(tzinfo=None))


@dataclass(frozen=True, slots=True)
class Window:
    """A time that begins with each calendar event and lasts a span (systemd.time(7))."""

    calendar: str
    span: str


@dataclass(frozen=True, slots=True)
class Windows:
    """The times at which something may be done, and the setting that has them."""

    windows: tuple[Window, ...]
    setting: Setting


@dataclass(frozen=True, slots=True)
class Times:
    """How a moment lies to windows, in seconds since 1970.

    until: when the window that is open closes; None if none is open.
    opens: when one opens next; None if that never happens.
    opens_text: the same as local time.
    """

    until: float | None
    opens: float | None = None
    opens_text: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings of [Policy], each with its place; None where a rule is not set.

    never: packages that no change brings.
    only: the packages that a change may bring.
    origins: the archives that they may come from.
    security_only: whether packages are upgraded by security updates alone.
    holds: packages that keep their versions, sorted by pattern.
    apply_windows: when deployments and the running system are changed.
    reboot_windows: when changes may end with a reboot.
    override: whether root may have a change made that a rule does not allow; None: yes.
    """

    never: Names | None = None
    only: Names | None = None
    origins: Origins | None = None
    security_only: Switch | None = None
    holds: tuple[Hold, ...] = ()
    apply_windows: Windows | None = None
    reboot_windows: Windows | None = None
    override: Switch | None = None

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Return the settings that are in effect, in the order of their documentation."""
        packages = (self.never, self.only, self.origins, self.security_only)
        rules = (*packages, self.apply_windows, self.reboot_windows, self.override)
        return (*(rule.setting for rule in rules if rule), *(hold.setting for hold in self.holds))

    def at(self, now: datetime) -> Policy:
        """Return the policy with the holds that are not over."""
        return replace(self, holds=tuple(hold for hold in self.holds if not hold.is_over(now)))

    def hold_of(self, name: str) -> Hold | None:
        """Return the hold of a package, the first one whose pattern matches."""
        return next((hold for hold in self.holds if fnmatchcase(name, hold.pattern)), None)

    def windows_for(self, reach: Reach) -> dict[Rule, Windows]:
        """Return the windows that have to be open for a request."""
        needed = {Rule.APPLY: (reach.applies, self.apply_windows)}
        needed[Rule.REBOOT] = (reach.reboots, self.reboot_windows)
        return {rule: windows for rule, (needs, windows) in needed.items() if needs and windows}

    @property
    def holds_back(self) -> bool:
        """Return whether a rule decides which versions come in (`refuses_version`)."""
        return bool(self.origins or self.holds or (self.security_only and self.security_only.on))


@dataclass(frozen=True, slots=True)
class Switch:
    """A setting that is on or off."""

    on: bool
    setting: Setting


@dataclass(frozen=True, slots=True)
class Incoming:
    """A package that a change brings, in a version that was not there.

    dependency: nobody has named it.
    old: the version that is there; empty for a package that was not there, or is to replace the base's.
    archives: those that offer the version; none for a file, and None where that does not matter.
    security: it is a security update.
    """

    name: str
    version: str = ""
    dependency: bool = False
    old: str = ""
    archives: tuple[Archive, ...] | None = None
    security: bool = False

    @property
    def described(self) -> str:
        """Return how a reason names it."""
        label = f"{self.name} {self.version}".rstrip()
        return f"{label}, a dependency," if self.dependency else label


def judge_packages(policy: Policy, packages: Iterable[Incoming]) -> tuple[Reason, ...]:
    """Return what the rules about packages say about those that a change brings, if it brings any."""
    incoming = sorted(packages, key=lambda package: package.name)
    new = [package for package in incoming if not package.old]
    names = (*_judge_never(policy, new), *_judge_only(policy, new)) if new else ()
    return (*names, *_judge_origins(policy, incoming), *_judge_holds(policy, incoming))


def _judge_never(policy: Policy, incoming: list[Incoming]) -> Iterator[Reason]:
    if policy.never:
        wrong = {p.name: f"{p.described} is never installed" for p in incoming if policy.never.match(p.name)}
        yield from _one_or_each(Rule.NEVER, policy.never.setting, wrong, _passed(incoming))


def _judge_only(policy: Policy, incoming: list[Incoming]) -> Iterator[Reason]:
    if policy.only:
        wrong = {
            p.name: f"{p.described} is not among the packages that may be installed"
            for p in incoming
            if not policy.only.match(p.name)
        }
        yield from _one_or_each(Rule.ONLY, policy.only.setting, wrong, _passed(incoming))


def _judge_origins(policy: Policy, incoming: list[Incoming]) -> Iterator[Reason]:
    offered = [package for package in incoming if package.archives is not None]
    if policy.origins and offered:
        wrong = {p.name: _foreign(p) for p in offered if not policy.origins.match(p.archives or ())}
        passed = f"come from archives that are allowed: {', '.join(package.name for package in offered)}"
        yield from _one_or_each(Rule.ORIGINS, policy.origins.setting, wrong, passed)


def _judge_holds(policy: Policy, incoming: list[Incoming]) -> Iterator[Reason]:
    for package in incoming:
        hold = policy.hold_of(package.name)
        if hold and package.old not in ("", package.version):
            text = f"{package.name} {package.old} is on hold until {hold.setting.value}"
            yield Reason(Rule.HOLD, False, text, hold.setting, package.name)


def _foreign(package: Incoming) -> str:
    sources = " and ".join(archive.described for archive in package.archives or ())
    return f"{package.described} comes from {sources or 'a file'}, which is not allowed"


def refuses_version(policy: Policy, offer: Incoming) -> Reason | None:
    """Return why a version that an archive offers does not come in, or None.

    One of a package that is there is held back. SecurityOnly= is about these alone.
    """
    stays = f"{offer.name} {offer.old} stays: {offer.version}"
    hold = policy.hold_of(offer.name) if offer.old else None
    if hold:
        text = f"{stays} is held back until {hold.setting.value}"
        return Reason(Rule.HOLD, True, text, hold.setting, offer.name)
    if policy.origins and not policy.origins.match(offer.archives or ()):
        return Reason(Rule.ORIGINS, True, f"{stays} is held back", policy.origins.setting, offer.name)
    security = policy.security_only
    if security and security.on and offer.old and not offer.security:
        text = f"{stays} is no security update"
        return Reason(Rule.SECURITY, True, text, security.setting, offer.name)
    return None


def _passed(incoming: list[Incoming]) -> str:
    return f"may be installed: {', '.join(package.name for package in incoming)}"


def _one_or_each(rule: Rule, setting: Setting, wrong: Mapping[str, str], passed: str) -> Iterator[Reason]:
    """Yield a refusal for each subject, or the one reason that the rule allows the change."""
    if not wrong:
        yield Reason(rule, True, passed, setting)
    for subject, text in wrong.items():
        yield Reason(rule, False, text, setting, subject)


def judge_window(rule: Rule, setting: Setting, times: Times) -> Reason:
    """Return what a setting with windows says about a moment."""
    what = "reboots" if rule is Rule.REBOOT else "changes"
    if times.until is not None:
        return Reason(rule, True, f"the window for {what} is open", setting)
    when = f"it opens {times.opens_text}" if times.opens is not None else "it never opens again"
    return Reason(rule, False, f"the window for {what} is closed; {when}", setting, opens=times.opens)


def decide(policy: Policy, reasons: Iterable[Reason], override: str) -> Decision:
    """Return the decision about a change; the same reason counts once.

    override: why root wants the change in any case, or empty.
    """
    told = {(reason.rule, reason.subject, reason.allowed): reason for reason in reasons}
    refused = {reason.rule for reason in told.values() if not reason.allowed}
    kept = [r for r in told.values() if not (r.allowed and not r.subject and r.rule in refused)]
    switch = policy.override
    if override and refused and switch and not switch.on:
        kept.append(Reason(Rule.OVERRIDE, False, "nobody may override the policy", switch.setting))
    return Decision(tuple(kept), override)
