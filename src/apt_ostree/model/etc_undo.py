"""The rules for the undo of changes of /etc: paths that were edited since are kept.

Paths are relative to /etc.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from apt_ostree.model import accounts
from apt_ostree.model.filestate import FileState
from apt_ostree.model.generation import EtcRecord
from apt_ostree.model.plan import EtcAction, EtcStep

_EDITED = "the administrator changed it since"


def recorded_repeatedly(records: Iterable[EtcRecord]) -> frozenset[str]:
    """Return the paths with several records."""
    times = Counter(record.path for record in records)
    return frozenset(path for path, count in times.items() if count > 1)


def edited_since(records: Sequence[EtcRecord], current: Mapping[str, FileState]) -> list[str]:
    """Return paths with several records that were edited since the newest one.

    For a path with one record, `restored` detects an edit. With several, the edit may equal an earlier state:
    a file that an overlay removed and restored, and that was then removed by hand.

    records: the oldest first.
    current: path -> present state.
    """
    newest = {record.path: record for record in records}
    repeated = recorded_repeatedly(records)
    return [
        path
        for path, record in newest.items()
        if path in repeated and path not in accounts.FILES
        and record.after is not None and current[path] != record.after
    ]  # fmt: skip


def plan_restore(records: Sequence[EtcRecord], current: Mapping[str, FileState]) -> tuple[EtcStep, ...]:
    """Return the steps that undo records.

    records: the oldest first.
    current: path -> present state.
    """
    edited = edited_since(records, current)
    steps = {path: EtcStep(path, EtcAction.KEEP, _EDITED) for path in edited}
    then: dict[str, FileState] = {}
    for record in reversed([record for record in records if record.path not in edited]):
        now = current[record.path]
        goal = restored(record, then.get(record.path, now))
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


def restored(
    record: EtcRecord,
    current: FileState,
    *,
    edited_accounts: Collection[str] = (),
    expected_accounts: Collection[str] = (),
) -> FileState | None:
    """Return the state of a path after the undo of a record, or None if the path was edited since.

    edited_accounts: names of accounts that were edited since; they are kept.
    expected_accounts: names of accounts that the change adds, in case it was interrupted before a record.
    """
    if record.path in accounts.FILES and current.type == record.before.type == "file":
        if current == record.after and not edited_accounts:
            return record.before
        now, before = _text(current), _text(record.before)
        if record.after is None:
            kept = accounts.without_names(now, frozenset(expected_accounts) - accounts.names(before))
        else:
            added = accounts.names(_text(record.after)) - accounts.names(before)
            kept = accounts.without_names(now, added - frozenset(edited_accounts))
        return record.before if kept == before else replace(current, content=_bytes(kept))
    if record.after is None or current in (record.before, record.after):
        return record.before
    return None


def edited_accounts(records: Iterable[EtcRecord], current: Mapping[str, FileState]) -> frozenset[str]:
    """Return the names of accounts that were added and then edited, such as by a password or a shell.

    current: path -> present state of the account files.
    """
    edited: set[str] = set()
    for record in records:
        if record.path in accounts.FILES and record.after is not None:
            now = _text(current[record.path])
            edited |= accounts.changed_since(now, _text(record.before), _text(record.after))
    return frozenset(edited)


def _text(state: FileState) -> str:
    return state.content.decode(errors="surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
