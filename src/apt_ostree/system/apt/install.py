"""Runs the resolved transaction: libapt orders it, dpkg unpacks and configures it in the sandbox.

A child process holds libapt's loop, so that a hanging maintainer script can be ended with it.
"""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path
from typing import Any

from apt_ostree.errors import ExternalFailure
from apt_ostree.model.events import Progress, Report
from apt_ostree.system import process, space
from apt_ostree.system.apt import config
from apt_ostree.system.apt.acquire import Archives

_TITLE = "Installing packages"
#: Bytes; with less, a failure of dpkg is the disk's. ext4 keeps 16 MB of what it calls free to itself.
_FULL = 20_000_000


def install(report: Report, archives: Archives, *, root: Path, scratch: Path, script_timeout: float) -> None:
    """Install the resolved and downloaded packages.

    root, scratch: as given to `config.use_build_root`; dpkg's and the scripts' output goes to a log there.
    script_timeout: seconds that dpkg may pass without any sign of progress.
    """
    log = scratch / "dpkg.log"
    config.write_dpkg_wrapper(root, scratch, archives.directories)
    status_read, status_write = os.pipe()
    worker = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(status_read)
        process.end_with_parent(worker)  # it holds the sysroot's lock, too
        _child(archives.manager, status_write, scratch)
    os.close(status_write)
    os.setpgid(child, child)  # here as well as there: whichever comes first
    try:
        errors, silent = _follow(status_read, report, script_timeout)
        if silent:
            raise ExternalFailure(
                f"a maintainer script did nothing for {script_timeout:g} seconds and was ended",
                details=_log_tail(log),
                hint="raise ScriptTimeout in apt-ostree.conf if the script is only slow",
            )
        _pid, status = os.waitpid(child, 0)
        child = 0
    finally:
        os.close(status_read)
        if child:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if status != 0 or errors:
        full = space.of(scratch).unused < _FULL  # then there was no room for dpkg's complaint either
        reason = f"No space left on the file system of {scratch.parent}" if full else "; ".join(errors)
        raise ExternalFailure(
            f"dpkg could not install the packages: {reason or 'see its output'}",
            details=_log_tail(log),
            hint="nothing was changed; the packages' own scripts printed the lines above",
        )


def _child(manager: Any, status_write: int, scratch: Path) -> None:
    """Be the process that runs dpkg; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(process.environment())  # no secret of the caller's shell reaches a script
        # libapt hands dpkg a directory of links when there are many packages; the sandbox must see it.
        os.environ["TMPDIR"] = str(config.local_directory(scratch))
        sink = os.open(scratch / "dpkg.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.set_inheritable(status_write, True)
        code = 0 if manager.do_install(status_write) == manager.RESULT_COMPLETED else 1
    except BaseException as error:
        os.write(2, f"{error}\n".encode())
    finally:
        os._exit(code)


def _follow(status_read: int, report: Report, limit: float) -> tuple[list[str], bool]:
    """Relay the status lines (apt's README.progress-reporting) until they end or stay away too long."""
    errors: list[str] = []
    buffer = b""
    last = time.monotonic()
    while True:
        ready, _, _ = select.select([status_read], [], [], max(0.0, last + limit - time.monotonic()))
        if not ready:
            return errors, True
        data = os.read(status_read, 65536)
        if not data:
            return errors, False
        last = time.monotonic()
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            kind, _, rest = line.decode(errors="replace").partition(":")
            fields = rest.split(":", 2)
            if kind == "pmstatus" and len(fields) == 3:
                report(Progress(_TITLE, int(float(fields[1])), 100))
            elif kind == "pmerror" and len(fields) == 3:
                errors.append(f"{fields[0]}: {fields[2]}")


def _log_tail(log: Path, lines: int = 25) -> tuple[str, ...]:
    try:
        return tuple(line for line in log.read_text(errors="replace").splitlines() if line.strip())[-lines:]
    except FileNotFoundError:
        return ()
