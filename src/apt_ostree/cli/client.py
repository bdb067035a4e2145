"""Starts a worker for a request, relays its events, answers its questions, returns its answer.

Must not print: the caller passes a view (cli.render) that does.
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
from apt_ostree.model.requests import Request

_CANCELS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Answer:
    """How a verb ended: its result as a JSON object, and whether it takes effect with the next boot."""

    result: Mapping[str, Any]
    next_boot: bool


class View(Protocol):
    """What shows events to the user."""

    def show(self, event: events.Event) -> None:
        """Show one event."""

    def confirm(self, plan: events.PlanShown) -> bool:
        """Ask whether to go ahead with a plan that has been shown."""


def call(request: Request, view: View, *, ask: bool = False, wait: bool = True) -> Answer:
    """Carry a request out in a worker and return its answer; raise the error it reported.

    ask: whether `view` can ask the user; wait: whether to wait for another program that changes the system.
    """
    cancels: list[int] = []
    # Before there is a worker: a cancel in between is remembered, and neither side goes on without the other.
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
    """Start a worker, which gets these descriptors under the same numbers."""
    return subprocess.Popen(
        # -P: the caller's directory may be anybody's, and must not be searched for modules.
        [sys.executable, "-P", "-m", "apt_ostree.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(),
        pass_fds=descriptors,
        # Ctrl-C reaches us alone, and we pass it on as a cancel. And no script gets the terminal.
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    """Return the worker's environment: the caller's, but for what would change which code it runs."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LD_", "GI_", "GIO_", "BASH_"))
    }
    return kept | {"PYTHONPATH": str(Path(apt_ostree.__file__).resolve().parents[1])}


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
    """Ask; a cancel is a no, and ends the reading of an answer."""
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
    with contextlib.suppress(BrokenPipeError):  # it has ended; its output, or its exit code, says why
        worker.stdin.write(json.dumps(obj) + "\n")
        worker.stdin.flush()


def reboot() -> None:
    """Ask systemd to reboot."""
    subprocess.run(["systemctl", "reboot"], check=True)
