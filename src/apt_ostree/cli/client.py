"""Has a request carried out, shows its events, answers its questions, and returns its answer.

It goes to the service on the bus. Without a bus, or if no user may make it, a worker of this process does it.

This module does not print. The caller passes a view (cli.render) that does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from apt_ostree import program
from apt_ostree.errors import AptOstreeError, Cancelled, ExternalFailure, NotAuthorized
from apt_ostree.model import events
from apt_ostree.model.request import Request
from apt_ostree.model.transaction import PASSED_ON
from apt_ostree.system import failpoints

_CANCELS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request.

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


class Carrier(Protocol):
    """What carries out a request."""

    def lines(self) -> Iterable[str]:
        """Yield the events as JSON, the end as the last one; or raise AptOstreeError."""

    def answer(self, *, proceed: bool) -> None:
        """Answer the question that is open."""

    def cancel(self) -> None:
        """Cancel it; it tells of its end as ever."""

    def close(self) -> None:
        """Release what it has."""


def call(request: Request, view: View, *, ask: bool = False, wait: bool = True) -> Answer:
    """Have a request carried out and return its answer.

    ask: whether `view` can ask the user.
    wait: whether to wait for another program that changes the system.

    Raises the error that was reported, Cancelled after a signal before that, and AptOstreeError if there is
    no answer.
    """
    cancels: list[int] = []
    # A signal that arrives before there is a carrier is recorded, and passed on afterwards.
    before = {n: signal.signal(n, lambda number, _frame: cancels.append(number)) for n in _CANCELS}

    def pass_on(number: int, _frame: object) -> None:
        cancels.append(number)
        carrier.cancel()

    try:
        carrier = _carrier(request, ask=ask, wait=wait)
        try:
            for number in _CANCELS:
                signal.signal(number, pass_on)
            if cancels:
                carrier.cancel()
            return _follow(carrier, view)
        finally:
            carrier.close()
    except NotAuthorized as error:
        if cancels:  # in a dialog of polkit
            raise Cancelled("cancelled before anything was done") from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _carrier(request: Request, *, ask: bool, wait: bool) -> Carrier:
    """Return what carries out the request: the service, or else a worker of this process.

    A failpoint, which only tests set, is one for a worker of this process.
    """
    if request.is_for_users and not failpoints.are_set():
        from apt_ostree.cli import bus

        try:
            return bus.start(request, ask=ask, wait=wait, environment=_passed_on())
        except bus.Unavailable as error:
            if os.geteuid() != 0:
                raise NotAuthorized(
                    f"cannot {request.command or request.verb} without root's rights, or the service for it",
                    details=(str(error),),
                    hint="run the command with sudo",
                ) from error
    return _Worker(request, ask=ask, wait=wait)


def _passed_on() -> dict[str, str]:
    """Return the variables that root's programs have from the command line, such as those of a proxy."""
    return {k: v for k, v in os.environ.items() if k in PASSED_ON} if os.geteuid() == 0 else {}


def _follow(carrier: Carrier, view: View) -> Answer:
    for line in carrier.lines():
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
            carrier.answer(proceed=_confirmed(view, event))
    raise AptOstreeError("the request ended without an answer")


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


class _Worker:
    """A worker of this process, with its rights."""

    def __init__(self, request: Request, *, ask: bool, wait: bool) -> None:
        self._was_cancelled = False
        self._process = subprocess.Popen(
            program.command("worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(),
            pass_fds=[file.fd for file in request.open_files],
            # Ctrl-C reaches only this process, which passes it on as a cancel. No script gets the terminal.
            start_new_session=True,
        )
        self._send({"verb": request.verb, "request": request.to_json(), "ask": ask, "wait": wait})

    def lines(self) -> Iterator[str]:
        assert self._process.stdout
        yield from self._process.stdout
        code = self._process.wait()
        if self._was_cancelled and code == -signal.SIGTERM:  # it was not ready for a signal yet
            raise Cancelled("cancelled before anything was done")
        raise AptOstreeError(
            f"the worker ended without an answer (exit code {code})",
            hint="see its messages above; an unfinished change is undone at the next call or boot",
        )

    def answer(self, *, proceed: bool) -> None:
        self._send({"proceed": proceed})

    def cancel(self) -> None:
        self._was_cancelled = True
        self._process.terminate()

    def close(self) -> None:
        self._process.wait()

    def _send(self, obj: Mapping[str, Any]) -> None:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has ended; its output or its exit code says why
            self._process.stdin.write(json.dumps(obj) + "\n")
            self._process.stdin.flush()


def _environment() -> dict[str, str]:
    """Return the environment of the worker: the caller's, without variables that change the code it runs."""
    changing = ("PYTHON", "LD_", "GI_", "GIO_", "BASH_")
    return {k: v for k, v in os.environ.items() if not k.startswith(changing)}


def reboot() -> None:
    """Reboot with systemctl; raise ExternalFailure if it refuses, as while another program inhibits that."""
    done = subprocess.run(["systemctl", "reboot"], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ExternalFailure(
            "the change is made, but systemctl does not reboot the system",
            details=done.stderr.splitlines(),
            hint="reboot it later; 'systemd-inhibit --list' shows what may be in the way",
        )
