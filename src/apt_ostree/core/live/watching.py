"""Watches live changes after they have succeeded, and marks the trees of those that fail."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from apt_ostree.core.live import health
from apt_ostree.core.state import marks
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import AptOstreeError, ExternalFailure
from apt_ostree.model.audit import Kind
from apt_ostree.model.notes import Note
from apt_ostree.model.verdict import Mark, Way
from apt_ostree.system import systemd, verdicts
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.running import boot_id

_INTERVAL = 30.0  # seconds between two looks


@dataclass(frozen=True, slots=True)
class Watch:
    """A generation that is watched.

    boot: the id of its boot.
    until: the end, in seconds of CLOCK_MONOTONIC.
    failed: the units that had failed when it became live.
    """

    generation: int
    boot: str
    until: float
    failed: tuple[str, ...]


def begin(tx: Transaction, generation: int, seconds: float) -> None:
    """Watch a generation for some time."""
    failed = tuple(sorted(systemd.failed_units()))
    watch = Watch(generation, boot_id(), time.monotonic() + seconds, failed)
    _write(tx, [*_watches(tx), watch])
    failpoint("watch.begun")


def next_look(tx: Transaction) -> float | None:
    """Return when the next look is due, in seconds of CLOCK_MONOTONIC; None if nothing is watched."""
    ends = [watch.until for watch in _watches(tx)]
    return min(time.monotonic() + _INTERVAL, *ends) if ends else None


def look(tx: Transaction) -> tuple[int, str] | None:
    """Look at what is watched. Return the generation with which something has failed, and what; else None.

    What is over is not watched any more.
    """
    live = {generation.id for generation in tx.live.generations}
    watches = [watch for watch in _watches(tx) if watch.generation in live]
    found = _look(tx, watches) if watches else None
    left = [watch for watch in watches if watch.until > time.monotonic() + 1]
    if found:
        left = [watch for watch in left if watch.generation < found[0]]
    _write(tx, left)
    return found


def _look(tx: Transaction, watches: list[Watch]) -> tuple[int, str] | None:
    """Return the newest generation with which something fails that did not fail before, and what."""
    failed = systemd.failed_units()
    for watch in reversed(watches):
        if new := sorted(failed - {*watch.failed}):
            return watch.generation, f"{', '.join(new)} {'has' if len(new) == 1 else 'have'} failed"
    try:
        health.run_checks(tx, tx.safe_settings)
    except ExternalFailure as error:
        return watches[-1].generation, error.message
    return None


def _watches(tx: Transaction) -> list[Watch]:
    rows = json.loads(tx.records.note(Note.WATCHED) or "[]")
    watches = (Watch(**{**row, "failed": tuple(row["failed"])}) for row in rows)
    return [watch for watch in watches if watch.boot == boot_id()]


def _write(tx: Transaction, watches: Iterable[Watch]) -> None:
    rows = [asdict(watch) for watch in watches]
    tx.records.set_note(Note.WATCHED, json.dumps(rows) if rows else None)


def mark(tx: Transaction, commit: str, reason: str) -> None:
    """Mark the tree of a live change that has failed and was undone; an error there only warns."""
    try:
        content = marks.content_of(tx.sysroot.repo, commit)
        marks.note(Mark(content, Way.LIVE, commit, time.time(), reason))
    except (AptOstreeError, OSError) as error:
        tx.warning(f"that it has failed could not be noted: {error}")
        return
    text = f"the live change to commit {commit[:12]} has failed: {reason}"
    tx.record(Kind.MARKED, text, commit=commit, way=Way.LIVE)


def unmark(tx: Transaction, commit: str) -> None:
    """Take the mark from a tree that is live now."""
    if found := marks.of_live(tx.sysroot.repo, verdicts.read(), commit):
        marks.forget(found)
