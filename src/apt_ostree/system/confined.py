"""Runs our own code on a build root without trusting what is in it.

Maintainer scripts may create symlinks anywhere in the root, which our own code would follow out of it.
Therefore it runs in a child process whose root directory is the build root. The parent runs programs of the
root, in the sandbox.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from apt_ostree.errors import AptOstreeError, ExternalFailure
from apt_ostree.system import process

#: Runs a command inside the root; the arguments are its command line and its purpose, for messages.
RunInRoot = Callable[[Sequence[str], str], object]


def call(root: Path, work: Callable[[RunInRoot], Any], run_in_root: RunInRoot) -> Any:
    """Call `work` in a child process whose root directory is `root`; return its result.

    An error of `work` is raised here.

    work: gets a function that makes the parent call `run_in_root`; its result must be a JSON value.
    """
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        ours.close()
        _child(parent, root, theirs, work)
    theirs.close()
    try:
        with ours, ours.makefile("rw", encoding="utf-8") as wire:
            answer = _serve(wire, run_in_root)
        _pid, status = os.waitpid(child, 0)
        child = 0
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if answer is None:
        raise ExternalFailure(f"the work on the build root ended unexpectedly (status {status})")
    if "error" in answer:
        raise AptOstreeError.from_json(answer)
    return answer["result"]


def _serve(wire: IO[str], run_in_root: RunInRoot) -> Mapping[str, Any] | None:
    """Run the commands that the child requests until it ends; return its final message, or None."""
    for line in wire:
        message: Mapping[str, Any] = json.loads(line)
        if "run" not in message:
            return message
        try:
            run_in_root(message["run"], message["what"])
            _send(wire, {})
        except AptOstreeError as error:
            _send(wire, error.to_json())
    return None


def _child(parent: int, root: Path, theirs: socket.socket, work: Callable[[RunInRoot], Any]) -> None:
    """Run the child process; never returns."""
    try:
        process.end_with_parent(parent)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # the parent handles these, and kills this process
        os.chroot(root)
        os.chdir("/")
        with theirs.makefile("rw", encoding="utf-8") as wire:
            _send(wire, _outcome(wire, work))
    finally:
        os._exit(0)


def _outcome(wire: IO[str], work: Callable[[RunInRoot], Any]) -> Mapping[str, Any]:
    def run_in_root(command: Sequence[str], what: str) -> None:
        _send(wire, {"run": list(command), "what": what})
        answer = json.loads(wire.readline())
        if answer:
            raise AptOstreeError.from_json(answer)

    try:
        return {"result": work(run_in_root)}
    except AptOstreeError as error:
        return error.to_json()
    except OSError as error:
        where = f"{error.filename} of the build root" if error.filename else "the build root"
        text = f"the system refused an operation on {where}: {error.strerror or error}"
        return ExternalFailure(text).to_json()
    except Exception as error:
        trace = traceback.format_exc().splitlines()
        return AptOstreeError(f"internal error: {error!r}", internals=trace).to_json()


def _send(wire: IO[str], obj: Mapping[str, Any]) -> None:
    wire.write(json.dumps(obj) + "\n")
    wire.flush()
