"""Restores /etc: undoes what a generation changed, but keeps what the administrator changed since."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

from apt_ostree.core.live.etc_planning import ETC
from apt_ostree.core.transaction import Transaction
from apt_ostree.model import accounts, etc_undo
from apt_ostree.model.filestate import FileState
from apt_ostree.model.generation import EtcRecord, Generation, Phase
from apt_ostree.model.notes import Note
from apt_ostree.model.plan import EtcStep
from apt_ostree.system import accounts_lock, files


def leave_edited(tx: Transaction, generations: Sequence[Generation], *, etc: Path = ETC) -> None:
    """Record which paths of /etc an undo of generations must not change, because they were edited since.

    This is done once, before the undo writes anything: after an interruption, an edit could not be detected.
    """
    numbers = [generation.id for generation in generations]
    decided = json.loads(tx.records.note(Note.ETC_LEFT) or "[]")
    if set(numbers) <= set(decided) or any(g.phase is not Phase.LIVE for g in generations):
        return
    records = [record for number in numbers for record in tx.records.etc_records(number)]
    edited = etc_undo.edited_since(records, _states(etc, etc_undo.recorded_repeatedly(records)))
    tx.records.leave_etc(numbers, edited, (Note.ETC_LEFT, json.dumps(numbers)))
    for path in edited:
        _kept(tx, path)


def plan_restore(records: Sequence[EtcRecord]) -> tuple[EtcStep, ...]:
    """Return the plan of undoing records, the oldest first."""
    return etc_undo.plan_restore(records, _states(ETC, {record.path for record in records}))


def _states(etc: Path, paths: Iterable[str]) -> dict[str, FileState]:
    return {path: files.read_state(etc / path) for path in paths}


def restore(
    tx: Transaction, records: Sequence[EtcRecord], *, etc: Path = ETC, expected: frozenset[str] = frozenset()
) -> None:
    """Restore the earlier states of paths of /etc, but keep what the administrator changed since.

    expected: accounts that the generation was to add; some may be missing after an interruption.

    Raises OSError if a path cannot be written.
    """
    paths = {record.path for record in records}
    files.discard_leftovers(etc / path for path in paths)
    with accounts_lock.locked(etc) if paths.intersection(accounts.FILES) else nullcontext():
        goals: dict[Path, FileState] = {}
        seen: dict[Path, FileState] = {}
        edited = etc_undo.edited_accounts(records, _states(etc, paths.intersection(accounts.FILES)))
        for record in reversed(records):
            path = etc / record.path
            seen[path] = current = files.read_state(path)
            goal = etc_undo.restored(record, current, edited_accounts=edited, expected_accounts=expected)
            if goal == current:
                continue
            blocked = (
                current.type == "directory" and goal is not None and goal.type not in ("directory", "absent")
            )
            if goal is None or (blocked and files.holds_others(path, goals)):
                _kept(tx, record.path)
                continue
            goals[path] = goal
        for path in files.write_states(list(goals.items()), seen=seen):
            _kept(tx, str(path.relative_to(etc)))


def _kept(tx: Transaction, path: str) -> None:
    tx.warning(f"kept /etc/{path}: it was changed after the update")
