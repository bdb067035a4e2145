"""Gives /etc back: plans and undoes what a generation changed, and keeps what the administrator did since."""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from apt_ostree.core.live.etc_planning import ETC
from apt_ostree.model import accounts
from apt_ostree.model.events import Message, Report
from apt_ostree.model.filestate import FileState
from apt_ostree.model.generation import EtcRecord, Generation, Phase
from apt_ostree.model.plan import EtcAction, EtcStep
from apt_ostree.system import files, systemd
from apt_ostree.system.statedb import StateDb

ACCOUNTS = ("passwd", "group", "shadow", "gshadow")
_EDITED = "the administrator changed it since"
#: A note of the generations for whose undo it is decided what is left alone.
_DECIDED = "etc-left"


def edited_since(records: Sequence[EtcRecord], *, etc: Path = ETC) -> list[str]:
    """Return paths that several records, the oldest first, are about and that somebody changed since.

    Of a path with one record, it tells itself. With several, what somebody made of it may be what it was in
    between: a file that an overlay removed and gave back, and that was then removed by hand.
    """
    newest = {record.path: record for record in records}
    times = Counter(record.path for record in records)
    return [
        path
        for path, record in newest.items()
        if times[path] > 1 and path not in ACCOUNTS and record.after is not None
        and files.read_state(etc / path) != record.after
    ]  # fmt: skip


def leave_edited(report: Report, db: StateDb, generations: Sequence[Generation], *, etc: Path = ETC) -> None:
    """Have an undo of generations leave such paths alone.

    That is decided once, before it writes anything: after an interruption nobody could tell any more.
    """
    numbers = [generation.id for generation in generations]
    decided = json.loads(db.note(_DECIDED) or "[]")
    if set(numbers) <= set(decided) or any(g.phase is not Phase.LIVE for g in generations):
        return
    edited = edited_since([r for number in numbers for r in db.etc_records(number)], etc=etc)
    db.leave_etc(numbers, edited, (_DECIDED, json.dumps(numbers)))
    for path in edited:
        _kept(report, path)


def plan_restore(records: Sequence[EtcRecord]) -> tuple[EtcStep, ...]:
    """Tell what undoing records, the oldest first, makes of /etc."""
    edited = edited_since(records)
    steps = {path: EtcStep(path, EtcAction.KEEP, _EDITED) for path in edited}
    then: dict[str, FileState] = {}
    for record in reversed([record for record in records if record.path not in edited]):
        now = files.read_state(ETC / record.path)
        current = then.get(record.path, now)
        goal = _goal(record, frozenset(), current)
        if goal is None:
            steps[record.path] = EtcStep(record.path, EtcAction.KEEP, _EDITED)
            continue
        then[record.path] = goal
        action = EtcAction.REMOVE if goal.type == "absent" else EtcAction.WRITE
        reason = "as it was before" if goal == record.before else "without the accounts that were added"
        steps[record.path] = EtcStep(record.path, action, reason)
        if goal == now:
            del steps[record.path]
    return tuple(steps.values())


def restore(
    report: Report, records: Sequence[EtcRecord], *, etc: Path = ETC, expected: frozenset[str] = frozenset()
) -> None:
    """Give paths of /etc their states from before, but keep what the administrator changed since.

    expected: accounts that the generation was to add, in case it was interrupted while it did.
    """
    files.discard_leftovers(etc / record.path for record in records)
    with _accounts_locked(etc) if any(r.path in ACCOUNTS for r in records) else nullcontext():
        wanted: dict[Path, FileState] = {}
        seen: dict[Path, FileState] = {}
        edited = _edited_accounts(records, etc)
        for record in reversed(records):
            path = etc / record.path
            seen[path] = current = files.read_state(path)
            goal = _goal(record, edited, current, expected)
            if goal == current:
                continue
            blocked = (
                current.type == "directory" and goal is not None and goal.type not in ("directory", "absent")
            )
            if goal is None or (blocked and files.holds_others(path, wanted)):
                _kept(report, record.path)
                continue
            wanted[path] = goal
        for path in files.write_states(list(wanted.items()), seen=seen):
            _kept(report, str(path.relative_to(etc)))


def _kept(report: Report, path: str) -> None:
    report(Message(f"kept /etc/{path}: it was changed after the update", "warning"))


def _goal(
    record: EtcRecord, edited: frozenset[str], current: FileState, expected: frozenset[str] = frozenset()
) -> FileState | None:
    """Return what undoing a record makes of a path, or None when it is the administrator's by now.

    edited: accounts that somebody changed since; they stay.
    """
    if record.path in ACCOUNTS and current.type == record.before.type == "file":
        if current == record.after and not edited:
            return record.before
        now, before = _text(current), _text(record.before)
        if record.after is None:  # interrupted before it was known what was added
            kept = accounts.without_names(now, expected - accounts.names(before))
        else:
            added = accounts.names(_text(record.after)) - accounts.names(before)
            kept = accounts.without_names(now, added - edited)
        return record.before if kept == before else replace(current, content=_bytes(kept))
    if record.after is None or current in (record.before, record.after):
        return record.before
    return None


def _edited_accounts(records: Sequence[EtcRecord], etc: Path) -> frozenset[str]:
    """Return the accounts that were added and then changed: by a password, a shell, a member."""
    edited: set[str] = set()
    for record in records:
        if record.path in ACCOUNTS and record.after is not None:
            current = _text(files.read_state(etc / record.path))
            edited |= accounts.changed_since(current, _text(record.before), _text(record.after))
    return frozenset(edited)


@contextmanager
def _accounts_locked(etc: Path) -> Iterator[None]:
    """Keep useradd, passwd and systemd-sysusers from writing account files meanwhile (lckpwdf(3))."""
    fd = os.open(etc / ".pwd.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        systemd.discard_leftovers(etc)  # nobody is writing now
        yield
    finally:
        os.close(fd)


def _text(state: FileState) -> str:
    return state.content.decode(errors="surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
