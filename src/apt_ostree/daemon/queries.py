"""Queries on the bus: any user may read. data/dbus/org.debian.aptostree1.xml describes the interface."""

# No `from __future__ import annotations`: dasbus makes the interface of the hints, which have to be types.
import json
from collections.abc import Callable
from typing import Any

from dasbus.server.interface import dbus_interface
from dasbus.typing import Str

from apt_ostree.core import queries
from apt_ostree.daemon.replies import read_json
from apt_ostree.errors import UsageError
from apt_ostree.model import bus as names

#: Queries that read the archives' lists, many commits, all records or a whole image: up to 100 MB that a
#: service does not give back.
_HEAVY = frozenset(
    {
        "archives",
        "container-lint",
        "container-rules",
        "db-diff",
        "db-list",
        "history-verify",
        "offered-packages",
        "packages",
        "search",
    }
)


@dbus_interface(names.QUERIES)
class Queries:
    """The queries of `core.queries`.

    called: is told of each call.
    """

    def __init__(self, called: Callable[[], None]) -> None:
        self._called = called

    def Query(self, name: Str, query: Str) -> Str:  # noqa: N802  # the name of the D-Bus method
        """Return the answer to a query, both as JSON; raise what the query raises."""
        self._called()
        return json.dumps(_answer(name, query))


def _answer(name: str, query: str) -> Any:
    if name in _HEAVY:
        raise UsageError(f"{name} is answered by the command line only")
    return queries.answer_json(name, read_json(query, "the query"))
