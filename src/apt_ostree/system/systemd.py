"""systemd on the running system: units, reload, tmpfiles and sysusers, always in PID 1's namespace."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from apt_ostree.errors import ExternalFailure
from apt_ostree.model import accounts, layout, unitfile
from apt_ostree.model.unit import Unit, is_unit_name
from apt_ostree.system import mounts, process

_PROPERTIES = (
    "Id", "ActiveState", "SubState", "LoadState", "Type", "FragmentPath", "DropInPaths", "CanReload",
    "RefuseManualStop", "RemainAfterExit", "TriggeredBy", "Triggers", "RequiredBy", "BoundBy", "ConsistsOf",
    "MainPID", "NRestarts", "Result", "SendSIGKILL", "StateChangeTimestampMonotonic", "Job", "Transient",
    "Following", "FileDescriptorStoreMax", "ExecMainStartTimestampMonotonic", "Names",
    "InactiveExitTimestampMonotonic", "ConditionTimestampMonotonic",
)  # fmt: skip
#: Directories of unit files that belong to the tree; those elsewhere are generated.
TREE_DIRECTORIES = ("/usr/lib/systemd/system/", "/etc/systemd/system/", f"/{layout.OPT}/", "/opt/")
_TYPES = ("service", "socket", "timer", "path", "mount", "automount", "swap", "target", "slice", "scope")
_POLICY = "/usr/sbin/policy-rc.d"
_RUNTIME_DIRECTORY = Path("/run/systemd/system")
_TIMEOUT = 300.0  # seconds
_PATIENCE = 1.0  # seconds that a daemon may take to answer, which it does at once, or it hangs
_INTERVAL = 0.2  # seconds


def active_units() -> dict[str, Unit]:
    """Return name -> unit of the units that are active or activating, except for devices."""
    loaded_units = _show([f"*.{kind}" for kind in _TYPES], "--state=active,reloading,activating")
    return {unit.name: unit for unit in loaded_units if not unit["Following"]}


def units(names: Iterable[str], *, anyone: bool = False) -> dict[str, Unit]:
    """Return name -> unit for each of the names that is a unit name; names without a unit are included.

    anyone: ask in the namespace of this process, which may not enter that of PID 1.
    """
    unit_names = sorted({name for name in names if is_unit_name(name)})
    if not unit_names:
        return {}
    return dict(zip(unit_names, _show(unit_names, anyone=anyone), strict=True))


def active(names: Iterable[str]) -> frozenset[str]:
    """Return the names of those units that are active or activating."""
    return frozenset(name for name, unit in units(names).items() if unit.is_active)


def failed_units() -> frozenset[str]:
    """Return the names of the units that have failed."""
    return frozenset(unit.name for unit in _show(["*"], "--state=failed"))


def well_units() -> frozenset[str]:
    """Return the names of the units that are loaded from a definition and have not failed."""
    loaded = (
        unit for unit in _show([f"*.{kind}" for kind in _TYPES], "--all") if unit["LoadState"] == "loaded"
    )
    return frozenset(unit.name for unit in loaded if unit["ActiveState"] != "failed")


def userspace_seconds() -> float:
    """Return the seconds since the system's own systemd was started, without an initramfs before it."""
    command = ["show", "--property=UserspaceTimestampMonotonic", "--value"]
    began = _systemctl(command, "read when systemd was started").strip()
    return time.monotonic() - int(began or 0) / 1e6


def _show(names: Sequence[str], *options: str, anyone: bool = False) -> list[Unit]:
    arguments = ["show", *options, f"--property={','.join(_PROPERTIES)}", "--", *names]
    command, what = ["systemctl", "--no-pager", *arguments], "read the properties of units"
    text = process.run(command, what=what, timeout=_TIMEOUT).stdout if anyone else _run(command, what)
    blocks = text.strip("\n").split("\n\n")
    rows = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in blocks if block]
    return [Unit(row.get("Id", ""), row) for row in rows]


def daemon_reload() -> None:
    """Reload the configuration and the units of the system manager.

    A running unit whose file is gone, but not that of an alias, goes on as the alias.
    """
    links: list[Path] = []
    try:
        with mounts.in_namespace_of(1):
            for unit in active_units().values():
                if target := _file_of_alias(unit):
                    links.append(_RUNTIME_DIRECTORY / unit.name)
                    _link(links[-1], target)
        _systemctl(["daemon-reload"], "reload systemd")
    finally:
        for link in links:
            link.unlink(missing_ok=True)


def _file_of_alias(unit: Unit) -> Path | None:
    """Return the file of an alias of a unit that has no file itself any more."""
    if len(unit.names) == 1 or Path(unit["FragmentPath"]).is_file():
        return None
    files = {name: _file_of(name) for name in unit.names}
    return None if files[unit.name] else next(filter(None, files.values()), None)


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)  # it leads nowhere, or it would be the unit's file
    link.symlink_to(target)


def _file_of(name: str) -> Path | None:
    paths = (Path(directory, name) for directory in unitfile.DIRECTORIES)
    return next((path for path in paths if path.exists()), None)


def daemon_reexec() -> None:
    """Re-execute systemd, which keeps its state."""
    _systemctl(["daemon-reexec"], "re-execute systemd")


def user_managers() -> tuple[str, ...]:
    """Return the names of the active user managers (user@UID.service)."""
    return tuple(unit.name for unit in _show(["user@*.service"]) if unit.is_active)


def signal_user_manager(unit: str, *, reexec: bool) -> None:
    """Reload or re-execute a user manager (user@UID.service), see systemd(1)."""
    number = "SIGRTMIN+25" if reexec else "SIGHUP"
    arguments = ["kill", "--kill-whom=main", f"--signal={number}", "--", unit]
    _systemctl(arguments, f"re-execute or reload {unit}")


def start(names: Sequence[str], *, block: bool = True, timeout: float = _TIMEOUT) -> None:
    """Start units in one transaction. block: wait for them. timeout: in seconds."""
    _job("start", names, timeout, *([] if block else ["--no-block"]))


def stop(names: Sequence[str], *, timeout: float = _TIMEOUT) -> None:
    """Stop units in one transaction, which an activation cannot cancel. timeout: in seconds."""
    _job("stop", names, timeout, "--job-mode=replace-irreversibly")


def restart_later(unit: str) -> None:
    """Have a unit restarted, or started, without waiting for it."""
    _systemctl(["restart", "--no-block", "--", unit], f"restart {unit}")


def restart(names: Sequence[str], *, timeout: float = _TIMEOUT, running_only: bool = False) -> None:
    """Restart units, ordered by their dependencies.

    timeout: for each transaction, in seconds.
    running_only: do not start units that are not running.
    """
    sockets = [name for name in names if name.endswith(".socket")]
    if sockets:  # systemd opens no socket whose service runs
        served = {s for unit in units(sockets).values() for s in unit["Triggers"].split()}
        services = sorted(active(served))
        _job("stop", [*services, *sockets], timeout)
        _job("start", sockets, timeout)
        _job("start", services, timeout)
        names = [name for name in names if name not in (*sockets, *services)]
    _job("try-restart" if running_only else "restart", names, timeout)


def reload(names: Sequence[str], *, timeout: float = _TIMEOUT) -> None:
    """Reload the configuration of units. timeout: in seconds."""
    _job("reload", names, timeout)


def cancel_jobs(names: Iterable[str], *, patience: float) -> None:
    """Cancel the jobs of units, and kill units that take longer than `patience` seconds to stop.

    A unit with SendSIGKILL=no is not killed (systemd.kill(5)).
    """
    for name, unit in units(names).items():
        if unit.has_job:
            _systemctl(["cancel", unit["Job"]], f"cancel the job of {name}", check=False)
        if _is_stopping_after(name, patience):
            _systemctl(["kill", "--signal=SIGKILL", "--", name], f"kill {name}", check=False)


def _is_stopping_after(name: str, patience: float) -> bool:
    """Wait while a unit stops; return whether it is still stopping after `patience` seconds."""
    while True:
        unit = units([name])[name]
        if unit["ActiveState"] != "deactivating" or unit["SendSIGKILL"] == "no":
            return False
        if time.monotonic() - int(unit["StateChangeTimestampMonotonic"] or 0) / 1e6 >= patience:
            return True
        time.sleep(_INTERVAL)


def log_tail(name: str, lines: int = 8) -> tuple[str, ...]:
    """Return the last lines that a unit logged since boot (journalctl(1))."""
    command = ["journalctl", "--no-pager", "--boot", f"--lines={lines}", "--output=cat", f"--unit={name}"]
    return tuple(_run(command, f"read the log of {name}", check=False).splitlines())


def reset_failed(names: Sequence[str]) -> None:
    """Reset the failed state and the start rate limit of units."""
    _systemctl(["reset-failed", "--", *names], "reset the failed state of units", check=False)


#: Settings of a unit that runs at any time but during the shutdown; "rescue" and "emergency" do not stop it.
_INDEPENDENT = (
    "DefaultDependencies=no",
    "Conflicts=shutdown.target",
    "Before=shutdown.target",
    "IgnoreOnIsolate=yes",
)


def run_later(name: str, command: Sequence[str], seconds: float) -> None:
    """Run a command after some seconds, by a transient timer named after `name` (systemd-run(1)).

    Neither waits for the system to be up: the boot may be what the command is to look at, and may itself wait
    for a lock that the caller holds.
    """
    # The name is unique: the running process may have been started by the previous timer.
    options = [
        f"--unit={name}-{time.monotonic_ns()}",
        f"--on-active={seconds:.0f}",
        "--timer-property=AccuracySec=1s",
        *(f"--{kind}={setting}" for kind in ("property", "timer-property") for setting in _INDEPENDENT),
        "--collect",
    ]
    _run(["systemd-run", "--quiet", *options, "--", *command], "set a timer")


def disarm(name: str) -> None:
    """Stop the timers that `run_later` has set under a name."""
    _systemctl(["stop", f"{name}-*.timer"], f"stop {name}", check=False)


def state() -> str:
    """Return the state of the system manager, such as "running" or "stopping" (systemctl(1))."""
    return _systemctl(["is-system-running"], "read the state of systemd", check=False).strip()


def is_unit_active(name: str) -> bool:
    """Return whether a unit is active. Any user may ask; without systemd there is none."""
    try:
        done = process.run(["systemctl", "is-active", "--quiet", name], what="ask for a unit", check=False)
    except ExternalFailure:
        return False
    return done.returncode == 0


def is_allowed(unit: str, action: str) -> bool:
    """Return whether policy-rc.d allows an action on a unit, as for deb-systemd-invoke (invoke-rc.d(8))."""
    with mounts.in_namespace_of(1):
        if not os.access(_POLICY, os.X_OK):
            return True
        done = process.run([_POLICY, unit, action], what=f"run {_POLICY}", check=False, timeout=60)
    return done.returncode != 101  # forbidden


def create_users(configs: Sequence[str]) -> None:
    """Create the users and groups that these sysusers.d files (by name) define."""
    _run(["systemd-sysusers", *configs], "create the packages' users")


def discard_leftovers(etc: Path) -> None:
    """Remove the scratch files that systemd-sysusers leaves beside the account files after a power cut."""
    for name in accounts.FILES:
        for path in etc.glob(f".#{name}" + "[0-9a-f]" * 16):  # tempfn_random() in systemd
            path.unlink()


def create_files(configs: Sequence[str]) -> None:
    """Create the paths outside /usr and /etc that these tmpfiles.d files (by name) define."""
    # Changes of /etc are recorded in the journal, and /usr is read-only.
    command = ["systemd-tmpfiles", "--create", "--exclude-prefix=/etc", "--exclude-prefix=/usr", *configs]
    with mounts.in_namespace_of(1):
        done = process.run(command, what="create the packages' directories", check=False)
    # 65 and 73: single lines could not be applied (systemd-tmpfiles(8)), which does not stop a boot either.
    if done.returncode not in (0, 65, 73):
        raise process.failure("create the packages' directories", done, done.stderr or done.stdout)


def update_library_cache() -> None:
    """Rebuild /etc/ld.so.cache for the present /usr."""
    _run(["ldconfig", "-X"], "rebuild the cache of shared libraries")


def reload_udev() -> None:
    """Reload udev's rules, if udev runs."""
    if active(["systemd-udevd.service"]):
        _run(["udevadm", "control", "--reload"], "reload udev's rules", timeout=_PATIENCE)


def reload_bus() -> None:
    """Reload the configuration of the message bus, if it runs."""
    bus = "org.freedesktop.DBus"
    if active(["dbus.service"]):
        command = ["busctl", "--quiet", "call", bus, "/", bus, "ReloadConfig"]
        _run(command, "reload the configuration of the message bus", timeout=_PATIENCE)


def reload_polkit() -> None:
    """Have polkit read its actions and rules, if it runs: its watches are on the /usr of before."""
    if active(["polkit.service"]):  # the change may have removed it
        command = ["try-reload-or-restart", "--", "polkit.service"]  # polkit 122 cannot reload
        _systemctl(command, "reload polkit", timeout=_PATIENCE)


def update_catalog() -> None:
    """Rebuild the catalog of messages (journalctl(1)); its age says nothing about a tree's."""
    _run(["journalctl", "--update-catalog"], "update the catalog of messages")


def update_font_cache() -> None:
    """Rebuild the font cache, of which the age says nothing: all directories of a tree have one time."""
    _run(["fc-cache", "--force", "--system-only"], "update the font cache")


def _job(verb: str, names: Sequence[str], timeout: float, *options: str) -> None:
    """Run a job for units and wait for it; ExternalFailure has the last log lines of failed units."""
    if not names:
        return
    try:
        _systemctl([verb, *options, "--", *names], f"{verb} {', '.join(names)}", timeout=timeout)
    except ExternalFailure as error:
        if isinstance(error.__cause__, OSError):  # systemctl did not run, so that nothing was logged
            raise
        failed = {
            name: unit
            for name, unit in units(names).items()
            if unit["ActiveState"] not in ("active", "inactive")
        }
        if failed and all(unit["Result"] == "start-limit-hit" for unit in failed.values()):
            # Changes in a row are no crashes in a row, which that limit is for (systemd.unit(5)).
            _systemctl(["reset-failed", "--", *failed], f"reset {', '.join(failed)}")
            _job("start", list(failed), timeout)
            return
        logged = [f"{name}: {line}" for name in list(failed)[:3] for line in log_tail(name)]
        raise ExternalFailure(
            error.message,
            details=logged or error.details,
            hint=error.hint,
            internals=error.internals,
            concerns_health=bool(failed),
        ) from error


def _systemctl(arguments: Sequence[str], what: str, *, check: bool = True, timeout: float = _TIMEOUT) -> str:
    return _run(["systemctl", "--no-pager", *arguments], what, check=check, timeout=timeout)


def _run(command: Sequence[str], what: str, *, check: bool = True, timeout: float = _TIMEOUT) -> str:
    with mounts.in_namespace_of(1):
        return process.run(command, what=what, check=check, timeout=timeout).stdout
