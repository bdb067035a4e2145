"""Gives /etc back: plans and undoes what a generation changed, and keeps what the administrator did since."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from apt_ostree.core.live.etc_planning import ETC
from apt_ostree.model import accounts
from apt_ostree.model.events import Message, Report
from apt_ostree.model.filestate import FileState
from apt_ostree.model.generation import EtcRecord
from apt_ostree.model.plan import EtcAction, EtcStep
from apt_ostree.system import files, systemd

ACCOUNTS = ("passwd", "group", "shadow", "gshadow")


def plan_restore(records: Sequence[EtcRecord]) -> tuple[EtcStep, ...]:
    """Tell what undoing records, the oldest first, makes of /etc."""
    steps: dict[str, EtcStep] = {}
    then: dict[str, FileState] = {}
    for record in reversed(records):
        now = files.read_state(ETC / record.path)
        current = then.get(record.path, now)
        goal = _goal(record, frozenset(), current)
        if goal is None:
            steps[record.path] = EtcStep(record.path, EtcAction.KEEP, "the administrator changed it since")
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
