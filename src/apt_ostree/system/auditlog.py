"""The records of what was done, asked for and denied: appended, each chained to the one before.

Owns /var/lib/apt-ostree/audit: records.db (SQLite, durable before the call returns), and head, which has the
number and the digest of the last record. Each record also goes to the systemd journal, with both.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from apt_ostree.errors import AptOstreeError
from apt_ostree.model import audit
from apt_ostree.model.audit import Head, Kind, Link, Record
from apt_ostree.system import journal, running, sqlite, state_tables, statedb

#: Records that pruning leaves at least, so that the head is always one of them.
_LEAST = 10
_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    number INTEGER PRIMARY KEY, text TEXT NOT NULL, digest TEXT NOT NULL,
    operation INTEGER AS (CASE WHEN json_valid(text) THEN json_extract(text, '$.operation') END) VIRTUAL
);
CREATE INDEX IF NOT EXISTS record_operation ON record (operation);
CREATE TABLE IF NOT EXISTS open (operation INTEGER PRIMARY KEY, pid INTEGER NOT NULL, began TEXT NOT NULL);
"""
_PRIORITIES = {
    Kind.REFUSED: journal.WARNING,
    Kind.FAILED: journal.ERROR,
    Kind.DENIED: journal.WARNING,
    Kind.INTERRUPTED: journal.WARNING,
    Kind.UNDONE: journal.WARNING,
    Kind.SECURITY: journal.WARNING,
}


def directory() -> Path:
    """Return the directory of the records."""
    return statedb.DIRECTORY / "audit"


# --- writing


def begin(record: Record) -> int:
    """Record the begin of an operation by this process, and return the operation's number.

    Operations of processes that have ended without a record of it are recorded as interrupted. Raises
    ExternalFailure if the record cannot be written; the systemd journal has it all the same.
    """
    with _appending(record) as chain:
        for number in _open(chain.database):
            if not _is_alive(chain.database, number):
                if interrupted := _interrupted(chain.database, number):
                    chain.append(interrupted)
                chain.database.execute("DELETE FROM open WHERE operation = ?", (number,))
        number = _next_number(chain.database)
        chain.append(replace(record, operation=number))
        row = (number, os.getpid(), _start_of(os.getpid()))
        chain.database.execute("INSERT INTO open VALUES (?, ?, ?)", row)
    return number


def add(record: Record, *, numbered: bool = False) -> None:
    """Append a record; one that ends an operation closes it.

    numbered: whether the record is an operation of its own, such as one that was denied.

    Raises ExternalFailure if it cannot be written; the systemd journal has it all the same.
    """
    with _appending(record) as chain:
        number = _next_number(chain.database) if numbered else record.operation
        chain.append(replace(record, operation=number))
        if record.kind in audit.ENDS:
            chain.database.execute("DELETE FROM open WHERE operation = ?", (number,))


def prune(keep: float, most: int, about: Record) -> None:
    """Remove records that are older than `keep` seconds, and the oldest ones beyond `most`.

    It is done when a twentieth of either is exceeded, as it writes the database anew. A record, made from
    `about`, tells of it. Raises ExternalFailure if it cannot be written.
    """
    if not _path().exists():
        return
    now = time.time()
    with _opened() as database:
        count = database.execute("SELECT max(number) - min(number) + 1 FROM record").fetchone()[0] or 0
        is_old = count > _LEAST and _time_of_first(database) < now - keep * 1.05
        if not is_old and count <= most * 1.05:
            return
    with _appending(about) as chain:
        through = _last_to_prune(chain.database, now - keep, most)
        if through is None:
            return
        further = {"through": str(through.number), "through_digest": through.digest}
        message = f"records up to {through.number} were removed, as apt-ostree.conf says"
        chain.append(replace(about, kind=Kind.PRUNED, message=message, further=further))
        chain.database.execute("DELETE FROM record WHERE number <= ?", (through.number,))


def _last_to_prune(database: sqlite.Database, before: float, most: int) -> Link | None:
    last = database.execute("SELECT max(number) FROM record").fetchone()[0]
    through = last + 1 - most  # of the records that stay, one tells of this
    for number, text in database.execute("SELECT number, text FROM record ORDER BY number"):
        record = _read(text)
        if record and record.time >= before * 1e6:
            break
        through = max(through, number)
    query = "SELECT number, text, digest FROM record WHERE number <= ? ORDER BY number DESC LIMIT 1"
    row = database.execute(query, (min(through, last - _LEAST),)).fetchone()
    return Link(*row) if row else None


def _time_of_first(database: sqlite.Database) -> float:
    record = _read(database.execute("SELECT text FROM record ORDER BY number LIMIT 1").fetchone()[0])
    return record.time / 1e6 if record else 0.0


class _Chain:
    """The chain while records are appended. written: what the systemd journal is to be told."""

    def __init__(self, database: sqlite.Database) -> None:
        self.database = database
        self._head = _newest(database)
        self.written: list[tuple[Record, Link]] = []

    def append(self, record: Record) -> None:
        """Append a record."""
        record = replace(record, time=record.time or _now(), boot_id=record.boot_id or running.boot_id())
        link = audit.chained(record, self._head)
        query = "INSERT INTO record (number, text, digest) VALUES (?, ?, ?)"
        self.database.execute(query, (link.number, link.text, link.digest))
        self._head = Head(link.number, link.digest)
        self.written.append((record, link))


@contextlib.contextmanager
def _appending(record: Record) -> Iterator[_Chain]:
    """Yield the chain, locked; what was appended is durable afterwards, and in the systemd journal.

    record: what the journal is told if the chain cannot be written.
    """
    written: list[tuple[Record, Link]] = []
    try:
        with _opened() as database:
            with database:
                database.execute("BEGIN IMMEDIATE")
                chain = _Chain(database)
                yield chain
            written = chain.written
            if written:
                _write_head(written[-1][1])
    except (AptOstreeError, OSError):
        if not written:
            _tell(record, None)
        raise
    finally:
        for one, link in written:
            _tell(one, link)


def _tell(record: Record, link: Link | None) -> None:
    fields = audit.journal_fields(record, link)
    priority = _PRIORITIES.get(record.kind, journal.INFO)
    journal.send((audit.summary(record),), priority=priority, fields=fields)


def tell(record: Record) -> None:
    """Write a record to the systemd journal alone, as one who may not write the chain."""
    _tell(record, None)


def _newest(database: sqlite.Database) -> Head:
    """Return what the next record follows: the last one, or a later one that is gone and so is missed."""
    row = database.execute("SELECT number, digest FROM record ORDER BY number DESC LIMIT 1").fetchone()
    last, head = Head(*row) if row else Head(), _read_head() or Head()
    return head if head.number >= last.number else last


def _write_head(link: Link) -> None:
    # In place and within one sector: a power cut leaves the old line or the new one.
    path = directory() / "head"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(handle, f"{link.number:020} {link.digest}\n".encode(), 0)
        os.fdatasync(handle)
    finally:
        os.close(handle)


def _read_head() -> Head | None:
    try:
        number, digest = (directory() / "head").read_text(encoding="ascii").split()
        return Head(int(number), digest)
    except (OSError, ValueError):
        return None


# --- operations that have not ended


def _next_number(database: sqlite.Database) -> int:
    return max(_highest(database), _highest_of_history()) + 1


def _highest_of_history() -> int:
    """Return the highest number in the history of changes of the running system."""
    path = statedb.path()
    if not path.exists():
        return 0
    with contextlib.closing(sqlite.connect(f"file:{path}?mode=ro")) as database:
        return state_tables.highest(database) if _has_table(database, "history") else 0


def _highest(database: sqlite.Database) -> int:
    # Also of those that are open, whose records somebody may have removed.
    query = "SELECT max(operation) FROM (SELECT operation FROM record UNION ALL SELECT operation FROM open)"
    return database.execute(query).fetchone()[0] or 0


def highest_number() -> int:
    """Return the highest number of an operation that has records; 0 without one."""
    with contextlib.suppress(AptOstreeError), _reading() as database:
        return _highest(database) if database else 0
    return 0


def _open(database: sqlite.Database) -> dict[int, tuple[int, str]]:
    rows = database.execute("SELECT operation, pid, began FROM open ORDER BY operation")
    return {row[0]: (row[1], row[2]) for row in rows.fetchall()}


def _is_alive(database: sqlite.Database, operation: int) -> bool:
    pid, began = _open(database)[operation]
    return _start_of(pid) == began


def _start_of(pid: int) -> str:
    """Return what tells a process from later ones with its number, proc_pid_stat(5); "" if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return f"{running.boot_id()} {text.rpartition(')')[2].split()[19]}"


def _interrupted(database: sqlite.Database, operation: int) -> Record | None:
    """Return the end of an operation without one; None if the record of its begin is gone."""
    query = "SELECT text FROM record WHERE operation = ? ORDER BY number LIMIT 1"
    row = database.execute(query, (operation,)).fetchone()
    begun = _read(row[0]) if row else None
    return begun and replace(
        begun,
        kind=Kind.INTERRUPTED,
        time=0,
        began=begun.time,
        message="the command did not end",
        further={},
    )


# --- reading


def operations(most: int | None = None) -> tuple[tuple[Record, ...], frozenset[int]]:
    """Return the records of all operations, or so many of the newest, in order; and the ones at work."""
    with _reading() as database:
        if database is None:
            return (), frozenset()
        query = (
            "SELECT text FROM record WHERE operation IN (SELECT DISTINCT operation FROM record"
            " WHERE operation > 0 ORDER BY operation DESC LIMIT ?) ORDER BY number"
        )
        rows = database.execute(query, (-1 if most is None else max(most, 0),)).fetchall()
        working = frozenset(number for number in _open(database) if _is_alive(database, number))
    return tuple(record for (text,) in rows if (record := _read(text))), working


def _read(text: str) -> Record | None:
    """Return a record; None for one that cannot be read, which `verify` tells of."""
    try:
        return Record.from_text(text)
    except (ValueError, KeyError, TypeError):
        return None


def links() -> tuple[tuple[Link, ...], Head | None]:
    """Return the whole chain, and the head that is kept beside it."""
    with _reading() as database:
        rows = database.execute("SELECT number, text, digest FROM record") if database else ()
        found = tuple(Link(number, str(text), str(digest)) for number, text, digest in rows)
    return found, _read_head() if (directory() / "head").exists() else None if found else Head()


def told_by_journal(kinds: Sequence[Kind] = tuple(Kind)) -> dict[int, frozenset[str]]:
    """Return the digests of records, by their numbers, of which the systemd journal has root's entries."""
    told: dict[int, set[str]] = {}
    names = ("APT_OSTREE_RECORD", "APT_OSTREE_DIGEST")
    for number, digest in journal.entries([audit.MESSAGE_IDS[kind] for kind in kinds], names):
        if number.isdecimal():
            told.setdefault(int(number), set()).add(digest)
    return {number: frozenset(digests) for number, digests in told.items()}


# --- the database


def _path() -> Path:
    return directory() / "records.db"


@contextlib.contextmanager
def _opened() -> Iterator[sqlite.Database]:
    """Open the database for records, which is made if there is none."""
    if not _path().exists():
        directory().mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(_path(), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with (
        sqlite.explained(str(_path())),
        contextlib.closing(sqlite.connect(f"file:{_path()}?mode=rw")) as database,
    ):
        if not _has_table(database, "open"):
            database.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
        yield database


@contextlib.contextmanager
def _reading() -> Iterator[sqlite.Database | None]:
    """Open the database for reading; None if there is none."""
    if not _path().exists():
        yield None
        return
    with (
        sqlite.explained(str(_path())),
        contextlib.closing(sqlite.connect(f"file:{_path()}?mode=ro")) as database,
    ):
        yield database if _has_table(database, "open") else None


def _has_table(database: sqlite.Database, name: str) -> bool:
    query = "SELECT count(*) FROM sqlite_schema WHERE name = ?"
    return bool(database.execute(query, (name,)).fetchone()[0])


def _now() -> int:
    return time.time_ns() // 1000
