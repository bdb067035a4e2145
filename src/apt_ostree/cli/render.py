"""Prints: results to stdout, progress and errors to stderr. No other module of the project prints.

The output consists of plain lines. On a terminal, the progress of the current task is redrawn in place.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from apt_ostree.errors import AptOstreeError, UsageError
from apt_ostree.model import events

#: Characters of a progress bar.
_BAR = 20


class TextView:
    """Prints the events of a transaction as lines, and asks on the terminal."""

    is_text = True

    def __init__(self, *, quiet: bool = False, verbose: bool | None = False) -> None:
        self._quiet, self._verbose = quiet, verbose
        self._live = sys.stderr.isatty()
        self._drawn = False
        self._transaction: Mapping[str, Any] | None = None

    def show(self, event: events.Event) -> None:
        """Print one event."""
        match event:
            case events.Message(text=text, level="warning"):
                self._line(f"warning: {text}")
            case events.PlanShown():
                self._show_plan(event)
            case _ if self._quiet:
                pass
            case events.TaskBegin(title=title):
                self._line(f"{title}...")
            case events.TaskEnd(title=title, detail=detail):
                if detail:
                    self._line(f"{title}: {detail}")
            case events.Message(text=text):
                self._line(text)
            case events.Progress(title=title, done=done, total=total):
                self._draw(title, done, total)

    def confirm(self, _plan: events.PlanShown) -> bool:
        """Ask on the terminal; return False without a terminal."""
        if not sys.stdin.isatty():
            self._line("not confirmed: there is no terminal (use --assumeyes)")
            return False
        print("Proceed? [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in {"y", "yes"}

    def end(self, _result: Mapping[str, Any]) -> None:
        """Print nothing: the events were printed, and the command prints the result."""

    def fail(self, failure: AptOstreeError) -> int:
        """Print a failure and return the exit code."""
        self._clear()
        return error(failure, verbose=self._verbose)

    def _show_plan(self, event: events.PlanShown) -> None:
        from apt_ostree.cli import plans

        verbose = bool(self._verbose)
        for line in plans.lines(event.kind, event.plan, verbose=verbose, transaction=self._transaction):
            self._clear()
            print(line)
        if event.kind == "transaction":
            self._transaction = event.plan
        sys.stdout.flush()

    def _draw(self, title: str, done: int, total: int) -> None:
        if not self._live:
            return
        text = f"{title} {_bar(done, total)}"[: shutil.get_terminal_size().columns - 1]
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        self._drawn = True

    def _line(self, text: str) -> None:
        self._clear()
        print(text, file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._drawn:
            print("\r\033[K", end="", file=sys.stderr)
            self._drawn = False


def _bar(done: int, total: int) -> str:
    """Return a bar with a percentage, or the number alone if the total is not known."""
    if not total:
        return str(done)
    done = min(done, total)
    return f"[{'#' * (_BAR * done // total):{_BAR}}] {100 * done // total:3d}%"


class JsonView:
    """Prints one JSON document: the result or the error. Prints warnings to stderr."""

    is_text = False

    def show(self, event: events.Event) -> None:
        """Print a warning."""
        match event:
            case events.Message(text=text, level="warning"):
                warning(text)

    def confirm(self, _plan: events.PlanShown) -> bool:
        """Return False: a program agrees beforehand, with --assumeyes."""
        return False

    def end(self, result: Mapping[str, Any]) -> None:
        """Print the result."""
        result_json(result)

    def fail(self, failure: AptOstreeError) -> int:
        """Print a failure and return the exit code."""
        return error(failure, as_json=True)


class EventsView(JsonView):
    """Prints every event as a JSON line, then the result or the error."""

    def show(self, event: events.Event) -> None:
        """Print one event."""
        _json_line(sys.stdout, events.to_wire(event))

    def end(self, result: Mapping[str, Any]) -> None:
        """Print the result."""
        _json_line(sys.stdout, {"event": "result", **result})

    def fail(self, failure: AptOstreeError) -> int:
        """Print a failure and return the exit code."""
        _json_line(sys.stdout, {"event": "error", **failure.to_json()})
        return error(failure)


class TeeView:
    """Passes events to another view, and writes them and the result as JSON lines to a file descriptor."""

    def __init__(self, view: TextView | JsonView, descriptor: int) -> None:
        self._view = view
        self._stream = os.fdopen(descriptor, "w", buffering=1, closefd=False)
        self.is_text = view.is_text

    def show(self, event: events.Event) -> None:
        """Show one event."""
        self._write(events.to_wire(event))
        self._view.show(event)

    def confirm(self, plan: events.PlanShown) -> bool:
        """Return the answer of the other view."""
        return self._view.confirm(plan)

    def end(self, result: Mapping[str, Any]) -> None:
        """Print the result."""
        self._write({"event": "result", **result})
        self._view.end(result)

    def fail(self, failure: AptOstreeError) -> int:
        """Print a failure and return the exit code."""
        self._write({"event": "error", **failure.to_json()})
        return self._view.fail(failure)

    def _write(self, obj: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # the reader may have exited
            _json_line(self._stream, obj)


def view(
    *,
    as_json: bool,
    events: bool = False,
    progress_fd: int | None = None,
    quiet: bool = False,
    verbose: bool | None = False,
) -> TextView | JsonView | TeeView:
    """Return the view that the options select; raise UsageError for options that exclude each other."""
    if as_json and events:
        raise UsageError("--json and --events exclude each other")
    plain = EventsView() if events else JsonView() if as_json else TextView(quiet=quiet, verbose=verbose)
    if progress_fd is None:
        return plain
    if not _is_writable(progress_fd):
        raise UsageError(f"--progress-fd: {progress_fd} is not open for writing")
    return TeeView(plain, progress_fd)


def _is_writable(descriptor: int) -> bool:
    try:
        return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except (OSError, ValueError, OverflowError):  # the last two: no number that a descriptor may have
        return False


def _json_line(stream: TextIO, obj: Mapping[str, Any]) -> None:
    print(json.dumps(obj, sort_keys=True), file=stream, flush=True)


def result_json(result: Any) -> None:
    """Print a result object on stdout."""
    print(json.dumps(result, indent=2, sort_keys=True))


def lines(text: str) -> None:
    """Print a result's text on stdout."""
    print(text)


def redraw(text: str) -> None:
    """Print a text in place of the one before, or, without a terminal, after it."""
    print(f"\033[H\033[J{text}" if sys.stdout.isatty() else f"{text}\n", flush=True)


def warning(text: str) -> None:
    """Print a warning on stderr."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def bullet() -> str:
    """Return rpm-ostree's mark of the booted deployment, or an asterisk if it cannot be encoded."""
    try:
        "●".encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return "*"
    return "●"


def error(failure: AptOstreeError, *, as_json: bool = False, verbose: bool | None = False) -> int:
    """Print a failure and return the exit code of the command.

    verbose: whether to print the lines for developers, too; None if the command has no such option.
    """
    if as_json:
        result_json(failure.to_json())
    print(f"error: {failure.message}", file=sys.stderr)
    for line in failure.details:
        print(f"  {line}", file=sys.stderr)
    if failure.internals and verbose is False and not as_json:
        print("  (more with -v)", file=sys.stderr)
    for line in failure.internals if verbose else ():
        print(f"  {line}", file=sys.stderr)
    if failure.hint:
        print(f"hint: {failure.hint}", file=sys.stderr)
    return failure.exit_code


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table with aligned columns."""
    widths = [max(len(row[i]) for row in (heading, *rows)) for i in range(len(heading))]
    for row in (heading, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
