"""The rules for units: what an active unit needs after a live change.

First the causes are collected, of which the strongest counts. Then the rules are applied (the administrator's
settings, the never-restart list, the hints of the unit, its package): the first one that matches decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase

from apt_ostree.model.never_restart import never
from apt_ostree.model.unitfile import (
    COMMANDS,
    UnitFile,
    difference,
    environment_files,
    executables,
    merged,
)


class Need(StrEnum):
    """What an active unit needs after a live change."""

    NONE = "none"
    RELOAD = "reload"
    RESTART = "restart"
    STOP = "stop"  # before the switch, with its old definition
    START = "start"
    REFRESH = "refresh view"
    DEFER = "defer"  # waits for a reboot
    SKIP = "skip"  # not acted on, by a rule; reported


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about one unit.

    name: of the unit.
    active: it is active or activating.
    unit_type: Type= of a service.
    remain_after_exit, can_reload, refuse_manual_stop: systemd's properties.
    old: its unit file with drop-ins in the old tree; None if it has none there.
    new: the same in the new tree; hints are read from it. Both are None or equal if unchanged.
    removed: its unit file is removed or masked in the new tree.
    stale: files that it has executed or mapped and that the new tree changes or removes.
    programs: changed scripts in its commands (running binaries are in `stale`).
    configuration: changed files of /etc that it uses or that its package owns.
    package: the changed package that owns the unit.
    package_restarts: whether the package's script restarts it on upgrade; None if unknown.
    old_view: its mount namespace keeps showing an older /usr.
    own: this operation runs inside it.
    sockets: active socket units that trigger it.
    override: the administrator's setting for this unit.
    aliases: its other names.
    """

    name: str
    active: bool = True
    unit_type: str = ""
    remain_after_exit: bool = False
    can_reload: bool = False
    refuse_manual_stop: bool = False
    old: UnitFile | None = None
    new: UnitFile | None = None
    removed: bool = False
    stale: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    configuration: tuple[str, ...] = ()
    package: str = ""
    package_restarts: bool | None = None
    old_view: bool = False
    own: bool = False
    sockets: tuple[str, ...] = ()
    override: Need | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What a unit needs.

    need: the action.
    reason: for the user.
    evidence: the files that are the reason.
    start_again: the unit is stopped before the switch and started after it.
    """

    unit: str
    need: Need
    reason: str
    evidence: tuple[str, ...] = ()
    start_again: bool = False


def decide(facts: Facts) -> Decision | None:
    """Return the decision about one unit, or None if the change does not affect it."""
    ends_by_itself = facts.unit_type == "oneshot" and not facts.remain_after_exit
    if not facts.active or ends_by_itself:
        return None
    causes = [cause for find_cause in _CAUSES if (cause := find_cause(facts))]
    if not causes:
        return None
    cause = max(causes, key=lambda each: _RANKS.index(each.need))
    evidence = dict.fromkeys(path for each in causes if each.need is cause.need for path in each.evidence)
    cause = replace(cause, evidence=tuple(evidence))
    return next((decision for rule in _RULES if (decision := rule(facts, cause))), cause)


# --- tables

_Keys = frozenset[tuple[str, str]]

#: Of several causes the strongest counts.
_RANKS = (Need.NONE, Need.REFRESH, Need.SKIP, Need.START, Need.RELOAD, Need.RESTART, Need.STOP, Need.DEFER)

#: Keys of [Unit] that a daemon-reload applies, or that do not affect a running unit.
_IGNORED = frozenset({
    "Description", "Documentation", "OnFailure", "OnSuccess", "OnFailureJobMode", "IgnoreOnIsolate",
    "StopWhenUnneeded", "RefuseManualStart", "RefuseManualStop", "AllowIsolate", "CollectMode", "SourcePath",
})  # fmt: skip

#: systemd does not read X- keys; only these two of them count as a change.
_TRIGGERS = ("X-Reload-Triggers", "X-Restart-Triggers")

_TRUE = ("1", "yes", "y", "true", "t", "on")
_FALSE = ("0", "no", "n", "false", "f", "off")

#: Mounts of the root and /usr, which are never unmounted, whatever the settings.
_ROOTS = ("-.mount", "usr.mount", "sysroot.mount")
_BUSY_MOUNTS = (*_ROOTS, "etc.mount", "var.mount", "home.mount", "tmp.mount", "var-tmp.mount", "run.mount",
                "dev-*.mount", "proc-*.mount", "sys-*.mount", "run-*.mount")  # fmt: skip
_SPECIAL_TARGETS = ("sysinit.target", "basic.target", "multi-user.target", "graphical.target")

#: They can be reloaded, but not restarted.
_BUSES = ("dbus.service", "dbus-broker.service")

#: A changed unit file of these kinds always means the same.
_PLAIN: Mapping[str, tuple[Need, str]] = {
    "timer": (Need.RESTART, "its unit file changed"),
    "path": (Need.RESTART, "its unit file changed"),
    "slice": (Need.NONE, "systemd applies its changed unit file by itself"),
    "swap": (Need.DEFER, "its unit file changed, and the swap may be in use"),
    "automount": (Need.DEFER, "its unit file changed, and the directory may be in use"),
}


# --- causes: the effects of the change


def _removed(facts: Facts) -> Decision | None:
    if not _is_removed(facts):
        return None
    kind = _kind(facts)
    if kind == "slice":
        return Decision(facts.name, Need.NONE, "its unit file is removed; it ends with the last unit in it")
    if kind == "mount" and _matches(facts.name, _BUSY_MOUNTS):
        return Decision(
            facts.name, Need.DEFER, "its unit file is removed, and the system needs what it mounts"
        )
    return Decision(facts.name, Need.STOP, "its unit file is removed or masked")


def _changed_file(facts: Facts) -> Decision | None:
    kind, keys = _kind(facts), _changed_keys(facts)
    if not keys:
        return None
    if kind in _PLAIN:
        return Decision(facts.name, *_PLAIN[kind])
    return _CHANGED[kind](facts, keys) if kind in _CHANGED else None


def _changed_service(facts: Facts, keys: _Keys) -> Decision:
    enough = all(key in ("X-Reload-Triggers", "ExecReload") for _, key in keys) and _can_reload(facts)
    return Decision(facts.name, Need.RELOAD if enough else Need.RESTART, _file_reason(keys))


def _changed_socket(facts: Facts, keys: _Keys) -> Decision:
    if any(key.startswith("Listen") or key in ("SocketUser", "SocketGroup", "SocketMode") for _, key in keys):
        return Decision(facts.name, Need.RESTART, _file_reason(keys))
    return Decision(
        facts.name, Need.SKIP, "its unit file changed; it stays open, so no connection is refused"
    )


def _changed_mount(facts: Facts, keys: _Keys) -> Decision:
    if keys == {("Mount", "Options")} and facts.name != "usr.mount":
        return Decision(facts.name, Need.RELOAD, "its options changed")
    if _matches(facts.name, _BUSY_MOUNTS):
        return Decision(facts.name, Need.DEFER, "its unit file changed, and the system needs what it mounts")
    return Decision(facts.name, Need.RESTART, _file_reason(keys))


def _changed_target(facts: Facts, keys: _Keys) -> Decision:
    if _hint(facts.new, "X-StopOnReconfiguration") is True and facts.name not in _SPECIAL_TARGETS:
        return Decision(facts.name, Need.STOP, _file_reason(keys), start_again=True)
    return Decision(facts.name, Need.NONE, "its unit file changed; what is new in it is started")


def _stale_code(facts: Facts) -> Decision | None:
    if not facts.stale or _kind(facts) not in ("service", "scope"):
        return None
    return Decision(facts.name, Need.RESTART, "it runs code that the change replaces", facts.stale)


def _changed_programs(facts: Facts) -> Decision | None:
    programs = _running_programs(facts)
    if not programs or _kind(facts) != "service":
        return None
    return Decision(facts.name, Need.RESTART, "a program that it runs changed", programs)


def _changed_configuration(facts: Facts) -> Decision | None:
    if not facts.configuration or _kind(facts) != "service":
        return None
    environment = set(environment_files(facts.new)) if facts.new else set()
    enough = _can_reload(facts) and not environment.intersection(facts.configuration)
    need = Need.RELOAD if enough else Need.RESTART
    return Decision(facts.name, need, "its configuration changed", facts.configuration)


def _package_restarts(facts: Facts) -> Decision | None:
    if facts.package_restarts is not True or _kind(facts) not in ("service", "timer", "path"):
        return None
    return Decision(facts.name, Need.RESTART, "its package restarts it on upgrade")


def _old_view(facts: Facts) -> Decision | None:
    if not facts.old_view or facts.unit_type == "oneshot":
        return None
    return Decision(facts.name, Need.REFRESH, "it keeps seeing the older /usr until it is restarted")


_CAUSES: tuple[Callable[[Facts], Decision | None], ...] = (
    _removed, _changed_file, _stale_code, _changed_programs, _changed_configuration, _package_restarts,
    _old_view,
)  # fmt: skip

_CHANGED: Mapping[str, Callable[[Facts, _Keys], Decision]] = {
    "service": _changed_service,
    "socket": _changed_socket,
    "mount": _changed_mount,
    "target": _changed_target,
}


# --- rules: settings, hints and limits that change the decision


def _own(facts: Facts, cause: Decision) -> Decision | None:
    if not facts.own:
        return None
    if cause.need in (Need.NONE, Need.SKIP):
        return cause  # the settings do not matter then
    return _instead(cause, _left(cause), "this operation runs inside it")


def _pid1(facts: Facts, cause: Decision) -> Decision | None:
    if facts.name != "init.scope":
        return None
    return _instead(cause, Need.NONE, "PID 1 is re-executed, never restarted")


def _overridden(facts: Facts, cause: Decision) -> Decision | None:
    override = facts.override
    if override is None or (override is Need.RELOAD and cause.need is Need.REFRESH):
        return None
    reason = f"the configuration says {override}"
    if override in (Need.RESTART, Need.RELOAD):
        if _is_removed(facts) or facts.name in _ROOTS or _kind(facts) in ("scope", "slice"):
            return None
        if override is Need.RELOAD and not _can_reload(facts):
            return _instead(cause, Need.DEFER, f"{reason}, and it cannot reload")
        if override is Need.RESTART and _refuses(facts):
            return _instead(cause, Need.DEFER, f"{reason}, and systemd refuses to stop it")
    return _instead(cause, override, reason)


def _settled(_facts: Facts, cause: Decision) -> Decision | None:
    return cause if cause.need in (Need.NONE, Need.SKIP, Need.DEFER) else None


def _never(facts: Facts, cause: Decision) -> Decision | None:
    names = (facts.name, *facts.aliases)
    reason = never(*names)
    if reason is None and _kind(facts) == "socket":
        reason = never(_service_of(facts))
    if reason is None or (cause.need is Need.RELOAD and not set(_BUSES).isdisjoint(names)):
        return None
    return _instead(cause, _left(cause), reason)


def _scope(facts: Facts, cause: Decision) -> Decision | None:
    if _kind(facts) != "scope":
        return None
    return _instead(cause, _left(cause), "systemd cannot start a scope again")


def _stopped(facts: Facts, cause: Decision) -> Decision | None:
    if cause.need is not Need.STOP:
        return None
    if not cause.start_again and _hint(facts.old, "X-StopOnRemoval") is False:
        return _instead(cause, Need.SKIP, "its unit file is removed, and had X-StopOnRemoval=no")
    if facts.refuse_manual_stop:
        return _instead(cause, Need.DEFER, f"{cause.reason}, and systemd refuses to stop it")
    return cause


def _hinted_reload(facts: Facts, cause: Decision) -> Decision | None:
    is_hinted = cause.need in (Need.RESTART, Need.RELOAD) and _hint(facts.new, "X-ReloadIfChanged") is True
    return replace(cause, need=Need.RELOAD) if is_hinted and _can_reload(facts) else None


def _done(facts: Facts, cause: Decision) -> Decision | None:
    if facts.unit_type != "oneshot" or cause.need is not Need.RESTART or facts.package_restarts is True:
        return None
    return _instead(cause, Need.SKIP, f"{cause.reason}; a oneshot that has done its work")


def _hinted_skip(facts: Facts, cause: Decision) -> Decision | None:
    if cause.need not in (Need.RESTART, Need.REFRESH):
        return None
    if _hint(facts.new, "X-RestartIfChanged") is False:
        return _instead(cause, Need.SKIP, f"{cause.reason}; its unit file says not to restart it")
    if _hint(facts.new, "X-OnlyManualStart") is True:
        return _instead(cause, Need.SKIP, f"{cause.reason}; it is only started by hand")
    return None


def _refused(facts: Facts, cause: Decision) -> Decision | None:
    if cause.need not in (Need.RESTART, Need.REFRESH) or not _refuses(facts):
        return None
    need = Need.DEFER if facts.stale else Need.SKIP
    return _instead(cause, need, f"{cause.reason}; systemd refuses to restart it")


def _package_leaves(facts: Facts, cause: Decision) -> Decision | None:
    foreign = bool(facts.stale) and not facts.package
    if facts.package_restarts is not False or cause.need not in (Need.RESTART, Need.RELOAD) or foreign:
        return None
    return _instead(cause, Need.SKIP, f"{cause.reason}; its package does not restart it on upgrade")


def _stop_first(facts: Facts, cause: Decision) -> Decision | None:
    if cause.need is not Need.RESTART or _hint(facts.new, "X-StopIfChanged") is not True:
        return None
    return replace(cause, need=Need.STOP, start_again=True)


_RULES: tuple[Callable[[Facts, Decision], Decision | None], ...] = (
    _own, _pid1, _overridden, _settled, _never, _scope, _stopped, _hinted_reload, _done, _hinted_skip,
    _refused, _package_leaves, _stop_first,
)  # fmt: skip


# --- helpers


def _kind(facts: Facts) -> str:
    return facts.name.rpartition(".")[2]


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _instead(cause: Decision, need: Need, reason: str) -> Decision:
    return replace(cause, need=need, reason=reason, start_again=False)


def _left(cause: Decision) -> Need:
    """Return the need instead of a restart: an old view alone is no reason to wait for a reboot."""
    return Need.SKIP if cause.need is Need.REFRESH else Need.DEFER


def _is_removed(facts: Facts) -> bool:
    return facts.removed or (facts.old is not None and facts.new is None)


def _changed_keys(facts: Facts) -> _Keys:
    """Return the changed settings that matter to a running unit."""
    new = facts.new
    if new is None or facts.removed:
        return frozenset()
    changed = difference(facts.old or UnitFile({}), new)
    return frozenset(setting for setting in changed if not _ignorable(setting, new))


def _ignorable(setting: tuple[str, str], new: UnitFile) -> bool:
    section, key = setting
    if section == "Unit" and key in _IGNORED:
        return True
    if setting == ("Service", "ExecReload"):
        return not new.values(*setting)
    return key not in _TRIGGERS and (key.startswith("X-") or section.startswith("X-"))


def _file_reason(keys: _Keys) -> str:
    names = sorted({key for _, key in keys})
    more = ", …" if len(names) > 3 else ""
    return f"its unit file changed ({', '.join(names[:3])}{more})"


def _hint(unit: UnitFile | None, key: str) -> bool | None:
    """Return a boolean of [Unit] or [Service], or None if it is not set or not a boolean."""
    value = (unit.get("Unit", key) or unit.get("Service", key)).lower() if unit else ""
    return True if value in _TRUE else False if value in _FALSE else None


def _can_reload(facts: Facts) -> bool:
    """Return whether the unit can be reloaded with its new definition."""
    if facts.new and (
        facts.new.values("Service", "ExecReload") or facts.new.get("Service", "Type") == "notify-reload"
    ):
        return True
    lost_reload = facts.old and facts.new and facts.old.values("Service", "ExecReload")
    return facts.can_reload and not lost_reload


def _refuses(facts: Facts) -> bool:
    keys = ("RefuseManualStop", "RefuseManualStart")
    return facts.refuse_manual_stop or any(_hint(facts.new, key) is True for key in keys)


def _running_programs(facts: Facts) -> tuple[str, ...]:
    """Return the changed programs, except for those of helper commands such as ExecReload=."""
    if facts.new is None:
        return facts.programs
    main = {merged(path) for path in executables(facts.new, ("ExecStart",))}
    helpers = {merged(path) for path in executables(facts.new, COMMANDS)} - main
    return tuple(path for path in facts.programs if merged(path) not in helpers)


def _service_of(facts: Facts) -> str:
    """Return the service that a socket unit starts; for a template, any instance."""
    unit = facts.new or facts.old or UnitFile({})
    accept = unit.get("Socket", "Accept").lower() in _TRUE
    stem = facts.name.removesuffix(".socket")
    return unit.get("Socket", "Service") or (f"{stem}@0.service" if accept else f"{stem}.service")
