"""Runs the resolved transaction: libapt orders it, dpkg unpacks and configures it in the sandbox.

libapt's loop runs in a child process, which can be killed together with a hanging maintainer script.
"""

from __future__ import annotations

import os
import re
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apt_ostree.errors import ExternalFailure
from apt_ostree.model.events import Progress, Report
from apt_ostree.system import process, sandbox, space
from apt_ostree.system.apt import acquire, config, local
from apt_ostree.system.apt.acquire import Archives

#: A package's archive in dpkg's messages; libapt prepends a number to the name if there are many archives.
_ARCHIVE = re.compile(r"(?:\.\.\.)?/(?:[^\s:'\"]*/)?(?P<number>\d+-)?(?P<name>[^\s:'\"/]+\.deb)\b")
_LIBAPT = "libapt: "
#: Heading of dpkg's output in the log of the root's programs.
_PROGRAM = "install packages: dpkg"
#: Bytes; with less free space, a full disk is the cause of dpkg's failure. ext4 keeps 16 MB to itself.
_FULL = 20_000_000


def install(
    report: Report, archives: Archives, title: str, *, root: Path, scratch: Path, script_timeout: float
) -> None:
    """Carry out the resolved transaction; ExternalFailure if dpkg fails or hangs.

    The output is appended to `sandbox.output_log`.

    title: of the task, for its progress.
    root, scratch: as for `config.use_build_root`.
    script_timeout: seconds that dpkg may run without progress.
    """
    config.write_dpkg_wrapper(root, scratch, archives.directories)
    sandbox.announce(root, _PROGRAM)
    status_read, status_write = os.pipe()
    worker = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(status_read)
        process.end_with_parent(worker)  # the child would keep the sysroot's lock
        _child(archives.manager, status_write, root, scratch)
    os.close(status_write)
    os.setpgid(child, child)  # in both processes: either may be first
    try:
        progress = _follow(status_read, report, title, script_timeout)
        if progress.silent:
            last = f"; dpkg's last step: {progress.last}" if progress.last else ""
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
    if status != 0 or progress.errors:
        raise _explained(
            f"dpkg could not change the packages: {_reason(progress.errors, scratch)}",
            hint="nothing was changed; the packages' own scripts printed the lines above",
            archives=archives,
            root=root,
            scratch=scratch,
            of_dpkg=bool(progress.errors),
        )


def _reason(errors: Sequence[str], scratch: Path) -> str:
    if space.of(scratch).unused < _FULL:  # dpkg could not report that either
        return f"No space left on the file system of {scratch.parent}"
    return "; ".join(errors) or "see its output"


def _child(manager: Any, status_write: int, root: Path, scratch: Path) -> None:
    """Run dpkg in the child process; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(process.environment())  # scripts get no secrets of the caller's shell
        # libapt passes dpkg a directory of symlinks if there are many packages; the sandbox must have it.
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
class _Progress:
    """What dpkg reported.

    errors: "PACKAGE: MESSAGE" of each.
    last: the last step that it began.
    silent: it reported nothing within the time limit.
    """

    errors: list[str] = field(default_factory=list)
    last: str = ""
    silent: bool = False


def _follow(status_read: int, report: Report, title: str, limit: float) -> _Progress:
    """Read status lines (apt's README.progress-reporting) and report progress.

    Returns at their end, or if there is none for `limit` seconds.
    """
    progress = _Progress()
    buffer = b""
    last = time.monotonic()
    while True:
        ready, _, _ = select.select([status_read], [], [], max(0.0, last + limit - time.monotonic()))
        if not ready:
            progress.silent = True
            return progress
        data = os.read(status_read, 65536)
        if not data:
            return progress
        last = time.monotonic()
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            kind, _, rest = line.decode(errors="replace").partition(":")
            fields = rest.split(":", 2)
            if kind == "pmstatus" and len(fields) == 3:
                progress.last = fields[2]
                report(Progress(title, int(float(fields[1])), 100))
            elif kind == "pmerror" and len(fields) == 3:
                progress.errors.append(f"{fields[0]}: {fields[2]}")


def _explained(
    message: str, *, hint: str, archives: Archives, root: Path, scratch: Path, of_dpkg: bool = True
) -> ExternalFailure:
    """Return an error with the end of dpkg's output, in terms of packages.

    of_dpkg: dpkg reported the error, so that libapt's own lines are left out.
    """
    lines = sandbox.output_of(root, _PROGRAM)
    output = [line for line in lines if not (of_dpkg and line.startswith(_LIBAPT))]
    files = {Path(item.destfile).name: Path(item.destfile) for item in archives.fetcher.items}

    def label(name: str) -> str | None:
        try:
            return local.label_of(files[name]) if name in files else None
        except (OSError, SystemError):  # the archive may be what is wrong
            return None

    command = config.dpkg_command(root, scratch, archives.directories)
    return ExternalFailure(
        readable(message, scratch, label),
        details=[readable(line, scratch, label) for line in process.tail(output)],
        hint=hint,
        internals=(
            *(line for line in lines if str(scratch) in line or line.startswith(_LIBAPT)),
            process.command_line(command),
        ),
    )


def readable(text: str, scratch: Path, label: Callable[[str], str | None]) -> str:
    """Return output of dpkg or libapt with packages instead of archives, and without scratch paths.

    label: returns NAME VERSION for the file name of an archive, or None for an unknown one.
    """

    def named(match: re.Match[str]) -> str:
        return label(match["name"]) or label(f"{match['number'] or ''}{match['name']}") or match[0]

    return _ARCHIVE.sub(named, text).replace(f"{config.dpkg_wrapper(scratch)} ", "dpkg ")
