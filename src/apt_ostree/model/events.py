"""What a running operation tells its caller: tasks, progress, messages, plans.

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
    """A step of the work begins; steps nest in the order they are announced."""

    title: str


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """The step `title` ended; `detail` says what came of it (a count, a size), or is empty."""

    title: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units (bytes or items) of the step `title`; total 0 means unknown."""

    title: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Message:
    """A line for the user; level is `info` or `warning`."""

    text: str
    level: str = "info"


@dataclass(frozen=True, slots=True)
class PlanShown:
    """What is about to happen. `kind` names the plan's schema; `confirm` asks for a go-ahead."""

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
    """Return the event of a JSON object, or None when the name is not an event's."""
    fields = dict(obj)
    cls = _TYPES.get(fields.pop("event", ""))
    return cls(**fields) if cls else None


@contextmanager
def task(report: Report, title: str) -> Iterator[None]:
    """Announce a step, and its end when it succeeds."""
    report(TaskBegin(title))
    yield
    report(TaskEnd(title))


def silent(_event: Event) -> None:
    """Report nothing."""
