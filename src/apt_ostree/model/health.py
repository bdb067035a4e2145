"""Health of the system: the checks, the problems of a unit, and how long units are watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from apt_ostree.model.unit import Unit

#: Types of services that systemd considers started as soon as there is a process.
_STARTED_BLINDLY = ("simple", "exec", "idle", "forking")
_QUICK = 0.25  # fraction of the settle time, for services that report readiness


def checks_in_force(
    directories: Sequence[str], programs: Callable[[str], Mapping[str, bool]]
) -> tuple[str, ...]:
    """Return the paths of the programs in directories; those in /etc override the vendor's of the same name.

    programs: returns name -> whether it is executable, of the files in a directory. Files that are not, such
        as symlinks to /dev/null, override others as well.
    """
    checks: dict[tuple[str, str], tuple[str, bool]] = {}
    for directory in directories:
        for name, is_program in programs(directory).items():
            checks[_kind(directory), name] = (f"{directory}/{name}", is_program)
    return tuple(path for _key, (path, is_program) in sorted(checks.items()) if is_program)


def _kind(directory: str) -> str:
    """Return the kind of a directory, which is the same for those of the vendor and in /etc."""
    return directory.removeprefix("/usr/lib/").removeprefix("/etc/")


def problem(unit: Unit, before: Unit | None, *, new: bool = False) -> str | None:
    """Return the problem of a unit that was acted on, or None.

    before: its state right after that; an automatic restart since then is a problem.
    new: it did not run before. Then it may end, or not run at all because a condition is not met.
    """
    state = unit["ActiveState"]
    may_end = new or unit["Type"] == "oneshot"
    if state == "failed" or (state == "inactive" and not may_end):
        return f"it is {state} ({unit['Result']})"
    restarts = int(unit["NRestarts"] or 0)
    if unit.is_in_trouble or (before and restarts > int(before["NRestarts"] or 0)):
        return "it ends and is restarted repeatedly"
    return None


def is_well(unit: Unit, seconds: float, settle: float) -> bool:
    """Return whether a unit without a problem need not be watched any more.

    seconds: how long it has run. settle: the setting, in seconds.
    """
    state = unit["ActiveState"]
    return state == "inactive" or (state == "active" and seconds >= watched_for(unit, settle))


def watched_for(unit: Unit, settle: float) -> float:
    """Return the seconds that a unit has to run without a problem. settle: the setting, in seconds."""
    return settle * (1 if unit["Type"] in _STARTED_BLINDLY else _QUICK)
