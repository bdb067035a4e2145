"""Runs the service for rpm-ostree's clients in a directory, on a machine that OSTree has not booted.

Its deployments are those of a file, and nothing of it is outside that directory.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from apt_ostree.core import queries, status
from apt_ostree.daemon import transactions
from apt_ostree.daemon.service import serve
from apt_ostree.system import settings, transaction_files

PLACE = Path(sys.argv[1])


def answer(name: str, query: Any) -> Any:
    """Answer what the files say; the rest is what the code answers."""
    path = PLACE / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else real_answer(name, query)


real_answer = queries.answer_json
queries.answer_json = answer  # type: ignore[assignment]
status.stateroots = lambda: frozenset(path.name for path in (PLACE / "stateroots").iterdir())
status.stamp = lambda: tuple(path.stat().st_mtime for path in sorted(PLACE.glob("*.json")))
status.watched = lambda: (PLACE,)
transactions.journal.stream = lambda _identifier: (PLACE / "log").open("a")  # there may be no journald
settings._DIRECTORIES = (PLACE / "settings",)
transaction_files.DIRECTORY = PLACE / "run/transactions"
serve(PLACE / "sockets")
