"""The history: what was done to the running system, when, by whom, and how it ended."""

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
    UNCONFIRMED = "unconfirmed"  # and was undone when its time was over
    ENDED = "ended"  # with its boot


@dataclass(frozen=True, slots=True)
class Entry:
    """One operation on the running system.

    number: also its generation's, if it made one; began, ended: seconds since 1970; plan: what it was to do
    (docs/live-plan.schema.json); steps: seconds that detection, preparation, application and verification
    took.
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
    """What an operation is about to do, for the record."""

    verb: str
    caller: str
    source: str
    target: str
    plan: Mapping[str, Any] = field(default_factory=dict)
