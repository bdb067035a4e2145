"""systemd on the running system: units, reload, tmpfiles and sysusers, always in PID 1's namespace."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from apt_ostree.errors import ExternalFailure
from apt_ostree.model import accounts
from apt_ostree.model.unit import Unit, is_unit_name
from apt_ostree.system import mounts, process

_PROPERTIES = (
    "Id", "ActiveState", "SubState", "LoadState", "Type", "FragmentPath", "DropInPaths", "CanReload",
    "RefuseManualStop", "RemainAfterExit", "TriggeredBy", "Triggers", "RequiredBy", "BoundBy", "ConsistsOf",
    "MainPID", "NRestarts", "Result", "SendSIGKILL", "StateChangeTimestampMonotonic", "Job", "Transient",
    "Following", "FileDescriptorStoreMax", "ExecMainStartTimestampMonotonic",
)  # fmt: skip
#: Where unit files travel with the tree; what is elsewhere is generated.
TREE_DIRECTORIES = ("/usr/lib/systemd/system/", "/etc/systemd/system/")
_TYPES = ("service", "socket", "timer", "path", "mount", "automount", "swap", "target", "slice", "scope")
_POLICY = "/usr/sbin/policy-rc.d"
_TIMEOUT = 300.0  # seconds
_INTERVAL = 0.2  # seconds


def started(unit: Unit) -> float:
    """Return when a unit's main process was started, in seconds since 1970, or 0."""
    return time.time() - time.monotonic() + unit.started if unit.started else 0.0


def active_units() -> dict[str, Unit]:
    """Return the units that run or are about to, by name; devices, which nobody restarts, left out."""
    found = _show([f"*.{kind}" for kind in _TYPES], "--state=active,reloading,activating")
    return {unit.name: unit for unit in found if not unit["Following"]}


def units(names: Iterable[str]) -> dict[str, Unit]:
    """Return what systemd knows of these units, by the names given."""
    wanted = sorted({name for name in names if is_unit_name(name)})
    return dict(zip(wanted, _show(wanted), strict=True)) if wanted else {}


def active(names: Iterable[str]) -> frozenset[str]:
    """Return those of the units that are active or becoming so."""
    return frozenset(name for name, unit in units(names).items() if unit.is_active)


def _show(names: Sequence[str], *options: str) -> list[Unit]:
    words = ["show", *options, f"--property={','.join(_PROPERTIES)}", "--", *names]
    blocks = _systemctl(words, "ask systemd about units").strip("\n").split("\n\n")
    rows = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in blocks if block]
    return [Unit(row.get("Id", ""), row) for row in rows]


def daemon_reload() -> None:
    """Make systemd, and the managers of users who are logged in, read their units again."""
    _systemctl(["daemon-reload"], "make systemd read its units again")


def daemon_reexec() -> None:
    """Make systemd execute itself anew, keeping all state."""
    _systemctl(["daemon-reexec"], "make systemd execute itself anew")


def user_managers() -> tuple[str, ...]:
    """Return the running managers of users (user@UID.service)."""
    return tuple(unit.name for unit in _show(["user@*.service"]) if unit.is_active)


def signal_user_manager(unit: str, *, reexec: bool) -> None:
    """Make a user's manager (user@UID.service) read its units again, or execute itself anew (systemd(1))."""
    number = "SIGRTMIN+25" if reexec else "SIGHUP"
    words = ["kill", "--kill-whom=main", f"--signal={number}", "--", unit]
    _systemctl(words, f"tell {unit} to go on with new code")


def start(names: Sequence[str], *, block: bool = True, timeout: float = _TIMEOUT) -> None:
    """Start units as one transaction."""
    _job("start", names, timeout, *([] if block else ["--no-block"]))


def stop(names: Sequence[str], *, timeout: float = _TIMEOUT) -> None:
    """Stop units as one transaction."""
    _job("stop", names, timeout)


def restart(names: Sequence[str], *, timeout: float = _TIMEOUT, running_only: bool = False) -> None:
    """Restart units, ordered by their dependencies.

    running_only: what does not run stays so; otherwise it is started.
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
    """Have units reload their configuration."""
    _job("reload", names, timeout)


def cancel_jobs(names: Iterable[str], *, patience: float) -> None:
    """Drop the jobs of units that did not end in time, and kill what takes longer to stop than `patience`.

    Never where SendSIGKILL=no forbids it (systemd.kill(5)): a database may be writing.
    """
    for name, unit in units(names).items():
        if unit.has_job:
            _systemctl(["cancel", unit["Job"]], f"drop the job of {name}", check=False)
        if _is_stopping_after(name, patience):
            _systemctl(["kill", "--signal=SIGKILL", "--", name], f"kill {name}", check=False)


def _is_stopping_after(name: str, patience: float) -> bool:
    """Wait while a unit stops, and tell whether it still does after so many seconds of stopping."""
    while True:
        unit = units([name])[name]
        if unit["ActiveState"] != "deactivating" or unit["SendSIGKILL"] == "no":
            return False
        if time.monotonic() - int(unit["StateChangeTimestampMonotonic"] or 0) / 1e6 >= patience:
            return True
        time.sleep(_INTERVAL)


def log_tail(name: str, lines: int = 8) -> tuple[str, ...]:
    """Return the last lines that a unit logged in this boot (journalctl(1))."""
    words = ["journalctl", "--no-pager", "--boot", f"--lines={lines}", "--output=cat", f"--unit={name}"]
    return tuple(_run(words, f"read the log of {name}", check=False).splitlines())


def reset_failed(names: Sequence[str]) -> None:
    """Forget that units failed or were started too often: the next start counts."""
    _systemctl(["reset-failed", "--", *names], "forget failures", check=False)


def run_later(name: str, words: Sequence[str], seconds: float) -> None:
    """Have systemd run a command later, whatever becomes of us (a transient timer, systemd-run(1))."""
    # A name of its own: what is running now, to set the next one, may have been started by the last one.
    options = [
        f"--unit={name}-{time.monotonic_ns()}",
        f"--on-active={seconds:.0f}",
        "--timer-property=AccuracySec=1s",
        "--collect",
    ]
    _run(["systemd-run", "--quiet", *options, "--", *words], "set a timer")


def disarm(name: str) -> None:
    """Drop such a timer, if it is there."""
    _systemctl(["stop", f"{name}-*.timer"], f"stop {name}", check=False)


def state() -> str:
    """Return the state of the system's manager, such as "running" or "stopping" (systemctl(1))."""
    return _systemctl(["is-system-running"], "ask systemd for its state", check=False).strip()


def is_allowed(unit: str, action: str) -> bool:
    """Ask the administrator's policy-rc.d, as deb-systemd-invoke does (invoke-rc.d(8)): 101 forbids."""
    with mounts.in_namespace_of(1):
        if not os.access(_POLICY, os.X_OK):
            return True
        done = process.run([_POLICY, unit, action], what=f"ask {_POLICY}", check=False, timeout=60)
    return done.returncode != 101


def create_users(configs: Sequence[str]) -> None:
    """Create the users and groups that these sysusers.d files (by name) describe."""
    _run(["systemd-sysusers", *configs], "create the packages' users")


def discard_leftovers(etc: Path) -> None:
    """Remove the scratch files that systemd-sysusers leaves beside the account files when power fails."""
    for name in accounts.FILES:
        for path in etc.glob(f".#{name}" + "[0-9a-f]" * 16):  # tempfn_random() in systemd
            path.unlink()


def create_files(configs: Sequence[str]) -> None:
    """Create what these tmpfiles.d files (by name) describe, outside /usr and /etc."""
    # /etc goes through the journal, and /usr is a layer.
    words = ["systemd-tmpfiles", "--create", "--exclude-prefix=/etc", "--exclude-prefix=/usr", *configs]
    with mounts.in_namespace_of(1):
        done = process.run(words, what="create the packages' directories", check=False)
    # 65 and 73 say that single lines could not be applied (systemd-tmpfiles(8)); boot goes on then, so do we.
    if done.returncode not in (0, 65, 73):
        raise process.failure("create the packages' directories", done, done.stderr or done.stdout)


def update_library_cache() -> None:
    """Rebuild /etc/ld.so.cache for the present /usr."""
    _run(["ldconfig", "-X"], "rebuild the cache of shared libraries")


def reload_udev() -> None:
    """Make udev read its rules again."""
    _run(["udevadm", "control", "--reload"], "make udev read its rules again", check=False)


def reload_bus() -> None:
    """Make the message bus read its configuration again."""
    words = ["busctl", "--quiet", "call", "org.freedesktop.DBus", "/", "org.freedesktop.DBus", "ReloadConfig"]
    _run(words, "make the message bus read its configuration again", check=False)


def _job(verb: str, names: Sequence[str], timeout: float, *options: str) -> None:
    """Have systemd do something with units, and wait for it; a failure tells what the unit logged."""
    if not names:
        return
    try:
        _systemctl([verb, *options, "--", *names], f"{verb} {', '.join(names)}", timeout=timeout)
    except ExternalFailure as error:
        if isinstance(error.__cause__, OSError):  # nobody was asked, so nothing was logged
            raise
        troubled = [
            name for name, unit in units(names).items() if unit["ActiveState"] not in ("active", "inactive")
        ]
        logged = [f"{name}: {line}" for name in troubled[:3] for line in log_tail(name)]
        raise ExternalFailure(
            error.message, details=logged or error.details, hint=error.hint, internals=error.internals
        ) from error


def _systemctl(words: Sequence[str], what: str, *, check: bool = True, timeout: float = _TIMEOUT) -> str:
    return _run(["systemctl", "--no-pager", *words], what, check=check, timeout=timeout)


def _run(words: Sequence[str], what: str, *, check: bool = True, timeout: float = _TIMEOUT) -> str:
    with mounts.in_namespace_of(1):
        return process.run(words, what=what, check=check, timeout=timeout).stdout
