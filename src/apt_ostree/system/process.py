"""The one door to other programs: a controlled environment, captured output, a clear failure.

Must not know any particular program; their adapters do.
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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from apt_ostree.errors import ExternalFailure

#: What every child sees, whatever the caller's shell had set: reproducible and locale-free.
BASE_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "LANG": "C.UTF-8",
    "HOME": "/root",
    "TERM": "dumb",
}
#: Variables that a user may set for us and that our children should see too.
PASSED_ON = ("SOURCE_DATE_EPOCH", "http_proxy", "https_proxy", "no_proxy", "TMPDIR")

_TAIL_LINES = 25
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child: the base, what is passed on, then `extra`."""
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
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return it with its output as text.

    what:    the purpose, for the error message ("cannot {what}").
    check:   raise ExternalFailure on a non-zero exit, see `failure`.
    timeout: seconds, then the whole process group is killed and ExternalFailure raised.
    log:     append stdout and stderr, merged, to this file instead of keeping them in memory.
    """
    words = [os.fspath(word) for word in argv]
    with contextlib.ExitStack() as stack:
        # Files, not pipes: a daemon that a program leaves behind must not keep us waiting for its output.
        out = stack.enter_context(log.open("a+b") if log else tempfile.TemporaryFile())  # noqa: SIM115
        err = out if log or merge_stderr else stack.enter_context(tempfile.TemporaryFile())
        begin = out.tell()
        process = _start(words, what, stdin=stdin, out=out, err=err, env=env, cwd=cwd, pass_fds=pass_fds)
        try:
            if stdin is None and timeout is not None:
                _wait(process, timeout)
            else:
                process.communicate(stdin.encode() if stdin is not None else None, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            _kill_group(process)
            raise ExternalFailure(
                f"cannot {what}: no answer within {timeout:g} seconds",
                details=tail(_text(out, begin).splitlines()),
                internals=(command_line(words),),
            ) from error
        except BaseException:
            _kill_group(process)
            raise
        texts = [_text(stream, begin if stream is out else 0) for stream in (out, err)]
    err_text = "" if err is out else texts[1]
    done = subprocess.CompletedProcess(words, process.returncode, "" if log else texts[0], err_text)
    if check and done.returncode != 0:
        raise failure(what, done, (err_text.strip() and err_text) or texts[0])
    return done


def _start(
    words: Sequence[str],
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
            words,
            env=environment(env),
            cwd=cwd,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=tuple(pass_fds),
            process_group=0,  # a timeout or a cancel must reach the grandchildren too
        )
    except OSError as error:
        if error.filename != words[0]:
            where = f"{error.filename}: " if error.filename else ""
            raise ExternalFailure(f"cannot {what}: {where}{error.strerror}") from error
        reason = (
            "is not installed" if isinstance(error, FileNotFoundError) else f"cannot run: {error.strerror}"
        )
        raise ExternalFailure(
            f"cannot {what}: the program {words[0]!r} {reason}",
            hint=f"install the package that provides {words[0]!r}",
        ) from error


def _wait(process: subprocess.Popen[bytes], timeout: float) -> None:
    """Wait as Popen.wait() does, but be woken: that one looks again and again, up to 50 ms late."""
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(timeout * 1000):
            raise subprocess.TimeoutExpired(process.args, timeout)
    finally:
        os.close(pidfd)
    process.wait()


def _text(stream: IO[bytes], begin: int) -> str:
    stream.seek(begin)
    return stream.read().decode(errors="replace")


def describe_exit(done: subprocess.CompletedProcess[str]) -> str:
    """Say how a program ended, in words."""
    name = Path(done.args[0]).name
    if done.returncode < 0:
        return f"{name} was killed by {signal.Signals(-done.returncode).name}"
    return f"{name} ended with exit code {done.returncode}"


def failure(what: str, done: subprocess.CompletedProcess[str], output: str) -> ExternalFailure:
    """Return the error that a program ended with a code of failure: its last lines, and the command."""
    return ExternalFailure(
        f"cannot {what}: {describe_exit(done)}",
        details=tail(output.splitlines()),
        internals=(command_line(done.args),),
    )


def tail(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the last lines of a program's output, as details of an error."""
    return tuple(line for line in lines if line.strip())[-_TAIL_LINES:]


def command_line(words: Sequence[str]) -> str:
    """Return what was run, as one of an error's internals; a shell can run it again."""
    return f"command: {shlex.join(words)}"


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that happens (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it ended before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
