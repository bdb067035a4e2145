"""Databases: transactions, and transactions that are parts of others."""

import contextlib
from pathlib import Path

import pytest

from apt_ostree.errors import ExternalFailure
from apt_ostree.system import sqlite


@pytest.fixture
def database(tmp_path: Path):
    with contextlib.closing(sqlite.connect(f"file:{tmp_path / 'x.db'}")) as opened:
        opened.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
        yield opened


def insert(database: sqlite.Database, number: int) -> None:
    with database:
        database.execute("INSERT INTO t VALUES (?)", (number,))


def numbers(database: sqlite.Database, tmp_path: Path) -> list[int]:
    """What another connection sees."""
    with contextlib.closing(sqlite.connect(f"file:{tmp_path / 'x.db'}?mode=ro")) as other:
        return [row[0] for row in other.execute("SELECT n FROM t ORDER BY n")]


def test_parts_are_committed_together(database, tmp_path):
    with database:
        insert(database, 1)
        assert numbers(database, tmp_path) == []
        insert(database, 2)
    assert numbers(database, tmp_path) == [1, 2]


def test_parts_are_undone_with_the_whole(database, tmp_path):
    insert(database, 1)
    with pytest.raises(ExternalFailure, match="UNIQUE"), database:
        insert(database, 2)
        insert(database, 1)
    assert numbers(database, tmp_path) == [1]
    insert(database, 3)
    assert numbers(database, tmp_path) == [1, 3]


def test_the_whole_fails_with_a_part(database, tmp_path):
    insert(database, 1)
    with pytest.raises(ExternalFailure, match="a part of the transaction has failed"), database:
        insert(database, 2)
        with pytest.raises(ExternalFailure, match="UNIQUE"):
            insert(database, 1)
    assert numbers(database, tmp_path) == [1]
