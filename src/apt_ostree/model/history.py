"""The history: all operations, with their callers and outcomes.

It is made of two sources: the records of all operations (`model.audit`), and what the state database has of
those that changed the running system.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from apt_ostree.model.audit import ENDS, Kind, Record


class Outcome(StrEnum):
    """How an operation ended."""

    ACTING = "acting"
    LIVE = "live"
    DONE = "done"  # a rollback or a reset
    FAILED = "failed"  # and was undone at once
    INTERRUPTED = "interrupted"  # and was undone later
    ROLLED_BACK = "rolled back"
    UNCONFIRMED = "unconfirmed"  # and was undone at its deadline
    UNHEALTHY = "unhealthy"  # and was undone while it was watched
    FORGOTTEN = "forgotten"  # it is live, as part of a later generation
    ENDED = "ended"  # by a reboot
    STAGED = "staged"  # for the next boot
    UNCHANGED = "unchanged"  # there was nothing to do
    REFUSED = "refused"
    CANCELLED = "cancelled"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Entry:
    """One operation.

    number: also of its generation, if it made one.
    verb: the command, as the history shows it.
    caller: the user.
    began: seconds since 1970.
    source: the commit that the system showed before; of an operation for the next boot, what that started.
    target: the commit that it was to show, or that the next boot is to start.
    plan: a JSON object (docs/live-plan.schema.json).
    steps: duration of detection, preparation, application and verification, in seconds.
    ended: seconds since 1970, or None.
    message: more about the outcome, or empty.
    who: the fields of Caller, and `via`; empty for what has no record, as is all that follows.
    command: the verb of the request.
    arguments: of the request, without those that are the defaults.
    reasons: of a refusal or a failure.
    exit_code: of the command; None if it has not ended.
    request, digest: of the request, and of the plan that was shown (model.audit.digest_of).
    before, after: the commits that the next boot started.
    generation: that it made.
    packages: what it added, removed and changed.
    events: what happened meanwhile: kind, time, message and further fields.
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
    who: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    exit_code: int | None = None
    request: str = ""
    digest: str = ""
    before: str = ""
    after: str = ""
    generation: int | None = None
    packages: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()

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


_OUTCOMES: Mapping[Kind, Outcome] = {
    Kind.DONE: Outcome.DONE,
    Kind.REFUSED: Outcome.REFUSED,
    Kind.FAILED: Outcome.FAILED,
    Kind.CANCELLED: Outcome.CANCELLED,
    Kind.DENIED: Outcome.DENIED,
    Kind.INTERRUPTED: Outcome.INTERRUPTED,
}


def merged(rows: Iterable[Entry], records: Iterable[Record], working: Collection[int]) -> tuple[Entry, ...]:
    """Return one list of operations, in the order of their numbers.

    rows: those that changed the running system.
    records: of operations, in their order.
    working: the operations that are carried out now.
    """
    operations: dict[int, list[Record]] = {}
    for record in records:
        operations.setdefault(record.operation, []).append(record)
    left = {row.number: row for row in rows}
    entries = []
    for number, of_operation in operations.items():
        row = left.get(number)
        if row and row.boot_id == of_operation[0].boot_id:
            del left[number]
        else:
            row = None
        entries.append(_entry(number, of_operation, row, is_working=number in working))
    return tuple(sorted([*entries, *left.values()], key=lambda entry: (entry.number, entry.began)))


def _entry(number: int, records: list[Record], row: Entry | None, *, is_working: bool) -> Entry:
    """Return the entry of an operation. row: what the state database has of it."""
    ends = [record for record in records if record.kind in ENDS]
    last = (ends or records)[-1]
    entry = row or Entry(
        number=number,
        boot_id=last.boot_id,
        verb=last.title,
        caller=last.caller.user,
        began=(last.began or last.time) / 1e6,
        source=last.source or last.before,
        target=last.target or last.after,
        ended=last.time / 1e6 if ends else None,
        outcome=_outcome(last, is_working=is_working),
    )
    middle = [record for record in records if record.kind not in ENDS and record.kind is not Kind.BEGAN]
    return replace(
        entry,
        message=entry.message or (last.message if ends else ""),
        who={**asdict(last.caller), "via": last.via},
        command=last.verb,
        arguments=last.arguments,
        reasons=last.reasons,
        exit_code=last.exit_code,
        request=last.request,
        digest=last.plan,
        before=last.before,
        after=last.after,
        generation=last.generation,
        packages=last.packages,
        events=tuple(
            {"kind": str(r.kind), "time": r.time / 1e6, "message": r.message, **r.further} for r in middle
        ),
    )


def _outcome(last: Record, *, is_working: bool) -> Outcome:
    if last.kind not in ENDS:
        return Outcome.ACTING if is_working else Outcome.INTERRUPTED
    if last.kind is Kind.DONE and last.changed is False:
        return Outcome.UNCHANGED
    if last.kind is Kind.DONE and last.next_boot:
        return Outcome.STAGED
    return _OUTCOMES[last.kind]
