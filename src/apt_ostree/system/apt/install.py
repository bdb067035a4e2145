"""Runs the resolved transaction: libapt orders it, dpkg unpacks and configures it in the sandbox.

A child process holds libapt's loop, so that a hanging maintainer script can be ended with it.
"""

from __future__ import annotations

import os
import re
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apt_ostree.errors import ExternalFailure
from apt_ostree.model.events import Progress, Report
from apt_ostree.system import process, sandbox, space
from apt_ostree.system.apt import acquire, config, local
from apt_ostree.system.apt.acquire import Archives

#: A package's archive as dpkg names it; libapt puts a number before the name when there are many.
_ARCHIVE = re.compile(r"(?:\.\.\.)?/(?:[^\s:'\"]*/)?(?P<number>\d+-)?(?P<name>[^\s:'\"/]+\.deb)\b")
_LIBAPT = "libapt: "
#: What stands in the log of the root's programs before dpkg's output.
_PROGRAM = "install packages: dpkg"
_TITLE = "Installing packages"
#: Bytes; with less, a failure of dpkg is the disk's. ext4 keeps 16 MB of what it calls free to itself.
_FULL = 20_000_000


def install(report: Report, archives: Archives, *, root: Path, scratch: Path, script_timeout: float) -> None:
    """Install the resolved and downloaded packages.

    root, scratch: as given to `config.use_build_root`. Output goes to `sandbox.output_log`.
    script_timeout: seconds that dpkg may pass without any sign of progress.
    """
    config.write_dpkg_wrapper(root, scratch, archives.directories)
    sandbox.announce(root, _PROGRAM)
    status_read, status_write = os.pipe()
    worker = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(status_read)
        process.end_with_parent(worker)  # it holds the sysroot's lock, too
        _child(archives.manager, status_write, root, scratch)
    os.close(status_write)
    os.setpgid(child, child)  # here as well as there: whichever comes first
    try:
        told = _follow(status_read, report, script_timeout)
        if told.silent:
            last = f"; dpkg's last step: {told.last}" if told.last else ""
            raise _explained(
                f"a maintainer script did nothing for {script_timeout:g} seconds and was ended{last}",
                hint="raise ScriptTimeout in apt-ostree.conf if the script is only slow",
                archives=archives,
                root=root,
                scratch=scratch,
            )
        _pid, status = os.waitpid(child, 0)
        child = 0
    finally:
        os.close(status_read)
        if child:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if status != 0 or told.errors:
        full = space.of(scratch).unused < _FULL  # then there was no room for dpkg's complaint either
        reason = f"No space left on the file system of {scratch.parent}" if full else "; ".join(told.errors)
        raise _explained(
            f"dpkg could not install the packages: {reason or 'see its output'}",
            hint="nothing was changed; the packages' own scripts printed the lines above",
            archives=archives,
            root=root,
            scratch=scratch,
            of_dpkg=bool(told.errors),
        )


def _child(manager: Any, status_write: int, root: Path, scratch: Path) -> None:
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
        sink = os.open(sandbox.output_log(root), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.set_inheritable(status_write, True)
        code = 0 if manager.do_install(status_write) == manager.RESULT_COMPLETED else 1
    except BaseException as error:
        lines = acquire.messages(str(error)) or (repr(error),)
        os.write(2, "".join(f"{_LIBAPT}{line}\n" for line in lines).encode())
    finally:
        os._exit(code)


@dataclass(slots=True)
class _Told:
    """What dpkg told of its work: errors, the last step that it began, and whether it fell silent."""

    errors: list[str] = field(default_factory=list)
    last: str = ""
    silent: bool = False


def _follow(status_read: int, report: Report, limit: float) -> _Told:
    """Relay the status lines (apt's README.progress-reporting) until they end or stay away too long."""
    told = _Told()
    buffer = b""
    last = time.monotonic()
    while True:
        ready, _, _ = select.select([status_read], [], [], max(0.0, last + limit - time.monotonic()))
        if not ready:
            told.silent = True
            return told
        data = os.read(status_read, 65536)
        if not data:
            return told
        last = time.monotonic()
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            kind, _, rest = line.decode(errors="replace").partition(":")
            fields = rest.split(":", 2)
            if kind == "pmstatus" and len(fields) == 3:
                told.last = fields[2]
                report(Progress(_TITLE, int(float(fields[1])), 100))
            elif kind == "pmerror" and len(fields) == 3:
                told.errors.append(f"{fields[0]}: {fields[2]}")


def _explained(
    message: str, *, hint: str, archives: Archives, root: Path, scratch: Path, of_dpkg: bool = True
) -> ExternalFailure:
    """Return an error with the end of dpkg's output, in words that mean something to a user.

    of_dpkg: dpkg said what failed, so that libapt's own lines add nothing.
    """
    lines = sandbox.output_of(root, _PROGRAM)
    told = [line for line in lines if not (of_dpkg and line.startswith(_LIBAPT))]
    files = {Path(item.destfile).name: Path(item.destfile) for item in archives.fetcher.items}

    def label(name: str) -> str | None:
        try:
            return local.label_of(files[name]) if name in files else None
        except (OSError, SystemError):  # the archive may be what is wrong
            return None

    command = config.dpkg_command(root, scratch, archives.directories)
    return ExternalFailure(
        readable(message, scratch, label),
        details=[readable(line, scratch, label) for line in process.tail(told)],
        hint=hint,
        internals=(
            *(line for line in lines if str(scratch) in line or line.startswith(_LIBAPT)),
            process.command_line(command),
        ),
    )


def readable(text: str, scratch: Path, label: Callable[[str], str | None]) -> str:
    """Return a text of dpkg's or libapt's with packages for archives, and without scratch paths.

    label: gives NAME VERSION for the file name of an archive, or None for one that it does not know.
    """

    def named(match: re.Match[str]) -> str:
        return label(match["name"]) or label(f"{match['number'] or ''}{match['name']}") or match[0]

    return _ARCHIVE.sub(named, text).replace(f"{config.dpkg_wrapper(scratch)} ", "dpkg ")
