"""The journal and the record of live changes: SQLite, durable before the call returns.

Owns /var/lib/apt-ostree/state.db. Rows are keyed by boot, since live state ends with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from types import MappingProxyType

from apt_ostree.errors import Refused
from apt_ostree.model.filestate import FileState, pack, unpack
from apt_ostree.model.generation import EtcRecord, Generation, KernelRecord, Phase, UnitRecord, ViewRecord
from apt_ostree.model.history import Entry, Intent, Outcome
from apt_ostree.model.notes import Note
from apt_ostree.model.overlay import State, Transition
from apt_ostree.system import sqlite, state_tables
from apt_ostree.system.running import boot_id

DIRECTORY = Path("/var/lib/apt-ostree")
#: Exists from the first live change of a boot until recovery in the next boot; a condition of its unit.
MARKER = DIRECTORY / "live"

_KEPT = 500  # entries of the history


class StateDb:
    """An opened state database. Its file is created by the first change, so that reading changes nothing."""

    def __init__(
        self,
        connection: sqlite.Database,
        *,
        provisional: bool = False,
        number: Callable[[], int] = lambda: 0,
    ) -> None:
        self._db = connection
        self._provisional = provisional
        self._number = number

    def begin(
        self,
        intent: Intent,
        *,
        deployment: str,
        view: ViewRecord,
        etc: Sequence[EtcRecord],
        units: Sequence[UnitRecord],
        transitions: Sequence[Transition] = (),
    ) -> int:
        """Record the intent of a switch with every pre-image; return the generation's number."""
        self._create_file()
        now = time.monotonic()
        with self._db:
            number = self._log(intent)
            self._db.execute(
                "INSERT INTO generation"
                " (id, boot_id, deployment, source, target, layers, uppers, phase, created, began, base,"
                " overlays, hidden) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    number,
                    boot_id(),
                    deployment,
                    intent.source,
                    intent.target,
                    json.dumps(list(view.layers)),
                    json.dumps(list(view.uppers)),
                    Phase.ACTING,
                    now,
                    now,
                    view.base,
                    json.dumps([[o.id, o.commit, o.layer] for o in view.overlays]),
                    json.dumps({path: list(map(pack, states)) for path, states in view.hidden.items()}),
                ),
            )
            self._write_records(number, etc, units, transitions)
            self._set_note(Note.PREPARED, None)
        return number

    def take_over(self, number: int, intent: Intent, notes: Mapping[Note, str]) -> int:
        """Make a generation of an earlier boot that of this one; return its new number.

        It has no records and is not live yet. Whatever else earlier boots have left ends.
        """
        now = time.monotonic()
        with self._db:
            self._db.execute(
                "UPDATE history SET outcome = ?, message = '', ended = ?"
                " WHERE number IN (SELECT id FROM generation)",
                (Outcome.ENDED, time.time()),
            )
            self._db.execute("DELETE FROM generation WHERE id != ?", (number,))
            self._db.execute("DELETE FROM transition")
            new = self._log(intent)
            self._db.execute(
                "UPDATE generation SET id = ?, boot_id = ?, source = ?, phase = ?, created = ?, began = ?",
                (new, boot_id(), intent.source, Phase.ACTING, now, now),
            )
            for key, value in notes.items():
                self._set_note(key, value)
        return new

    def _write_records(
        self,
        generation: int,
        etc: Sequence[EtcRecord],
        units: Sequence[UnitRecord],
        transitions: Sequence[Transition],
    ) -> None:
        rows = [
            (generation, i, r.path, state_tables.pack_file(r.before), state_tables.pack_file(r.after))
            for i, r in enumerate(etc)
        ]
        self._db.executemany("INSERT INTO etc VALUES (?, ?, ?, ?, ?)", rows)
        unit_rows = [(generation, i, r.unit, r.action, r.begun) for i, r in enumerate(units)]
        self._db.executemany("INSERT INTO unit VALUES (?, ?, ?, ?, ?)", unit_rows)
        moves = [
            (generation, i, t.id, state_tables.pack_overlay(t.before), state_tables.pack_overlay(t.after))
            for i, t in enumerate(transitions)
        ]
        self._db.executemany("INSERT INTO transition VALUES (?, ?, ?, ?, ?)", moves)

    def fold(self, older: Generation, newer: Generation) -> None:
        """Make a generation part of the next one, which is then undone together with it (model.folding)."""
        from apt_ostree.model import folding  # a boot does not wait for it

        parts = [
            (self.etc_records(g.id), self.unit_records(g.id), self.transitions(g.id)) for g in (older, newer)
        ]
        etc, units, transitions = zip(*parts, strict=True)
        kernel = {generation.id: generation.kernel for generation in self.generations()}
        with self._db:
            for table in ("etc", "unit", "transition"):
                self._db.execute(f"DELETE FROM {table} WHERE generation = ?", (newer.id,))
            self._write_records(
                newer.id,
                folding.fold_etc(*etc),
                folding.fold_units(*units),
                folding.fold_transitions(*transitions),
            )
            self._write_kernel(newer.id, folding.fold_kernel(kernel[older.id], kernel[newer.id]))
            first = (older.source, older.began, newer.id)
            self._db.execute("UPDATE generation SET source = ?, began = ? WHERE id = ?", first)
            self._db.execute("DELETE FROM generation WHERE id = ?", (older.id,))
            self._db.execute(
                "UPDATE history SET outcome = ?, message = ? WHERE number = ?",
                (Outcome.FORGOTTEN, f"it is part of generation {newer.id} now", older.id),
            )

    def _create_file(self) -> None:
        mark()
        if self._provisional:
            self._db.close()
            # Readable by root only: it holds pre-images of /etc/shadow. SQLite's journal gets the same mode.
            os.close(os.open(path(), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db, self._provisional = sqlite.connect(f"file:{path()}?mode=rw"), False
            _prepare(self._db)

    def log(self, intent: Intent) -> int:
        """Record an operation that makes no generation; return its number."""
        self._create_file()
        with self._db:
            return self._log(intent)

    def overlays(self) -> tuple[State, ...]:
        """Return the states of the overlays of this machine, sorted by id."""
        rows = self._db.execute('SELECT id, "commit", enabled, boot_id FROM overlay ORDER BY id')
        return tuple(State(row[0], row[1], bool(row[2]), row[3]) for row in rows)

    def move(self, transitions: Sequence[Transition]) -> None:
        """Record the states of overlays after these transitions, atomically."""
        self._create_file()
        with self._db:
            self._move({t.id: t.after for t in transitions})

    def keep(self, generation: int) -> None:
        """Record that a generation is live, and apply its transitions of overlays."""
        with self._db:
            self._db.execute("UPDATE generation SET phase = ? WHERE id = ?", (Phase.LIVE, generation))
            self._move({t.id: t.after for t in self.transitions(generation)})

    def keep_as_live(
        self, generation: int, steps: Mapping[str, float], notes: Mapping[Note, str] = MappingProxyType({})
    ) -> None:
        """Record that a generation is live and its operation has ended, with its steps and notes."""
        with self._db:
            self.keep(generation)
            self.end(generation, Outcome.LIVE)
            self.set_steps(generation, steps)
            for key, value in notes.items():
                self._set_note(key, value)

    def transitions(self, generation: int) -> tuple[Transition, ...]:
        """Return a generation's transitions of overlays."""
        rows = self._db.execute(
            "SELECT id, before, after FROM transition WHERE generation = ? ORDER BY position", (generation,)
        )
        return tuple(
            Transition(row[0], state_tables.unpack_overlay(row[1]), state_tables.unpack_overlay(row[2]))
            for row in rows
        )

    def _move(self, states: Mapping[str, State | None]) -> None:
        for name, state in states.items():
            self._db.execute("DELETE FROM overlay WHERE id = ?", (name,))
            if state:
                row = (state.id, state.commit, state.enabled, state.boot_id)
                self._db.execute("INSERT INTO overlay VALUES (?, ?, ?, ?)", row)
        if states:
            self._set_note(Note.PREPARED, None)

    def note(self, key: Note) -> str | None:
        """Return the note of a key, or None if there is none."""
        row = self._db.execute("SELECT value FROM note WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else None

    def set_note(self, key: Note, value: str | None) -> None:
        """Set the note of a key; None removes it."""
        with self._db:
            self._set_note(key, value)

    def _set_note(self, key: Note, value: str | None) -> None:
        if value is None:
            self._db.execute("DELETE FROM note WHERE key = ?", (key,))
        else:
            self._db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (key, value))

    def _log(self, intent: Intent) -> int:
        number = max(self._number(), state_tables.highest(self._db) + 1)
        self._db.execute(
            "INSERT INTO history"
            " (number, boot_id, verb, caller, began, source, target, plan, steps, outcome, message)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, '{}', ?, '')",
            (
                number,
                boot_id(),
                intent.verb,
                intent.caller,
                time.time(),
                intent.source,
                intent.target,
                json.dumps(intent.plan),
                Outcome.ACTING,
            ),
        )
        return number

    def end(self, number: int, outcome: Outcome, message: str = "") -> None:
        """Record the outcome of an operation."""
        with self._db:
            self._db.execute(
                "UPDATE history SET outcome = ?, message = ?, ended = ? WHERE number = ?",
                (outcome, message, time.time(), number),
            )
            self._db.execute(
                "DELETE FROM history WHERE number NOT IN (SELECT id FROM generation)"
                " AND number NOT IN (SELECT number FROM history ORDER BY number DESC LIMIT ?)",
                (_KEPT,),
            )

    def end_others(self, outcome: Outcome, message: str) -> None:
        """Record the outcome of operations that have not ended and have no generation."""
        with self._db:
            self._db.execute(
                "UPDATE history SET outcome = ?, message = ?, ended = ?"
                " WHERE outcome = ? AND number NOT IN (SELECT id FROM generation)",
                (outcome, message, time.time(), Outcome.ACTING),
            )

    def set_steps(self, number: int, steps: Mapping[str, float]) -> None:
        """Record the duration of an operation's steps, in seconds."""
        with self._db:
            self._db.execute("UPDATE history SET steps = ? WHERE number = ?", (json.dumps(steps), number))

    def history(self, most: int | None = None) -> tuple[Entry, ...]:
        """Return all operations, or so many of the newest, the oldest first."""
        rows = self._db.execute(
            f"SELECT {state_tables.HISTORY} FROM history ORDER BY number DESC LIMIT ?",
            (-1 if most is None else max(most, 0),),
        )
        return tuple(state_tables.entry(row) for row in reversed(list(rows)))

    def set_confirm_by(self, generation: int, when: float | None) -> None:
        """Record when a generation is undone unless it is confirmed (CLOCK_MONOTONIC, s); None: never."""
        with self._db:
            self._db.execute("UPDATE generation SET confirm_by = ? WHERE id = ?", (when, generation))

    def add_units(self, generation: int, units: Sequence[UnitRecord]) -> None:
        """Record further units of a generation."""
        with self._db:
            query = "SELECT count(*) FROM unit WHERE generation = ?"
            count = self._db.execute(query, (generation,)).fetchone()[0]
            rows = [(generation, count + i, r.unit, r.action, r.begun) for i, r in enumerate(units)]
            self._db.executemany("INSERT INTO unit VALUES (?, ?, ?, ?, ?)", rows)

    def set_begun(self, generation: int, units: Sequence[str]) -> None:
        """Record that units are about to be acted on."""
        with self._db:
            self._db.executemany(
                "UPDATE unit SET begun = 1 WHERE generation = ? AND unit = ?",
                [(generation, unit) for unit in units],
            )

    def set_after(self, generation: int, after: Mapping[str, FileState]) -> None:
        """Record the new states of paths that another program has written."""
        rows = [(state_tables.pack_file(state), generation, path) for path, state in after.items()]
        with self._db:
            self._db.executemany("UPDATE etc SET after = ? WHERE generation = ? AND path = ?", rows)

    def set_kernel(self, generation: int, kernel: Sequence[KernelRecord]) -> None:
        """Record what a generation changes in the running kernel."""
        with self._db:
            self._write_kernel(generation, kernel)

    def _write_kernel(self, generation: int, kernel: Sequence[KernelRecord]) -> None:
        text = json.dumps([astuple(record) for record in kernel])
        self._db.execute("UPDATE generation SET kernel = ? WHERE id = ?", (text, generation))

    def set_phase(self, generation: int, phase: Phase) -> None:
        """Record the phase of a generation."""
        with self._db:
            self._db.execute("UPDATE generation SET phase = ? WHERE id = ?", (phase, generation))

    def generations(self) -> tuple[Generation, ...]:
        """Return all generations, the oldest first."""
        rows = self._db.execute(f"SELECT {state_tables.GENERATION} FROM generation ORDER BY id")
        return tuple(map(state_tables.generation, rows))

    def forgotten(self) -> frozenset[int]:
        """Return the numbers of the generations of this boot that became part of a later one."""
        query = "SELECT number FROM history WHERE boot_id = ? AND outcome = ?"
        return frozenset(row[0] for row in self._db.execute(query, (boot_id(), Outcome.FORGOTTEN)))

    def hidden(self, generation: int) -> dict[str, tuple[FileState, FileState]]:
        """Return what the overlays of a generation hide in /etc, see ViewRecord."""
        query = "SELECT hidden FROM generation WHERE id = ?"
        rows = json.loads(self._db.execute(query, (generation,)).fetchone()[0])
        return {path: (unpack(state), unpack(shipped)) for path, (state, shipped) in rows.items()}

    def etc_records(self, generation: int) -> tuple[EtcRecord, ...]:
        """Return a generation's changes of /etc, in the order of the changes."""
        rows = self._db.execute(
            "SELECT path, before, after FROM etc WHERE generation = ? ORDER BY position", (generation,)
        )
        return tuple(
            EtcRecord(path, state_tables.unpack_file(before), state_tables.unpack_file_or_none(after))
            for path, before, after in rows
        )

    def leave_etc(self, generations: Sequence[int], paths: Collection[str], note: tuple[Note, str]) -> None:
        """Delete the records of generations about some paths of /etc, and set a note (key, value)."""
        with self._db:
            rows = [(generation, path) for generation in generations for path in paths]
            self._db.executemany("DELETE FROM etc WHERE generation = ? AND path = ?", rows)
            self._db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", note)

    def unit_records(self, generation: int) -> tuple[UnitRecord, ...]:
        """Return a generation's units, in the order of the actions."""
        rows = self._db.execute(
            "SELECT unit, action, begun FROM unit WHERE generation = ? ORDER BY position", (generation,)
        )
        return tuple(UnitRecord(row[0], row[1], bool(row[2])) for row in rows)

    def settle_overlays(self, generations: Sequence[int]) -> None:
        """Delete the transitions of generations, so that a revert of these does not affect overlays."""
        with self._db:
            rows = [(generation,) for generation in generations]
            self._db.executemany("DELETE FROM transition WHERE generation = ?", rows)

    def revert(self, generation: int) -> None:
        """Undo a generation's transitions of overlays, except for overlays that were changed since."""
        with self._db:
            now = {state.id: state for state in self.overlays()}
            mine = [t for t in self.transitions(generation) if now.get(t.id) == t.after]
            self._move({t.id: t.before for t in mine})

    def remove(self, generation: int) -> None:
        """Delete a generation and its records."""
        with self._db:
            self._db.execute("DELETE FROM generation WHERE id = ?", (generation,))

    def remember_removals(self, shipped: dict[str, FileState]) -> None:
        """Record files that the administrator removed from a live /etc: path -> state that the tree ships."""
        with self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO removed_by_admin VALUES (?, ?)",
                [(path, state_tables.pack_file(state)) for path, state in shipped.items()],
            )

    def removals(self) -> dict[str, FileState]:
        """Return the recorded removals: path -> state that the tree ships."""
        rows = self._db.execute("SELECT path, shipped FROM removed_by_admin")
        return {path: state_tables.unpack_file(state) for path, state in rows}

    def forget_removals(self) -> None:
        """Delete the recorded removals."""
        with self._db:
            self._db.execute("DELETE FROM removed_by_admin")

    def close(self) -> None:
        """Close the database."""
        self._db.close()


def mark() -> None:
    """Create the marker, so that the next boot runs recovery."""
    DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
    MARKER.touch()


@contextlib.contextmanager
def opened(number: Callable[[], int] = lambda: 0) -> Iterator[StateDb]:
    """Open the database for a change; Refused if a newer version wrote it.

    number: returns the number of an operation that is about to be recorded; a later one is taken if the
        history has it already.
    """
    with sqlite.explained(str(path())):
        exists = path().exists()
        connection = sqlite.connect(f"file:{path()}?mode=rw" if exists else ":memory:")
        db = StateDb(connection, provisional=not exists, number=number)
        try:
            _prepare(connection)
            yield db
        finally:
            db.close()


@contextlib.contextmanager
def read_only() -> Iterator[StateDb | None]:
    """Open the database for reading; None if there is no database."""
    if not path().exists():
        yield None
        return
    with (
        sqlite.explained(str(path())),
        contextlib.closing(sqlite.connect(f"file:{path()}?mode=ro")) as connection,
    ):
        if _version(connection) >= state_tables.VERSION:
            yield StateDb(connection)
            return
        with contextlib.closing(sqlite.connect(":memory:")) as copy:
            connection.backup(copy)
            _prepare(copy)
            yield StateDb(copy)


def is_readable() -> bool:
    """Return whether the caller may read the database, which belongs to root."""
    return not path().exists() or os.access(path(), os.R_OK)


def path() -> Path:
    """Return the file of the database."""
    return DIRECTORY / "state.db"


def _prepare(connection: sqlite.Database) -> None:
    """Create missing tables; raise Refused for those of a newer version."""
    version = _version(connection)
    if version > state_tables.VERSION:
        raise Refused(
            f"{path()} was written by a newer apt-ostree (its tables have version {version})",
            hint="reboot, which ends the live state, and move the file away",
        )
    if version < state_tables.VERSION:
        connection.executescript(state_tables.upgrade_script(version, time.time() - time.monotonic()))


def _version(connection: sqlite.Database) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
