"""Runs other programs, with a controlled environment and captured output.

It knows no particular program; their adapters do.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from apt_ostree.errors import ExternalFailure
from apt_ostree.model.transaction import PASSED_ON

#: The environment of every child, independent of the caller's: reproducible and without a locale.
BASE_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "LANG": "C.UTF-8",
    "HOME": "/root",
    "TERM": "dumb",
    "APT_OSTREE_WRAP": "off",  # programs run Debian's tools themselves, not the wrappers
}

_TAIL_LINES = 25
_PATIENCE = 10.0  # seconds
_BETWEEN_LOOKS = 1.0  # seconds
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child: BASE_ENVIRONMENT, the variables of PASSED_ON, then `extra`."""
    env = dict(BASE_ENVIRONMENT)
    env.update({name: os.environ[name] for name in PASSED_ON if name in os.environ})
    env.update(extra or {})
    return env


def run(
    argv: Sequence[str | Path],
    *,
    what: str,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
    check: bool = True,
    pass_fds: Sequence[int] = (),
    merge_stderr: bool = False,
    log: Path | None = None,
    watch: Callable[[str], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return it with its output as text.

    what: the purpose, for the error message ("cannot {what}").
    timeout: seconds, after which the process group is killed and ExternalFailure raised.
    check: raise ExternalFailure for a non-zero exit code, see `failure`.
    log: append stdout and stderr, merged, to this file instead of keeping them in memory.
    watch: is given what stdout has so far, every second; what it raises ends the program.
    """
    arguments = [os.fspath(argument) for argument in argv]
    with contextlib.ExitStack() as stack:
        # Files, not pipes: a daemon that a program leaves behind would keep a pipe open.
        out = stack.enter_context(log.open("a+b") if log else tempfile.TemporaryFile())  # noqa: SIM115
        err = out if log or merge_stderr else stack.enter_context(tempfile.TemporaryFile())
        begin = out.tell()
        process = _start(arguments, what, stdin=stdin, out=out, err=err, env=env, cwd=cwd, pass_fds=pass_fds)
        try:
            look = (lambda: watch(_printed(out, begin))) if watch else None
            _finish(process, stdin, timeout, look)
        except subprocess.TimeoutExpired as error:
            _kill_group(process)
            raise ExternalFailure(
                f"cannot {what}: no result within {timeout:g} seconds",
                details=tail(_text(out, begin).splitlines()),
                internals=(command_line(arguments),),
            ) from error
        except BaseException:
            _kill_group(process)
            raise
        texts = [_text(stream, begin if stream is out else 0) for stream in (out, err)]
    err_text = "" if err is out else texts[1]
    done = subprocess.CompletedProcess(arguments, process.returncode, "" if log else texts[0], err_text)
    if check and done.returncode != 0:
        raise failure(what, done, (err_text.strip() and err_text) or texts[0])
    return done


def run_at_once(
    commands: Sequence[Sequence[str]], *, what: str
) -> tuple[subprocess.CompletedProcess[str], ...]:
    """Run programs at the same time; return them in their order, with their output as text, see `run`.

    Their exit codes are not checked.
    """
    with contextlib.ExitStack() as stack:
        outputs = [[stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)] for _ in commands]
        begun = []
        try:
            for command, (out, err) in zip(commands, outputs, strict=True):
                begun.append(
                    _start(command, what, stdin=None, out=out, err=err, env=None, cwd=None, pass_fds=())
                )
            for process in begun:
                process.wait()
        finally:
            for process in begun:
                if process.returncode is None:  # else another group may have its number
                    _kill_group(process)
        return tuple(
            subprocess.CompletedProcess(process.args, process.returncode, _text(out, 0), _text(err, 0))
            for process, (out, err) in zip(begun, outputs, strict=True)
        )


def _start(
    arguments: Sequence[str],
    what: str,
    *,
    stdin: str | None,
    out: IO[bytes],
    err: IO[bytes],
    env: Mapping[str, str] | None,
    cwd: str | Path | None,
    pass_fds: Sequence[int],
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            arguments,
            env=environment(env),
            cwd=cwd,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=tuple(pass_fds),
            process_group=0,  # a timeout or a cancel must reach the grandchildren too
        )
    except OSError as error:
        if error.filename != arguments[0]:
            where = f"{error.filename}: " if error.filename else ""
            raise ExternalFailure(f"cannot {what}: {where}{error.strerror}") from error
        reason = (
            "is not installed" if isinstance(error, FileNotFoundError) else f"cannot run: {error.strerror}"
        )
        raise ExternalFailure(
            f"cannot {what}: the program {arguments[0]!r} {reason}",
            hint=f"install the package that provides {arguments[0]!r}",
        ) from error


def _wait(process: subprocess.Popen[bytes], timeout: float) -> None:
    """Wait as Popen.wait() does, but without its polling, which reacts up to 50 ms late."""
    if not _ends_within(process, timeout):
        raise subprocess.TimeoutExpired(process.args, timeout)
    process.wait()


def _finish(
    process: subprocess.Popen[bytes],
    stdin: str | None,
    timeout: float | None,
    look: Callable[[], None] | None,
) -> None:
    """Wait for the end of a child, and look at it meanwhile."""
    while look and not _ends_within(process, _BETWEEN_LOOKS):
        look()
    if stdin is None and timeout is not None:
        _wait(process, timeout)
    else:
        process.communicate(stdin.encode() if stdin is not None else None, timeout=timeout)


def _ends_within(process: subprocess.Popen[bytes], timeout: float) -> bool:
    """Wait for the end of a child, which is left to be reaped. timeout: in seconds."""
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(pidfd)


def _printed(stream: IO[bytes], begin: int) -> str:
    """Return what a program that still writes has written; its position in the file stays."""
    size = os.fstat(stream.fileno()).st_size - begin
    return os.pread(stream.fileno(), size, begin).decode(errors="replace")


def _text(stream: IO[bytes], begin: int) -> str:
    stream.seek(begin)
    return stream.read().decode(errors="replace")


@contextlib.contextmanager
def attached(argv: Sequence[str], *, patience: float) -> Iterator[None]:
    """Run a program beside the block; it, too, ends if this process is killed. Its failure does not matter.

    argv: ends with "cat", which the program executes when it has done what it is for.
    patience: seconds after which the block is entered without it.
    """
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            argv, bufsize=0, env=environment(), stdin=pipe, stdout=pipe, stderr=null, process_group=0
        )
    except OSError:
        yield
        return
    assert process.stdin and process.stdout
    with process.stdin, process.stdout:
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"\n")  # which cat returns
            ready, _, _ = select.select([process.stdout], [], [], patience)
            if not ready:
                _kill_group(process)
            yield
        finally:
            _kill_group(process)


@contextlib.contextmanager
def beside(
    argv: Sequence[str | Path], *, what: str, env: Mapping[str, str] | None = None, log: Path
) -> Iterator[int]:
    """Run a program beside the block and yield its pid; at the end, it is asked to end (SIGTERM).

    It is killed if it has not ended after 10 seconds.

    log: gets what it prints.
    """
    arguments = [os.fspath(argument) for argument in argv]
    with log.open("ab") as out:
        process = _start(arguments, what, stdin=None, out=out, err=out, env=env, cwd=None, pass_fds=())
        try:
            yield process.pid
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                _wait(process, _PATIENCE)
            _kill_group(process)


def has_ended(pid: int) -> bool:
    """Return whether a child of this process has ended."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def describe_exit(done: subprocess.CompletedProcess[str]) -> str:
    """Return how a program ended, such as "mount ended with exit code 1"."""
    name = Path(_program(done.args)).name
    if done.returncode < 0:
        return f"{name} was killed by {signal.Signals(-done.returncode).name}"
    return f"{name} ended with exit code {done.returncode}"


def _program(arguments: Sequence[str]) -> str:
    """Return the program of a command line, without the sandbox that it runs in."""
    if "bwrap" not in arguments:
        return arguments[0]
    inside = arguments[arguments.index("--") + 1 :] if "--" in arguments else ()
    return inside[0] if inside else arguments[0]


def failure(what: str, done: subprocess.CompletedProcess[str], output: str) -> ExternalFailure:
    """Return the error for a failed program, with its last lines of output and its command line."""
    return ExternalFailure(
        f"cannot {what}: {describe_exit(done)}",
        details=tail(output.splitlines()),
        internals=(command_line(done.args),),
    )


def tail(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the last non-empty lines of a program's output, as details of an error."""
    return tuple(line for line in lines if line.strip())[-_TAIL_LINES:]


def command_line(arguments: Sequence[str]) -> str:
    """Return a command line in shell syntax, as one of an error's internals."""
    return f"command: {shlex.join(arguments)}"


def has_capability(number: int) -> bool:
    """Return whether this process has a capability (capabilities(7)) in effect."""
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> number & 1)


def end_with_parent(parent: int) -> None:
    """Make the kernel kill this process when its parent ends (PR_SET_PDEATHSIG, prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it ended before the call
        os.kill(os.getpid(), signal.SIGKILL)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
