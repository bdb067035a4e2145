"""Runs one transaction in a process of its own: request on stdin, events as JSON lines on stdout.

It is a process because `unshare` affects one thread, apt's configuration is process-global, and a cancel or
a crash is then an ordinary signal (docs/architecture.md). The worker contains no logic: it reads the request,
runs the function of the verb, and reports how it ended.

Line 1 of stdin:  {"verb": NAME, "request": {...}, "ask": BOOL, "wait": BOOL}; see model.requests
further lines:    {"proceed": BOOL}, each the answer to a plan that asked for confirmation (with "ask");
                  "question": N says which one it answers, counted from 1, where one may be given twice
stdout:           events (model.events), then one {"event": "end", ...} line.

Files that the request names are passed as open descriptors. A worker in a unit of the service cannot inherit
them: `files` in the first line says where the service has them, and the request has their indexes.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from apt_ostree import program
from apt_ostree.core import policing
from apt_ostree.core.operation import Operation
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import AptOstreeError, Cancelled, UsageError, from_os_error
from apt_ostree.model import events, jsonvalue
from apt_ostree.model.request import Request
from apt_ostree.model.requests import read_request
from apt_ostree.model.result import Result
from apt_ostree.system import journal, signals

#: Verb -> "module:function" in core; the function takes (transaction, request) and returns a Result.
VERBS: Mapping[str, str] = {
    "apply-live": "apply_live:apply_live",
    "approve": "approvals:approve",
    "automatic-update": "automatic:update",
    "bootloader-rollback": "bootloader:roll_back",
    "bootloader-update": "bootloader:update",
    "cleanup": "deployments:cleanup",
    "compose-commit": "compose.parts:commit",
    "compose-disk": "compose.disk.image:compose_disk",
    "compose-extensions": "compose.extensions:extensions",
    "compose-image": "compose.image.export:compose_image",
    "compose-install": "compose.parts:install",
    "compose-postprocess": "compose.parts:postprocess_rootfs",
    "compose-publish": "compose.publication.publishing:publish",
    "compose-rootfs": "compose.parts:rootfs_for_others",
    "compose-sign": "compose.publish:sign",
    "compose-tree": "compose.tree:compose_tree",
    "confirm": "live.confirmation:confirm",
    "container-commit": "container.committing:commit",
    "container-prepare": "container.preparing:prepare",
    "deploy": "rebase:deploy_revision",
    "finalize-deployment": "deployments:finalize",
    "initramfs": "initramfs:change",
    "initramfs-etc": "initramfs:track",
    "install": "packages:install",
    "install-to-disk": "compose.disk.installing:install_to_disk",
    "install-to-existing-root": "compose.disk.existing:install_to_existing_root",
    "kargs": "kargs:change",
    "overlay-backup": "overlays.keeping:backup",
    "overlay-check": "overlays.repair:check",
    "overlay-cleanup": "overlays.keeping:cleanup",
    "overlay-restore": "overlays.keeping:restore",
    "override": "override:override",
    "pin": "deployments:pin",
    "rebase": "rebase:rebase",
    "recover": "boot.moments:recover",
    "refresh-md": "archives:refresh_md",
    "reset": "override:reset",
    "rollback": "deployments:boot_previous",
    "rollback-live": "apply_live:rollback_live",
    "run": "packages:run",
    "uninstall": "packages:uninstall",
    "unlock": "overlays.unlock:unlock",
    "unlock-discard": "overlays.unlock:discard",
    "unlock-save": "overlays.unlock:save",
    "unpin": "deployments:unpin",
    "upgrade": "packages:upgrade",
    "usroverlay": "overlays.usroverlay:usroverlay",
}

#: How the system (strerror(3)) and SQLite say that a disk is full.
_FULL = ("No space left on device", "disk is full")
_CANCELS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """The options on the first line of stdin.

    ask: whether the client answers questions.
    wait: whether to wait for another program that changes the system.
    files: those of the request, if they have to be opened.
    """

    ask: bool = False
    wait: bool = True
    files: _Files | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """Files that another process has open.

    rows: descriptor, device and inode of each (system.openfiles).
    """

    pid: int
    rows: tuple[tuple[int, int, int], ...]


def main() -> int:
    """Run the request on stdin; return the exit code of the command."""
    os.umask(0o022)  # modes of files in trees and in /etc must not depend on the caller's umask
    _keep_descriptors()
    # Output goes to a private descriptor: whatever a library or a child prints must not break the protocol.
    wire = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # Blocked until there is somebody to catch what the handler raises.
    signal.pthread_sigmask(signal.SIG_BLOCK, _CANCELS)
    for number in _CANCELS:
        signal.signal(number, _raise_cancelled)
    sys.unraisablehook = _cancel_again
    # A lost client does not end the transaction. Not SIG_IGN, which children would inherit.
    signal.signal(signal.SIGHUP, lambda *_: None)
    return serve(sys.stdin, wire)


def serve(requests: IO[str], wire: IO[str]) -> int:
    """Carry out the request on the first line of `requests`; write events and the end to `wire`.

    Returns the exit code. Errors are written to `wire` and not raised.
    """
    try:
        result = _carry_out(requests, wire)
    except Exception as error:
        return _end_with_error(wire, _explained(error))
    _send(wire, {"event": "end", "ok": True, "result": result.to_json(), "next_boot": result.next_boot})
    return 0


def _carry_out(requests: IO[str], wire: IO[str]) -> Result:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _CANCELS)
    request, call = _read_call(requests.readline())

    questions = itertools.count(1)

    def ask() -> bool:
        return _read_answer(requests, next(questions))

    def report(event: events.Event) -> None:
        operation.note(event)
        _send(wire, events.to_wire(event))

    operation = Operation(request, lambda text: report(events.Message(text, "warning")))
    transaction = Transaction(
        report,
        request.title,
        ask=ask if call.ask else None,
        wait=call.wait,
        reach=request.reach,
        operation=operation,
    )
    try:
        policing.admit(transaction)
        result = function_of(request.verb)(transaction, request)
        result = policing.told(transaction, result)
    except Exception as error:
        explained = _explained(error)
        with signals.deferred():
            operation.fail(explained, transaction.safe_settings)
        if explained is error:
            raise
        raise explained from error
    with signals.deferred():  # it was carried out: a cancel comes too late
        operation.end(result, transaction.safe_settings)
    return result


def _explained(error: Exception) -> AptOstreeError:
    """Return the error that the user is told; an unexpected one is a bug."""
    if isinstance(error, AptOstreeError):
        return error
    if isinstance(error, OSError):
        return from_os_error(error)
    trace = "".join(traceback.format_exception(error))
    return AptOstreeError(
        "internal error: " + trace.strip().splitlines()[-1],
        hint="this is a bug in apt-ostree; please report it with what 'journalctl -t apt-ostree' shows",
        internals=trace.splitlines(),
    )


def function_of(verb: str) -> Callable[[Transaction, Request], Result]:
    """Import and return the function of a verb."""
    module, _, name = VERBS[verb].partition(":")
    function: Callable[[Transaction, Request], Result] = getattr(
        program.imported(f"apt_ostree.core.{module}"), name
    )
    return function


def _read_call(line: str) -> tuple[Request, _Call]:
    """Read the first line; raise UsageError if it is not a valid request."""
    call = _read_object(line, "the request")
    request = read_request(call.pop("verb", None), call.pop("request", {}))
    options = jsonvalue.read(_Call, call, name="the request")
    if options.files:
        from apt_ostree.system import openfiles

        descriptors = openfiles.open_passed(options.files.pid, options.files.rows)
        request = request.with_descriptors(descriptors)
    return request, options


def _read_answer(requests: IO[str], question: int) -> bool:
    """Read the answer to a question; anything but an explicit agreement, or end of file, means no.

    Further answers to earlier questions are skipped.
    """
    try:
        while True:
            answer = _read_object(requests.readline(), "the answer")
            if answer.get("question", question) == question:
                return answer.get("proceed") is True
    except UsageError:
        return False


def _read_object(line: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{what} is not a JSON object")
    return value


def _keep_descriptors() -> None:
    """Keep child processes from inheriting the file descriptors that were passed to us."""
    for entry in Path("/proc/self/fd").iterdir():
        if int(entry.name) > 2:
            try:
                os.set_inheritable(int(entry.name), False)
            except OSError:
                pass  # the directory that is being read here


def _end_with_error(wire: IO[str], error: AptOstreeError) -> int:
    if type(error) is AptOstreeError:  # the program itself is wrong
        journal.send((error.message, *error.internals), priority=journal.ERROR)
    if not error.hint and any(reason in text for text in (error.message, *error.details) for reason in _FULL):
        error.hint = (
            "free some space; 'apt-ostree cleanup -b -p -m' drops the pending deployment and downloads"
        )
    _send(wire, {"event": "end", "ok": False, **error.to_json()})
    return error.exit_code


def _send(wire: IO[str], obj: Mapping[str, Any]) -> None:
    try:
        wire.write(json.dumps(obj) + "\n")
    except BrokenPipeError:
        pass  # the client has exited; the transaction continues, and the history records how it ends


def _raise_cancelled(_number: int, _frame: object) -> None:
    for number in _CANCELS:
        signal.signal(number, signal.SIG_IGN)  # the undo that follows must not be cancelled
    raise Cancelled("cancelled; everything was undone")


def _cancel_again(lost: sys.UnraisableHookArgs) -> None:
    """Raise a cancel again if Python dropped it, as it does with exceptions in a hook of os.fork()."""
    if not isinstance(lost.exc_value, Cancelled):
        sys.__unraisablehook__(lost)
        return
    signal.signal(signal.SIGALRM, _raise_cancelled)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
