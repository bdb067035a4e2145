"""Starts a worker for a request, relays its events, answers its questions, returns its result.

Must not print: the caller passes a view (cli.render) that does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from apt_ostree.errors import AptOstreeError, from_wire
from apt_ostree.model import events


class View(Protocol):
    """What shows events to the user."""

    def show(self, event: events.Event) -> None:
        """Show one event."""

    def confirm(self, plan: events.PlanShown) -> bool:
        """Ask whether to go ahead with a plan that has been shown."""


def call(verb: str, arguments: Mapping[str, Any], view: View) -> Mapping[str, Any]:
    """Run `verb` in a worker and return its result; raise the error it reported."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "apt_ostree.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        process_group=0,  # the terminal's Ctrl-C reaches us alone; we pass it on as a cancel
    )
    assert worker.stdin and worker.stdout
    _send(worker, {"verb": verb, "arguments": arguments})
    previous = signal.signal(signal.SIGINT, lambda *_: worker.terminate())
    signal.signal(signal.SIGTERM, lambda *_: worker.terminate())
    try:
        return _follow(worker, view)
    finally:
        signal.signal(signal.SIGINT, previous)
        worker.wait()


def _follow(worker: subprocess.Popen[str], view: View) -> Mapping[str, Any]:
    assert worker.stdout
    for line in worker.stdout:
        obj = json.loads(line)
        if obj["event"] == "end":
            if obj["ok"]:
                result: Mapping[str, Any] = obj["result"]
                return result
            raise from_wire(obj["error"], obj["message"], obj["details"], obj["hint"])
        event = events.from_wire(obj)
        if event is None:
            continue
        view.show(event)
        if isinstance(event, events.PlanShown) and event.confirm:
            _send(worker, {"proceed": view.confirm(event)})
    code = worker.wait()
    raise AptOstreeError(
        f"the worker ended without an answer (exit code {code})",
        hint="see its messages above; an unfinished change is undone at the next call or boot",
    )


def _send(worker: subprocess.Popen[str], obj: Mapping[str, Any]) -> None:
    assert worker.stdin
    worker.stdin.write(json.dumps(obj) + "\n")
    worker.stdin.flush()


def reboot() -> None:
    """Ask systemd to reboot."""
    subprocess.run(["systemctl", "reboot"], check=True)
