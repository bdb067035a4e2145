"""Whether the system is well: what of a unit is trouble, how long it is watched, what checks there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from apt_ostree.model.unit import Unit

#: systemd considers these started when it has started a process; whether it works shows a moment later.
_STARTED_BLINDLY = ("simple", "exec", "idle", "forking")
_QUICK = 0.25  # of the settle time, for services that say when they are ready


def checks_in_force(
    directories: Sequence[str], programs: Callable[[str], Mapping[str, bool]]
) -> tuple[str, ...]:
    """Return the programs of directories; one in /etc hides the vendor's of the same name and kind.

    programs: returns what a directory has, and whether it can be executed. What cannot, such as a link to
    /dev/null, hides as well.
    """
    found: dict[tuple[str, str], tuple[str, bool]] = {}
    for directory in directories:
        for name, is_program in programs(directory).items():
            found[_kind(directory), name] = (f"{directory}/{name}", is_program)
    return tuple(path for _key, (path, is_program) in sorted(found.items()) if is_program)


def _kind(directory: str) -> str:
    """Return what directories share of which one in /etc hides the vendor's programs."""
    return directory.removeprefix("/usr/lib/").removeprefix("/etc/")


def trouble(unit: Unit, before: Unit | None) -> str | None:
    """Return why a unit that was acted on does not run well, or None.

    before: what it was just after that; a restart by systemd itself since then is trouble.
    """
    state = unit["ActiveState"]
    if state == "failed" or (state == "inactive" and unit["Type"] != "oneshot"):
        return f"it is {state} ({unit['Result']})"
    restarts = int(unit["NRestarts"] or 0)
    if unit["SubState"] == "auto-restart" or (before and restarts > int(before["NRestarts"] or 0)):
        return "it ends and is restarted again and again"
    return None


def watched_for(unit: Unit, settle: float) -> float:
    """Return for how many seconds a unit has to run without trouble; settle: as the settings have it."""
    return settle * (1 if unit["Type"] in _STARTED_BLINDLY else _QUICK)
