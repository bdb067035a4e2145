"""The tables of the state database (system.statedb): their SQL, their versions, and the values of rows."""

from __future__ import annotations

import json
from typing import Any

from apt_ostree.model.filestate import FileState, pack, unpack
from apt_ostree.model.generation import Generation, KernelRecord, Phase
from apt_ostree.model.history import Entry, Outcome
from apt_ostree.model.overlay import Applied, State

#: Of the tables below. A database of a newer apt-ostree, after a rollback to an older one, is refused.
VERSION = 5
_SCHEMA = """
CREATE TABLE IF NOT EXISTS history (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    boot_id TEXT NOT NULL, verb TEXT NOT NULL, caller TEXT NOT NULL, began REAL NOT NULL,
    source TEXT NOT NULL, target TEXT NOT NULL, plan TEXT NOT NULL, steps TEXT NOT NULL, ended REAL,
    outcome TEXT NOT NULL, message TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS generation (
    id INTEGER PRIMARY KEY,
    boot_id TEXT NOT NULL, deployment TEXT NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL,
    layers TEXT NOT NULL, uppers TEXT NOT NULL, phase TEXT NOT NULL, created REAL NOT NULL,
    confirm_by REAL, base TEXT NOT NULL, overlays TEXT NOT NULL, hidden TEXT NOT NULL,
    kernel TEXT NOT NULL DEFAULT '[]', began REAL NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS overlay (
    id TEXT PRIMARY KEY, "commit" TEXT NOT NULL, enabled INTEGER NOT NULL, boot_id TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS transition (
    generation INTEGER NOT NULL REFERENCES generation ON DELETE CASCADE,
    position INTEGER NOT NULL, id TEXT NOT NULL, before TEXT, after TEXT,
    PRIMARY KEY (generation, position)
);
CREATE TABLE IF NOT EXISTS note (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS etc (
    generation INTEGER NOT NULL REFERENCES generation ON DELETE CASCADE,
    position INTEGER NOT NULL, path TEXT NOT NULL, before TEXT NOT NULL, after TEXT,
    PRIMARY KEY (generation, position)
);
CREATE TABLE IF NOT EXISTS unit (
    generation INTEGER NOT NULL REFERENCES generation ON DELETE CASCADE,
    position INTEGER NOT NULL, unit TEXT NOT NULL, action TEXT NOT NULL,
    begun INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (generation, position)
);
CREATE TABLE IF NOT EXISTS removed_by_admin (path TEXT PRIMARY KEY, shipped TEXT NOT NULL);
"""
#: Version -> what brings its tables to the next one.
_UPGRADES = {
    1: """
ALTER TABLE generation ADD COLUMN base TEXT NOT NULL DEFAULT '';
ALTER TABLE generation ADD COLUMN overlays TEXT NOT NULL DEFAULT '[]';
UPDATE generation SET base = target;
""",
    2: "ALTER TABLE generation ADD COLUMN hidden TEXT NOT NULL DEFAULT '{}';",
    3: "ALTER TABLE generation ADD COLUMN kernel TEXT NOT NULL DEFAULT '[]';",
    4: """
ALTER TABLE generation ADD COLUMN began REAL NOT NULL DEFAULT 0;
UPDATE generation SET created = created - :booted, began = created - :booted;
""",
}


def upgrade_script(version: int, booted: float) -> str:
    """Return the SQL that brings the tables of a database to `VERSION`.

    version: that of the database; 0 is an empty one.
    booted: the begin of CLOCK_MONOTONIC, in seconds since 1970.

    It is one transaction, as each would be flushed to the disk.
    """
    upgrades = "".join(_UPGRADES[old] for old in range(version, VERSION)) if version else ""
    upgrades = upgrades.replace(":booted", str(booted))
    return f"BEGIN;{_SCHEMA}{upgrades}PRAGMA user_version = {VERSION}; COMMIT;"


#: The columns of an `entry`, which are its fields.
HISTORY = "number, boot_id, verb, caller, began, source, target, plan, steps, ended, outcome, message"
#: The columns of a `generation`, which are its fields.
GENERATION = (
    "id, boot_id, deployment, source, target, base, overlays, layers, uppers, phase, created, confirm_by, "
    "kernel, began"
)


def entry(row: tuple[Any, ...]) -> Entry:
    """Return an operation of the history from its row."""
    values = dict(zip(HISTORY.split(", "), row, strict=True))
    values |= {name: json.loads(values[name]) for name in ("plan", "steps")}
    return Entry(**{**values, "outcome": Outcome(values["outcome"])})


def generation(row: tuple[Any, ...]) -> Generation:
    """Return a generation from its row."""
    values = dict(zip(GENERATION.split(", "), row, strict=True))
    values |= {name: tuple(json.loads(values[name])) for name in ("layers", "uppers")}
    overlays = tuple(Applied(*names) for names in json.loads(values["overlays"]))
    kernel = tuple(KernelRecord(*names) for names in json.loads(values["kernel"]))
    return Generation(**{**values, "phase": Phase(values["phase"]), "overlays": overlays, "kernel": kernel})


def highest(connection: Any) -> int:
    """Return the highest number that an operation of the history has ever had; 0 without one."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'history'").fetchone()
    return int(row[0]) if row else 0


def pack_file(state: FileState | None) -> str | None:
    """Return the text of a state of a file; None stays None."""
    return None if state is None else json.dumps(pack(state))


def unpack_file(text: str) -> FileState:
    """Return the state of a file from its text."""
    return unpack(json.loads(text))


def pack_overlay(state: State | None) -> str | None:
    """Return the text of a state of an overlay; None stays None."""
    return None if state is None else json.dumps([state.id, state.commit, state.enabled, state.boot_id])


def unpack_overlay(text: str | None) -> State | None:
    """Return the state of an overlay from its text; None stays None."""
    return None if text is None else State(*json.loads(text))


def unpack_file_or_none(text: str | None) -> FileState | None:
    """Return the state of a file from its text; None stays None."""
    return None if text is None else unpack_file(text)
