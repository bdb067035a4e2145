"""One transaction in a process of its own: the request on stdin, events as JSON lines on stdout.

A process because `unshare` affects one thread, apt's configuration is process-global, and a cancel or a
crash is then an ordinary signal (docs/architecture.md). The worker holds no logic: it finds the verb's
function, runs it, and reports how it ended.

Line 1 of stdin:  {"verb": NAME, "arguments": {...}}
further lines:    {"proceed": true|false}, each the answer to a plan that asked for confirmation
stdout:           events (model.events), then one {"event": "end", ...} line.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from apt_ostree.errors import AptOstreeError, Cancelled, ExternalFailure, UsageError
from apt_ostree.model import events
from apt_ostree.system import journal

#: Verb -> "module:function"; the function takes (report, **arguments) and returns a JSON object.
VERBS: Mapping[str, str] = {
    "compose-tree": "apt_ostree.core.compose.tree:compose_tree",
    "install": "apt_ostree.core.packages:install",
    "uninstall": "apt_ostree.core.packages:uninstall",
    "upgrade": "apt_ostree.core.packages:upgrade",
    "apply-live": "apt_ostree.core.live.engine:apply_live",
    "rollback": "apt_ostree.core.deployments:rollback",
    "cleanup": "apt_ostree.core.deployments:cleanup",
    "refresh-md": "apt_ostree.core.archives:refresh_md",
    "search": "apt_ostree.core.archives:search",
    "rollback-live": "apt_ostree.core.live.engine:rollback",
    "confirm": "apt_ostree.core.live.confirmation:confirm",
    "overlay-backup": "apt_ostree.core.overlays.keeping:backup",
    "overlay-restore": "apt_ostree.core.overlays.keeping:restore",
    "overlay-check": "apt_ostree.core.overlays.repair:check",
    "overlay-cleanup": "apt_ostree.core.overlays.keeping:cleanup",
    "unlock": "apt_ostree.core.overlays.unlock:unlock",
    "unlock-save": "apt_ostree.core.overlays.unlock:save",
    "unlock-discard": "apt_ostree.core.overlays.unlock:discard",
    "usroverlay": "apt_ostree.core.overlays.verbs:usroverlay",
    "recover": "apt_ostree.core.boot.recovery:recover",
}

_CANCELS = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Run the request that stands on stdin; the exit code is the command's."""
    os.umask(0o022)  # what we make in trees and in /etc must not depend on the caller's
    # Output goes to a private descriptor: whatever a library or a child prints must not break the protocol.
    wire = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for number in _CANCELS:
        signal.signal(number, _raise_cancelled)
    sys.unraisablehook = _cancel_again
    # A lost client is no reason to stop. Not SIG_IGN, which children would inherit.
    signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        result = _dispatch(json.loads(sys.stdin.readline()), _reporter(wire))
    except AptOstreeError as error:
        return _end_with_error(wire, error)
    except OSError as error:
        return _end_with_error(wire, from_os_error(error))
    except Exception:
        trace = traceback.format_exc()
        bug = AptOstreeError(
            "internal error: " + trace.strip().splitlines()[-1],
            hint="this is a bug in apt-ostree; please report it with what 'journalctl -t apt-ostree' shows",
            internals=trace.splitlines(),
        )
        return _end_with_error(wire, bug)
    _send(wire, {"event": "end", "ok": True, "result": result})
    return 0


def from_os_error(error: OSError) -> ExternalFailure:
    """Turn the kernel's answer into a message that names the object."""
    target = f" on {error.filename}" if error.filename else ""
    return ExternalFailure(f"the system refused an operation{target}: {error.strerror or error}")


def _dispatch(request: Mapping[str, Any], report: events.Report) -> Mapping[str, Any]:
    try:
        module, _, name = VERBS[request["verb"]].partition(":")
    except KeyError as error:
        raise UsageError(f"unknown verb {error.args[0]!r}") from error
    function: Callable[..., Mapping[str, Any]] = getattr(importlib.import_module(module), name)
    return function(report, **request["arguments"])


def _reporter(wire: Any) -> events.Report:
    def report(event: events.Event) -> None:
        _send(wire, events.to_wire(event))
        if isinstance(event, events.PlanShown) and event.confirm:
            answer = sys.stdin.readline()
            if not (answer and json.loads(answer).get("proceed")):
                raise Cancelled("not confirmed; nothing was changed")

    return report


def _end_with_error(wire: Any, error: AptOstreeError) -> int:
    if type(error) is AptOstreeError:  # the program itself is wrong
        journal.send((error.message, *error.internals), priority=journal.ERROR)
    _send(wire, {"event": "end", "ok": False, **error.to_json()})
    return error.exit_code


def _send(wire: Any, obj: Mapping[str, Any]) -> None:
    try:
        wire.write(json.dumps(obj) + "\n")
    except BrokenPipeError:
        pass  # the client left; the transaction goes on and its record tells the rest


def _raise_cancelled(_number: int, _frame: object) -> None:
    for number in _CANCELS:
        signal.signal(number, signal.SIG_IGN)  # the undo that follows is not to be cancelled
    raise Cancelled("cancelled; everything was put back as it was")


def _cancel_again(lost: sys.UnraisableHookArgs) -> None:
    """Raise a cancel again that came where Python drops exceptions, such as in a hook of os.fork()."""
    if not isinstance(lost.exc_value, Cancelled):
        sys.__unraisablehook__(lost)
        return
    signal.signal(signal.SIGALRM, _raise_cancelled)
    signal.setitimer(signal.ITIMER_REAL, 0.01)


if __name__ == "__main__":
    sys.exit(main())
