"""A transaction of the service: a request that waits for its turn, runs, or has ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from apt_ostree.model.caller import Caller

_UNIT = re.compile(r"apt-ostree-transaction-([0-9]+)\.service")


class Phase(StrEnum):
    """How far a transaction is."""

    QUEUED = "queued"
    RUNNING = "running"
    ASKING = "asking"  # the user is asked, and the system not locked
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a transaction before it runs.

    id: its number, which grows with time, and is not used again before the next boot.
    title: the command as the history shows it.
    request: as JSON; descriptors of files are indexes of what was passed.
    ask: the client answers questions.
    wait: whether to wait for another program that changes the system.
    files: how many files were passed.
    """

    id: int
    verb: str
    title: str
    request: Mapping[str, Any]
    caller: Caller
    ask: bool = False
    wait: bool = True
    files: int = 0

    @property
    def unit(self) -> str:
        """Return the name of the unit in which it runs."""
        return f"apt-ostree-transaction-{self.id}.service"

    @property
    def what(self) -> tuple[Any, ...]:
        """Return what two transactions have in common of which one is enough."""
        return (self.caller.uid, self.verb, self.request, self.wait)


def id_of_unit(name: str) -> int | None:
    """Return the number of the transaction that runs in a unit; None for any other unit."""
    match = _UNIT.fullmatch(name)
    return int(match[1]) if match else None
