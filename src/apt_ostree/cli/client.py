"""Starts a worker for a request, shows its events, answers its questions, and returns its answer.

This module does not print. The caller passes a view (cli.render) that does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import apt_ostree
from apt_ostree.errors import AptOstreeError, Cancelled
from apt_ostree.model import events
from apt_ostree.model.request import Request

_CANCELS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a worker.

    result: the result of the verb, as a JSON object.
    next_boot: whether it takes effect at the next boot.
    """

    result: Mapping[str, Any]
    next_boot: bool


class View(Protocol):
    """What shows events to the user."""

    def show(self, event: events.Event) -> None:
        """Show one event."""

    def confirm(self, plan: events.PlanShown) -> bool:
        """Return whether the user agrees to a plan that was shown."""


def call(request: Request, view: View, *, ask: bool = False, wait: bool = True) -> Answer:
    """Carry out a request in a worker and return its answer.

    ask: whether `view` can ask the user.
    wait: whether to wait for another program that changes the system.

    Raises the error that the worker reported, Cancelled after a signal before that, and AptOstreeError if the
    worker ended without an answer.
    """
    cancels: list[int] = []
    # A signal that arrives before the worker is started is recorded, and passed on afterwards.
    before = {n: signal.signal(n, lambda number, _frame: cancels.append(number)) for n in _CANCELS}

    def pass_on(number: int, _frame: object) -> None:
        cancels.append(number)
        worker.terminate()

    try:
        worker = _start([file.fd for file in request.open_files])
        for number in _CANCELS:
            signal.signal(number, pass_on)
        if cancels:
            worker.terminate()
        _send(worker, {"verb": request.verb, "request": request.to_json(), "ask": ask, "wait": wait})
        try:
            return _follow(worker, view, cancels)
        finally:
            worker.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(descriptors: Sequence[int]) -> subprocess.Popen[str]:
    """Start and return a worker, which inherits these descriptors."""
    return subprocess.Popen(
        # -P: the current directory may belong to another user, and must not be searched for modules.
        [sys.executable, "-P", "-m", "apt_ostree.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(),
        pass_fds=descriptors,
        # Ctrl-C reaches only this process, which passes it on as a cancel. No script gets the terminal.
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    """Return the environment of the worker: the caller's, without variables that change the code it runs."""
    variables = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LD_", "GI_", "GIO_", "BASH_"))
    }
    return variables | {"PYTHONPATH": str(Path(apt_ostree.__file__).resolve().parents[1])}


def _follow(worker: subprocess.Popen[str], view: View, cancels: Sequence[int]) -> Answer:
    assert worker.stdout
    for line in worker.stdout:
        obj = json.loads(line)
        if obj["event"] == "end":
            if obj["ok"]:
                return Answer(obj["result"], next_boot=obj["next_boot"])
            raise AptOstreeError.from_json(obj)
        event = events.from_wire(obj)
        if event is None:
            continue
        view.show(event)
        if isinstance(event, events.PlanShown) and event.confirm:
            _send(worker, {"proceed": _confirmed(view, event)})
    code = worker.wait()
    if cancels and code == -signal.SIGTERM:
        raise Cancelled("cancelled before anything was done")  # the worker was not ready for a signal yet
    raise AptOstreeError(
        f"the worker ended without an answer (exit code {code})",
        hint="see its messages above; an unfinished change is undone at the next call or boot",
    )


def _confirmed(view: View, plan: events.PlanShown) -> bool:
    """Return the answer of the user; a signal means no, and ends the question."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in _CANCELS}
    try:
        return view.confirm(plan)
    except KeyboardInterrupt:
        return False
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _send(worker: subprocess.Popen[str], obj: Mapping[str, Any]) -> None:
    assert worker.stdin
    with contextlib.suppress(BrokenPipeError):  # the worker has ended; its output or its exit code says why
        worker.stdin.write(json.dumps(obj) + "\n")
        worker.stdin.flush()


def reboot() -> None:
    """Reboot with systemctl."""
    subprocess.run(["systemctl", "reboot"], check=True)
