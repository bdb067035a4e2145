"""The history: the operations on the running system, with their callers and outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How an operation ended."""

    ACTING = "acting"
    LIVE = "live"
    DONE = "done"  # a rollback or a reset
    FAILED = "failed"  # and was undone at once
    INTERRUPTED = "interrupted"  # and was undone later
    ROLLED_BACK = "rolled back"
    UNCONFIRMED = "unconfirmed"  # and was undone at its deadline
    FORGOTTEN = "forgotten"  # it is live, as part of a later generation
    ENDED = "ended"  # by a reboot


@dataclass(frozen=True, slots=True)
class Entry:
    """One operation on the running system.

    number: also of its generation, if it made one.
    verb: the command, as the history shows it.
    caller: the user.
    began: seconds since 1970.
    source: the commit that the system showed before.
    target: the commit that it was to show.
    plan: a JSON object (docs/live-plan.schema.json).
    steps: duration of detection, preparation, application and verification, in seconds.
    ended: seconds since 1970, or None.
    message: more about the outcome, or empty.
    """

    number: int
    boot_id: str
    verb: str
    caller: str
    began: float
    source: str
    target: str
    plan: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, float] = field(default_factory=dict)
    ended: float | None = None
    outcome: Outcome = Outcome.ACTING
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the entry as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Intent:
    """The record of an operation at its beginning; for the fields see Entry."""

    verb: str
    caller: str
    source: str
    target: str
    plan: Mapping[str, Any] = field(default_factory=dict)
