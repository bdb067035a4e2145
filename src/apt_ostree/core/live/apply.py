"""Acts on a live plan: the part of a change that the running system notices, and how well it takes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from apt_ostree.core.live import health, undo
from apt_ostree.core.live.etc_planning import ETC
from apt_ostree.core.live.planning import Change, Prepared, look
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import accounts, unitsteps
from apt_ostree.model import plan as rules
from apt_ostree.model.events import Message, Report, task
from apt_ostree.model.plan import UnitAction
from apt_ostree.model.settings import Settings
from apt_ostree.model.treediff import Kind
from apt_ostree.system import files, systemd, usrview
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree.sysroot import Sysroot
from apt_ostree.system.statedb import StateDb

_LIBRARY_CACHE = "ld.so.cache"


class Clock:
    """Announces and measures the four steps of a change."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, report: Report, name: str) -> Iterator[None]:
        """Announce and measure one of detection, preparation, application, verification."""
        report(Message(f"{name.capitalize()}:"))
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - began, 3)


def apply(
    report: Report,
    sysroot: Sysroot,
    db: StateDb,
    change: Change,
    *,
    prepared: Prepared,
    generation: int,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Stop, write /etc, switch, make current; then reload, restart and start units.

    meanwhile: is called when there are units to wait for, and at the end; the first call does the work.
    """
    undo.hold_until_shutdown()
    _stop_units(report, db, change, generation)
    _write_etc(report, change)
    _switch(report, sysroot, db, change, prepared=prepared, generation=generation)
    _make_current(db, change, generation)
    _renew_systemd(report, db, change, generation)
    _act_on_units(report, db, change, generation, meanwhile)
    meanwhile()


def verify(report: Report, sysroot: Sysroot, change: Change, generation: int) -> None:
    """See that the system shows what it should, and is well."""
    with task(report, "Verifying"):
        if usrview.generation() != generation:
            raise ExternalFailure("/usr does not show the new generation: something was mounted over it")
        health.verify_packages(report, sysroot.repo, change.plan.target, change.plan.packages)
    failpoint("verify.packages")
    health.run_checks(report, change.settings)


def outside_paths(change: Change) -> tuple[str, ...]:
    """Return the paths of /etc that programs change which we call."""
    users = accounts.WRITTEN if _configs(change, "lib/sysusers.d/") else ()
    cached = _LIBRARY_CACHE not in change.etc.states and _libraries_changed(change)
    return (*users, *((_LIBRARY_CACHE,) if cached else ()))


def _stop_units(report: Report, db: StateDb, change: Change, generation: int) -> None:
    stopping = change.plan.acting(UnitAction.STOP)
    if stopping:
        with task(report, f"Stopping {', '.join(stopping)}"):
            db.set_begun(generation, stopping)
            systemd.stop(stopping, timeout=change.settings.unit_timeout)
            failpoint("act.stopped")


def _write_etc(report: Report, change: Change) -> None:
    paths = change.etc.changed
    if not paths:
        return
    with task(report, f"Updating {len(paths)} paths in /etc"):
        states = [(ETC / path, change.etc.states[path]) for path in paths]
        seen = {ETC / path: change.etc.seen[path] for path in paths}
        edited = files.write_states(states, seen=seen)
    if edited:
        raise ExternalFailure(
            "files in /etc were edited during the change",
            details=[str(path) for path in edited],
            hint="run the command again; the edits were kept",
        )


def _switch(
    report: Report,
    sysroot: Sysroot,
    db: StateDb,
    change: Change,
    *,
    prepared: Prepared,
    generation: int,
) -> None:
    booted = look(sysroot, db).booted
    with task(report, "Switching /usr"), undo.scratch(sysroot) as scratch:
        upper = (prepared.writable / "upper", prepared.writable / "work") if prepared.writable else None
        usrview.show(
            generation,
            prepared.lowers,
            scratch=scratch,
            upper=upper,
            read_only=upper is None or (change.goal.unlock or booted.unlocked) == "transient",
        )
    undo.settle_unlocked(sysroot)
    failpoint("act.switched")


def _make_current(db: StateDb, change: Change, generation: int) -> None:
    """Do on the running system what boot, or a package's scripts, would have done."""
    touched = change.changes
    users = _configs(change, "lib/sysusers.d/")
    if users:
        systemd.create_users(users)
        failpoint("act.users")
        _record_outcome(db, generation, accounts.WRITTEN)
    directories = _configs(change, "lib/tmpfiles.d/")
    if directories:
        systemd.create_files(directories)
        failpoint("act.tmpfiles")
    if _LIBRARY_CACHE in outside_paths(change):
        systemd.update_library_cache()
        _record_outcome(db, generation, (_LIBRARY_CACHE,))
    if rules.touches(touched, "lib/udev/rules.d/", "lib/udev/hwdb", "etc/udev/"):
        systemd.reload_udev()
    if rules.touches(touched, "share/dbus-1/", "etc/dbus-1/"):
        systemd.reload_bus()


def _record_outcome(db: StateDb, generation: int, names: Sequence[str]) -> None:
    db.set_after(generation, {name: files.read_state(ETC / name) for name in names})


def _libraries_changed(change: Change) -> bool:
    return any(
        ".so" in c.path and c.path.startswith(("lib/", "lib64/", "local/lib/")) for c in change.changes
    )


def _configs(change: Change, directory: str) -> list[str]:
    """Return the names of new and changed files of a configuration directory of /usr."""
    found = (c for c in change.changes if c.path.startswith(directory) and c.kind is not Kind.REMOVED)
    return sorted({Path(c.path).name for c in found if not c.is_dir})


def _renew_systemd(report: Report, db: StateDb, change: Change, generation: int) -> None:
    """Have systemd and the users' managers read new units, or go on with new code of their own."""
    reexec = change.plan.acting(UnitAction.REEXEC)
    system = [name for name in reexec if not name.startswith("user@")]
    if system:
        with task(report, "Executing systemd anew"):
            db.set_begun(generation, system)
            systemd.daemon_reexec()
            failpoint("act.reexecuted")
    elif rules.touches(change.changes, "lib/systemd/", "etc/systemd/"):
        with task(report, "Reloading systemd"):
            systemd.daemon_reload()
            failpoint("act.reloaded")
    reread = rules.touches(change.changes, "lib/systemd/user/", "etc/systemd/user/")
    managers = systemd.user_managers() if reread or len(reexec) > len(system) else ()
    for manager in managers:
        if manager in reexec:
            db.set_begun(generation, [manager])
        if manager in reexec or reread:
            systemd.signal_user_manager(manager, reexec=manager in reexec)


def _act_on_units(
    report: Report, db: StateDb, change: Change, generation: int, meanwhile: Callable[[], None]
) -> None:
    """Reload, restart and start units, and see each of them settle."""
    plan, settings = change.plan, change.settings
    if reloading := tuple(sorted(systemd.active(plan.acting(UnitAction.RELOAD)))):
        with task(report, f"Reloading {', '.join(reloading)}"):
            db.set_begun(generation, reloading)
            failpoint("act.before-reload")
            systemd.reload(reloading, timeout=settings.unit_timeout)
            failpoint("act.units-reloaded")
    for names in unitsteps.rolling(plan.acting(UnitAction.RESTART)):
        with task(report, f"Restarting {', '.join(names)}"):
            db.set_begun(generation, names)
            failpoint("act.before-restart")
            running = tuple(sorted(systemd.active(names)))  # but for those that somebody stopped meanwhile
            systemd.restart(running, timeout=settings.unit_timeout, running_only=True)
            failpoint("act.restarted")
            _settle(running, settings, meanwhile)
    _start_units(report, db, change, generation)
    if reloading:
        _settle(reloading, settings, meanwhile)


def _settle(names: Sequence[str], settings: Settings, meanwhile: Callable[[], None]) -> None:
    """See units settle, and use the time that this takes."""
    before, began = systemd.units(names), time.monotonic()
    meanwhile()
    health.settle(names, before, settings, began=began)


def _start_units(report: Report, db: StateDb, change: Change, generation: int) -> None:
    starting = change.plan.acting(UnitAction.START)
    if not starting:
        return
    with task(report, f"Starting {', '.join(starting)}"):
        db.set_begun(generation, starting)
        failpoint("act.before-start")
        try:
            systemd.start(starting, timeout=change.settings.unit_timeout)
        except ExternalFailure as error:
            if isinstance(error.__cause__, OSError):  # systemd was not even asked
                raise
            # dpkg goes on when a new service does not start, because many need configuration first.
            report(Message(f"not all new units could be started: {error.message}", "warning"))
        failpoint("act.started")
