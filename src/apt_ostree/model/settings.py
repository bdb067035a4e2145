"""The administrator's settings: sections and keys of apt-ostree.conf (apt-ostree.conf(5))."""

from __future__ import annotations

import configparser
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from apt_ostree.errors import UsageError
from apt_ostree.model.automatic_settings import POLICY_KEY, AutomaticSettings, Policy
from apt_ostree.model.plan import RestartPolicy
from apt_ostree.model.policy import Setting
from apt_ostree.model.policy_settings import SECTIONS
from apt_ostree.model.sizes import read_size
from apt_ostree.model.spans import read_span
from apt_ostree.model.unitrules import Need
from apt_ostree.model.verdict import BootPolicy


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of apt-ostree.conf.

    strict_archives: [Archives] Strict, whether an archive that cannot be refreshed fails a change.
    cache_size: [Archives] CacheSize=SIZE, bytes of downloaded archives that no deployment has; 0: no limit.
    script_timeout: [Layering] ScriptTimeout, seconds that dpkg may run without progress.
    stall_timeout: [Images] StallTimeout, seconds for which a registry may send nothing.
    settle: [Live] SettleSeconds, seconds that a unit has to run without a failure after an action on it.
    unit_timeout: [Live] UnitTimeout, seconds that a unit may take to stop, start or reload.
    check_timeout: [Live] CheckTimeout, seconds that one health check may take.
    keep_generations: [Live] KeepGenerations, number of live changes of a boot that are kept as steps back.
    test_before_apply: [Live] TestBeforeApply, whether other packages are booted in a container first.
    test_timeout: [Live] TestTimeout, seconds that such a boot may take.
    undo_if_new_unit_fails: [Live] NewUnitFailure=undo|keep, for a new unit that does not run.
    units: [Units] NAME=restart|reload|skip|defer, action of a live change for a unit that it affects.
    overlay_allow: [Overlays] Allow=RULE ..., rules of content that are off for every overlay.
    scan_timeout: [Overlays] ScanTimeout, seconds that the scanner may take for one overlay.
    overlay_sign_key: [Overlays] SignKey=KEY, key of root's GnuPG keyring that signs backups of overlays.
    overlay_scanner: [Overlays] Scanner=COMMAND, run on the files of an overlay before it is shown.
    overlay_quota: [Overlays] Quota=SIZE, maximum total size of all overlays' files in bytes; 0: no limit.
    history_keep: [History] Keep=TIME, seconds that records of operations are kept.
    history_records: [History] MaxRecords, number of records that are kept at most.
    automatic_policy: [Daemon] AutomaticUpdatePolicy, what is done without a request.
    automatic: [Automatic], when and how.
    boot_policy: [Rollback] Boot, what follows when the first boot of a deployment has failed.
    boot_timeout: [Rollback] BootTimeout=TIME, seconds after which a boot has failed.
    live_watch: [Rollback] LiveWatch=TIME, seconds that a live change is watched; 0: it is not.
    limits: [Limits], property -> value of the unit in which the service's worker runs
        (systemd.resource-control(5), org.freedesktop.systemd1(5)).
    policy: the lines of [Policy] and [Holds], in their order. They are read when a change is judged
        (model.policy_settings), so that a mistake there holds up no undo.
    """

    strict_archives: bool = False
    cache_size: int = 1_000_000_000
    script_timeout: float = 600.0
    stall_timeout: float = 300.0
    settle: float = 2.0
    unit_timeout: float = 90.0
    check_timeout: float = 60.0
    keep_generations: int = 10
    test_before_apply: bool = False
    test_timeout: float = 120.0
    undo_if_new_unit_fails: bool = False
    units: Mapping[str, Need] = field(default_factory=dict)
    overlay_allow: tuple[str, ...] = ()
    overlay_sign_key: str = ""
    scan_timeout: float = 600.0
    overlay_scanner: tuple[str, ...] = ()
    overlay_quota: int = 0
    history_keep: float = 5 * 365.25 * 86400
    history_records: int = 100_000
    automatic_policy: Policy = Policy.NONE
    automatic: AutomaticSettings = field(default_factory=AutomaticSettings)
    boot_policy: BootPolicy = BootPolicy.TELL
    boot_timeout: float = 600.0
    live_watch: float = 0.0
    limits: Mapping[str, int] = field(default_factory=lambda: {"TasksMax": 2048})
    policy: tuple[Setting, ...] = ()


_LIMITS = "Limits"
_UNITS = "Units"
_AUTOMATIC = "Automatic"
_CHOICES = (Need.RESTART, Need.RELOAD, Need.SKIP, Need.DEFER)


def parse_settings(files: Sequence[tuple[str, str]]) -> Settings:
    """Return the settings of files (name, text); later files override earlier ones.

    UsageError names the file and the key of a mistake.
    """
    settings = Settings()
    for name, text in files:
        parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
        parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
        try:
            parser.read_string(text, name)
        except configparser.Error as error:
            raise UsageError(f"{name} cannot be read: {error.message}") from error
        for section in parser.sections():
            for key, value in parser[section].items():
                settings = _with(settings, name, section, key, value)
    return settings


def _with(settings: Settings, name: str, section: str, key: str, value: str) -> Settings:
    if section in SECTIONS:
        return replace(settings, policy=(*settings.policy, Setting(name, section, key, value)))
    if section == _UNITS:
        return replace(settings, units={**settings.units, key: _need(name, key, value)})
    if section == _LIMITS and key in _OF_UNITS:
        target, read = _OF_UNITS[key]
        return replace(settings, limits={**settings.limits, target: _value(name, key, value, read)})
    if section == _AUTOMATIC and key in _OF_AUTOMATIC:
        field_name, read = _OF_AUTOMATIC[key]
        changes = {field_name: _value(name, key, value, read)}
        return replace(settings, automatic=replace(settings.automatic, **changes))
    if (section, key) not in _KEYS:
        others = [(_LIMITS, limit) for limit in _OF_UNITS] + [(_AUTOMATIC, one) for one in _OF_AUTOMATIC]
        keys = [f"[{one}] {other}" for one, other in (*_KEYS, *others)]
        raise UsageError(
            f"{name}: unknown setting [{section}] {key}", hint=f"known: {', '.join(keys)}, [Units] UNIT"
        )
    field_name, read = _KEYS[section, key]
    return replace(settings, **{field_name: _value(name, key, value, read)})


def _value(name: str, key: str, value: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise UsageError(f"{name}: {key} cannot be read: {error}") from error


def _need(name: str, key: str, value: str) -> Need:
    if "." not in key:
        raise UsageError(f"{name}: [Units] {key} is not the name of a unit", hint=f"such as {key}.service")
    if value not in _CHOICES:
        choices = ", ".join(_CHOICES)
        raise UsageError(f"{name}: [Units] {key} must be one of {choices}, not {value!r}")
    return Need(value)


def _arguments(value: str) -> tuple[str, ...]:
    return tuple(shlex.split(value))


def _switch(value: str) -> bool:
    try:
        return configparser.ConfigParser.BOOLEAN_STATES[value.lower()]
    except KeyError:
        raise ValueError(f"{value!r} is neither yes nor no") from None


def _undo_or_keep(value: str) -> bool:
    if value not in ("undo", "keep"):
        raise ValueError(f"{value!r} is neither undo nor keep")
    return value == "undo"


def _long_span(value: str) -> float:
    """Return the seconds of a span such as 90d, 18month or 5y, with the units of systemd.time(7)."""
    match = re.fullmatch(r"(\d+) *(d|days?|w|weeks?|M|months?|y|years?)", value.strip())
    if not match or not int(match[1]):
        raise ValueError(f"{value!r} is no number of days, weeks, months or years, such as 90d or 5y")
    days = {"d": 1.0, "w": 7.0, "m": 30.44, "y": 365.25}[match[2][0].lower()]
    return int(match[1]) * days * 86400


def _count(value: str) -> int:
    with suppress(ValueError):
        if (number := int(value)) > 0:
            return number
    raise ValueError(f"{value!r} is not a positive number")


def _size(value: str) -> int:
    if size := read_size(value):
        return size
    raise ValueError(f"{value!r} is no size above 0")


def _weight(value: str) -> int:
    with suppress(ValueError):
        if 1 <= (number := int(value)) <= 10_000:
            return number
    raise ValueError(f"{value!r} is not a number from 1 to 10000")


def _share_of_cpu(value: str) -> int:
    """Return the microseconds of processor time in a second that a percentage is; 200% are two processors."""
    percent = value.removesuffix("%")
    if percent == value:
        raise ValueError(f"{value!r} is not a percentage such as 50%")
    return _count(percent) * 10_000


def _seconds(value: str) -> float:
    with suppress(ValueError):
        if 0 < (number := float(value)) < math.inf:
            return number
    raise ValueError(f"{value!r} is not a positive number of seconds")


def _choice(kind: type[StrEnum]) -> Callable[[str], Any]:
    """Return what reads a value of an enum."""

    def read(value: str) -> StrEnum:
        if value not in [*kind]:
            raise ValueError(f"{value!r} is none of {', '.join(kind)}")
        return kind(value)

    return read


def _span_or_none(value: str) -> float:
    return 0.0 if value == "0" else read_span(value)


def _load(value: str) -> float:
    return 0.0 if value == "0" else _seconds(value)


def _shares(value: str) -> tuple[float, ...]:
    """Return growing percentages as shares from 0 to 1."""
    with suppress(ValueError):
        shares = tuple(float(word.removesuffix("%")) / 100 for word in value.split())
        is_whole = all(word.endswith("%") for word in value.split())
        if is_whole and list(shares) == sorted(shares) and all(0 <= share <= 1 for share in shares):
            return shares
    raise ValueError(f"{value!r} is not a list of growing percentages such as 10% 50% 100%")


#: (section, key) -> field of Settings, and the function that parses the value.
_KEYS: Mapping[tuple[str, str], tuple[str, Callable[[str], Any]]] = {
    ("Archives", "Strict"): ("strict_archives", _switch),
    ("Archives", "CacheSize"): ("cache_size", read_size),
    ("History", "Keep"): ("history_keep", _long_span),
    ("History", "MaxRecords"): ("history_records", _count),
    ("Daemon", POLICY_KEY): ("automatic_policy", _choice(Policy)),
    ("Images", "StallTimeout"): ("stall_timeout", _seconds),
    ("Layering", "ScriptTimeout"): ("script_timeout", _seconds),
    ("Live", "SettleSeconds"): ("settle", _seconds),
    ("Live", "UnitTimeout"): ("unit_timeout", _seconds),
    ("Live", "CheckTimeout"): ("check_timeout", _seconds),
    ("Live", "KeepGenerations"): ("keep_generations", _count),
    ("Live", "TestBeforeApply"): ("test_before_apply", _switch),
    ("Live", "TestTimeout"): ("test_timeout", _seconds),
    ("Live", "NewUnitFailure"): ("undo_if_new_unit_fails", _undo_or_keep),
    ("Rollback", "Boot"): ("boot_policy", _choice(BootPolicy)),
    ("Rollback", "BootTimeout"): ("boot_timeout", read_span),
    ("Rollback", "LiveWatch"): ("live_watch", _span_or_none),
    ("Overlays", "Allow"): ("overlay_allow", _arguments),
    ("Overlays", "Scanner"): ("overlay_scanner", _arguments),
    ("Overlays", "ScanTimeout"): ("scan_timeout", _seconds),
    ("Overlays", "SignKey"): ("overlay_sign_key", str),
    ("Overlays", "Quota"): ("overlay_quota", read_size),
}

#: Key of [Limits] -> property of the unit, and the function that parses the value.
_OF_UNITS: Mapping[str, tuple[str, Callable[[str], int]]] = {
    "CPUQuota": ("CPUQuotaPerSecUSec", _share_of_cpu),
    "CPUWeight": ("CPUWeight", _weight),
    "IOWeight": ("IOWeight", _weight),
    "MemoryHigh": ("MemoryHigh", _size),
    "MemoryMax": ("MemoryMax", _size),
    "TasksMax": ("TasksMax", _count),
}

#: Key of [Automatic] -> field of AutomaticSettings, and the function that parses the value.
_OF_AUTOMATIC: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "OnMetered": ("on_metered", _switch),
    "OnBattery": ("on_battery", _switch),
    "MaxLoad": ("max_load", _load),
    "RestartServices": ("restart_services", _choice(RestartPolicy)),
    "RebootWithUsers": ("reboot_with_users", _switch),
    "LiveWithUsers": ("live_with_users", _switch),
    "RebootInterval": ("reboot_interval", _span_or_none),
    "BeforeReboot": ("before_reboot", _arguments),
    "AfterReboot": ("after_reboot", _arguments),
    "Notify": ("notify", _arguments),
    "Motd": ("motd", _switch),
    "MaxDefer": ("max_defer", _span_or_none),
    "Attempts": ("attempts", _count),
    "RetryPause": ("retry_pause", read_span),
    "Phases": ("phases", _shares),
    "PhaseLength": ("phase_length", read_span),
    "Halt": ("halt", str),
}
