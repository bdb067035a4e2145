"""Reads [Policy] and [Holds] of apt-ostree.conf(5); each rule keeps the line that set it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from apt_ostree.errors import UsageError
from apt_ostree.model.policy import (
    ApprovalBy,
    ArchivePattern,
    Hold,
    Names,
    Origins,
    Policy,
    Scanner,
    Seconds,
    Setting,
    Span,
    Switch,
    Verbs,
    Window,
    Windows,
)

POLICY = "Policy"
HOLDS = "Holds"
SECTIONS = frozenset({POLICY, HOLDS})
#: Verbs whose plans can be approved: the same plan is made of the same state each time.
APPROVABLE = frozenset(
    {
        "apply-live",
        "deploy",
        "finalize-deployment",
        "initramfs",
        "initramfs-etc",
        "install",
        "kargs",
        "override",
        "rebase",
        "reset",
        "run",
        "uninstall",
        "upgrade",
        "usroverlay",
    }
)
#: What a pattern of names of packages consists of: those of Debian's names, and of fnmatch(3).
_PATTERN = re.compile(r"[a-z0-9+.*?\[\]!-]+")
#: The pattern of what comes from a file.
_FILE = "file"
#: Key of a pattern -> field of Archive, as unattended-upgrades has them.
_FIELDS = {
    "origin": "origin", "o": "origin", "label": "label", "l": "label", "suite": "suite", "archive": "suite",
    "a": "suite", "codename": "codename", "n": "codename", "component": "component", "c": "component",
    "site": "site",
}  # fmt: skip


def read_policy(settings: Iterable[Setting]) -> Policy:
    """Return the policy of settings in the order of their files; the last one of a key counts.

    UsageError names the file and the key of a mistake.
    """
    policy = Policy()
    for setting in settings:
        policy = _with(policy, setting)
    return policy


def _with(policy: Policy, setting: Setting) -> Policy:
    if setting.section == HOLDS:
        return replace(policy, holds=_with_hold(policy.holds, setting))
    if setting.key not in _KEYS:
        raise UsageError(
            f"{setting.file}: unknown setting [{setting.section}] {setting.key}",
            hint=f"known: {', '.join(f'[{POLICY}] {key}' for key in _KEYS)}, [{HOLDS}] PACKAGE",
        )
    name, read = _KEYS[setting.key]
    # An empty value switches off what an earlier file has set.
    try:
        value: Any = read(setting) if setting.value else None
        return replace(policy, **{name: value})
    except ValueError as error:
        raise UsageError(f"{setting.file}: [{POLICY}] {setting.key} cannot be read: {error}") from error


def _with_hold(holds: Iterable[Hold], setting: Setting) -> tuple[Hold, ...]:
    """Return the holds with another one in place of that of the same pattern; an empty value ends it."""
    others = [hold for hold in holds if hold.pattern != setting.key]
    place = f"{setting.file}: [{HOLDS}] {setting.key}"
    if not _PATTERN.fullmatch(setting.key):
        raise UsageError(f"{place}: this matches no name of a package")
    if setting.value:
        try:
            others.append(Hold(setting.key, datetime.fromisoformat(setting.value), setting))
        except ValueError as error:
            raise UsageError(
                f"{place}: {setting.value!r} is no date", hint="such as 2026-12-24 or 2026-12-24 06:00"
            ) from error
    return tuple(sorted(others, key=lambda hold: hold.pattern))


def _names(setting: Setting) -> Names:
    patterns = tuple(shlex.split(setting.value))
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            raise ValueError(f"{pattern!r} matches no name of a package")
    return Names(patterns, setting)


def _origins(setting: Setting) -> Origins:
    given = shlex.split(setting.value)
    patterns = tuple(_archive(pattern) for pattern in given if pattern != _FILE)
    return Origins(patterns, _FILE in given, setting)


def _archive(text: str) -> ArchivePattern:
    fields = []
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key not in _FIELDS:
            raise ValueError(f"{part!r} is none of {', '.join(sorted(set(_FIELDS.values())))}=PATTERN")
        fields.append((_FIELDS[key], value))
    return ArchivePattern(tuple(fields))


def _windows(setting: Setting) -> Windows:
    """Return the windows of "CALENDAR for SPAN; ...": systemd reads both parts when a change is judged."""
    windows = []
    for text in setting.value.split(";"):
        calendar, between, span = map(str.strip, text.rpartition(" for "))
        if not (calendar and between and span):
            raise ValueError(f"{text.strip()!r} is not CALENDAR for SPAN, such as 'Sat 02:00 for 4h'")
        windows.append(Window(calendar, span))
    return Windows(tuple(windows), setting)


def _verbs(setting: Setting) -> Verbs:
    names = frozenset(setting.value.split())
    if others := sorted(names - APPROVABLE):
        raise ValueError(f"{others[0]!r} is none of {', '.join(sorted(APPROVABLE))}")
    return Verbs(names, setting)


def _approval_by(setting: Setting) -> ApprovalBy:
    if setting.value not in ("anybody", "other"):
        raise ValueError(f"{setting.value!r} is neither anybody nor other")
    return ApprovalBy(setting.value == "other", setting)


def _span(setting: Setting) -> Span:
    return Span(setting.value, setting)


def _scanner(setting: Setting) -> Scanner:
    return Scanner(tuple(shlex.split(setting.value)), setting)


def _seconds(setting: Setting) -> Seconds:
    if not setting.value.isdecimal() or not int(setting.value):
        raise ValueError(f"{setting.value!r} is not a positive number of seconds")
    return Seconds(int(setting.value), setting)


def _switch(setting: Setting) -> Switch:
    if setting.value not in ("yes", "no"):
        raise ValueError(f"{setting.value!r} is neither yes nor no")
    return Switch(setting.value == "yes", setting)


#: Key -> field of Policy, and the function that reads the setting.
_KEYS: Mapping[str, tuple[str, Callable[[Setting], Any]]] = {
    "NeverPackages": ("never", _names),
    "OnlyPackages": ("only", _names),
    "Origins": ("origins", _origins),
    "SecurityOnly": ("security_only", _switch),
    "ApplyWindow": ("apply_windows", _windows),
    "RebootWindow": ("reboot_windows", _windows),
    "Approval": ("approval", _verbs),
    "ApprovalBy": ("approval_by", _approval_by),
    "ApprovalExpires": ("approval_expires", _span),
    "Scanner": ("scanner", _scanner),
    "ScanTimeout": ("scan_timeout", _seconds),
    "Override": ("override", _switch),
}
