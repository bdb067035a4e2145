"""A change as a list of named steps, each with what takes it back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from apt_ostree.errors import AptOstreeError, ExternalFailure, Incomplete


def _nothing_to_undo(_failure: BaseException) -> None:
    """Take nothing back: an earlier step's undo covers it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    undo: takes it back when it failed itself or a later step did; it gets the failure, and may run although
    the step did not come to its end.
    """

    name: str
    run: Callable[[], object]
    undo: Callable[[BaseException], object] = _nothing_to_undo


def take(steps: Iterable[Step]) -> None:
    """Take the steps in their order; on a failure, take back all that were begun and raise it.

    Incomplete is raised where something could not be taken back.
    """
    begun: list[Step] = []
    try:
        for step in steps:
            begun.append(step)
            step.run()
    except BaseException as failure:
        _take_back(begun, failure)
        if isinstance(failure, OSError):
            raise ExternalFailure(
                f"the change failed and was undone: {failure.strerror or failure}", details=(str(failure),)
            ) from failure
        raise


def _take_back(begun: Sequence[Step], failure: BaseException) -> None:
    """Undo steps, the last first; one that cannot be undone does not keep the others from it."""
    trouble: Exception | None = None
    for step in reversed(begun):
        try:
            step.undo(failure)
        except Exception as error:
            trouble = trouble or error
    if isinstance(trouble, Incomplete):
        raise Incomplete(
            f"the change failed ({failure}); {trouble.message}",
            details=trouble.details,
            hint=trouble.hint,
            internals=trouble.internals,
        ) from failure
    if trouble:
        why = trouble.message if isinstance(trouble, AptOstreeError) else str(trouble)
        raise Incomplete(
            f"the change failed ({failure}) and could not be undone completely: {why}",
            hint="run 'apt-ostree recover', or reboot: the booted deployment was not changed",
        ) from failure
