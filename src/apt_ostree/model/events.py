"""The events of a running operation: tasks, progress, messages, plans.

Values only. A core function takes a `Report` (any callable that accepts an `Event`); the worker writes
events as JSON lines and the command line renders them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TaskBegin:
    """The beginning of a step; steps may be nested."""

    title: str


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """The end of the step `title`.

    detail: a result such as a count or a size, or empty.
    """

    title: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of the step `title`.

    done: completed bytes or items.
    total: all bytes or items; 0 if unknown.
    """

    title: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Message:
    """A message for the user.

    level: `info` or `warning`.
    """

    text: str
    level: str = "info"


@dataclass(frozen=True, slots=True)
class PlanShown:
    """The plan of the operation.

    kind: of the plan, which determines its keys.
    confirm: the operation waits for a confirmation.
    """

    kind: str
    plan: Mapping[str, Any]
    confirm: bool = False


Event = TaskBegin | TaskEnd | Progress | Message | PlanShown
Report = Callable[[Event], None]

_NAMES: dict[type, str] = {
    TaskBegin: "task-begin",
    TaskEnd: "task-end",
    Progress: "progress",
    Message: "message",
    PlanShown: "plan",
}
_TYPES = {name: cls for cls, name in _NAMES.items()}


def to_wire(event: Event) -> dict[str, Any]:
    """Return the JSON object of an event: its fields and, under `event`, its name."""
    return {"event": _NAMES[type(event)], **asdict(event)}


def from_wire(obj: Mapping[str, Any]) -> Event | None:
    """Return the event of a JSON object, or None for an unknown name."""
    fields = dict(obj)
    cls = _TYPES.get(fields.pop("event", ""))
    return cls(**fields) if cls else None


@contextmanager
def task(report: Report, title: str) -> Iterator[None]:
    """Report the beginning of a step, and its end if the block succeeds."""
    report(TaskBegin(title))
    yield
    report(TaskEnd(title))


def silent(_event: Event) -> None:
    """Report nothing."""
