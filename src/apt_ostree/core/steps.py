"""Runs a change as a list of named steps, each with an undo function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from apt_ostree.errors import AptOstreeError, ExternalFailure, Incomplete


def _nothing_to_undo(_failure: BaseException) -> None:
    """Do nothing: the undo of an earlier step covers this one."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a change.

    name: what the step is called.
    run: carries the step out.
    undo: undoes the step after it or a later step failed; gets the failure. The step may be half done.
    """

    name: str
    run: Callable[[], object]
    undo: Callable[[BaseException], object] = _nothing_to_undo


def take(steps: Iterable[Step]) -> None:
    """Run steps in order; after a failure, undo all that were begun, the last first.

    Raises the failure, an OSError as ExternalFailure; Incomplete if a step could not be undone.
    """
    begun: list[Step] = []
    try:
        for step in steps:
            begun.append(step)
            step.run()
    except BaseException as failure:
        _undo(begun, failure)
        if isinstance(failure, OSError):
            raise ExternalFailure(
                f"the change failed and was undone: {failure.strerror or failure}", details=(str(failure),)
            ) from failure
        raise


def _undo(begun: Sequence[Step], failure: BaseException) -> None:
    """Undo steps, the last first; a failed undo does not stop the others. Raises Incomplete at the end."""
    undo_failure: Exception | None = None
    for step in reversed(begun):
        try:
            step.undo(failure)
        except Exception as error:
            undo_failure = undo_failure or error
    if isinstance(undo_failure, Incomplete):
        raise Incomplete(
            f"the change failed ({failure}); {undo_failure.message}",
            details=undo_failure.details,
            hint=undo_failure.hint,
            internals=undo_failure.internals,
        ) from failure
    if undo_failure:
        reason = undo_failure.message if isinstance(undo_failure, AptOstreeError) else str(undo_failure)
        raise Incomplete(
            f"the change failed ({failure}) and could not be undone completely: {reason}",
            hint="run 'apt-ostree recover', or reboot: the booted deployment was not changed",
        ) from failure
