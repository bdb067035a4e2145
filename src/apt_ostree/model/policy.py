"""The administrator's policy, the facts that it judges, and its decision, all of them values.

The rules are in `model.policy_rules`. Facts are gathered in `core`, and `core.policing` carries the decision
out. A rule gives one reason for each thing that it does not allow, or one that it allows the change. Each
reason has the setting behind it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from apt_ostree.model.reach import Reach


class Rule(StrEnum):
    """What a setting is about."""

    NEVER = "never-packages"
    ONLY = "only-packages"
    ORIGINS = "origins"
    SECURITY = "security-only"
    HOLD = "hold"
    APPROVAL = "approval"
    SCANNER = "scanner"
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
    subject: the package that it is about, or the plan that needs an approval, or empty.
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
class Verbs:
    """Names of verbs, and the setting that has them."""

    names: frozenset[str]
    setting: Setting


@dataclass(frozen=True, slots=True)
class ApprovalBy:
    """Whether another person than the one who asks for a change has to approve it."""

    other: bool
    setting: Setting


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time, which systemd reads (systemd.time(7))."""

    text: str
    setting: Setting


@dataclass(frozen=True, slots=True)
class Scanner:
    """A command that is run on what is about to become current."""

    command: tuple[str, ...]
    setting: Setting


@dataclass(frozen=True, slots=True)
class Seconds:
    """A number of seconds."""

    value: float
    setting: Setting


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
    approval: verbs whose plans have to be approved.
    approval_by: by whom; None: by anybody who may.
    approval_expires: how long an approval lasts.
    scanner: what is run on new and changed files.
    scan_timeout: how long it may take.
    override: whether root may have a change made that a rule does not allow; None: yes.
    """

    never: Names | None = None
    only: Names | None = None
    origins: Origins | None = None
    security_only: Switch | None = None
    holds: tuple[Hold, ...] = ()
    apply_windows: Windows | None = None
    reboot_windows: Windows | None = None
    approval: Verbs | None = None
    approval_by: ApprovalBy | None = None
    approval_expires: Span | None = None
    scanner: Scanner | None = None
    scan_timeout: Seconds | None = None
    override: Switch | None = None

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Return the settings that are in effect, in the order of their documentation."""
        packages = (self.never, self.only, self.origins, self.security_only)
        approval = (self.approval, self.approval_by, self.approval_expires)
        scanner = (self.scanner, self.scan_timeout)
        rules = (*packages, self.apply_windows, self.reboot_windows, *approval, *scanner, self.override)
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

    def needs_approval(self, reach: Reach) -> bool:
        """Return whether a request needs an approval of its plan."""
        verbs = {reach.verb, *(["install"] if reach.layers else [])}
        return self.approval is not None and reach.applies and not verbs.isdisjoint(self.approval.names)

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

    name: str = ""
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
