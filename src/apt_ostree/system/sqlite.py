"""Opens databases with SQLite, whose errors are raised as ExternalFailure."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any, Literal, Self

from apt_ostree.errors import ExternalFailure


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Raise ExternalFailure for an error of SQLite inside the block."""
    try:
        yield
    except sqlite3.Error as error:
        name = uri.removeprefix("file:").partition("?")[0]
        raise ExternalFailure(f"cannot use the database {name}: {error}") from error


def connect(uri: str) -> Database:
    """Open a database (https://www.sqlite.org/uri.html); raise ExternalFailure if that fails."""
    with explained(uri):
        connection = Database(uri, uri=True, timeout=30)
    # EXTRA: with FULL the end of a transaction (the journal's removal) could be lost in a power cut.
    connection.execute("PRAGMA synchronous = EXTRA")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


class Database(sqlite3.Connection):
    """A connection. As a context manager it is a transaction, or a part of the one around it.

    If a part fails, the transaction does.
    """

    def __init__(self, database: str, **options: Any) -> None:
        super().__init__(database, **options)
        self._uri = database
        self._depth = 0
        self._has_failed = False

    def __enter__(self) -> Self:
        """Begin a transaction, or a part of one."""
        self._depth += 1
        return super().__enter__()

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        """Execute a statement; raise ExternalFailure if it fails."""
        with explained(self._uri):
            return super().execute(*arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        """Execute a statement for each row; raise ExternalFailure if it fails."""
        with explained(self._uri):
            return super().executemany(*arguments)

    def executescript(self, script: str) -> sqlite3.Cursor:
        """Execute statements; raise ExternalFailure if one fails."""
        with explained(self._uri):
            return super().executescript(script)

    def __exit__(self, *error: Any) -> Literal[False]:
        """End the transaction, or its part; raise ExternalFailure if it cannot be committed."""
        self._depth -= 1
        self._has_failed |= error[0] is not None
        if self._depth:
            return False
        has_failed, self._has_failed = self._has_failed, False
        with explained(self._uri):
            if has_failed and error[0] is None:
                self.rollback()
                raise sqlite3.OperationalError("a part of the transaction has failed")
            super().__exit__(*error)
        return False
