"""A transaction of the service: a request that waits for its turn, runs, or has ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from apt_ostree.model.caller import Caller

#: Variables of a client's environment that the worker's children inherit.
PASSED_ON = ("SOURCE_DATE_EPOCH", "TMPDIR", "http_proxy", "https_proxy", "no_proxy")
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
    environment: of PASSED_ON, what the worker is started with.
    key: the client's own for the call; a call that is made again has the same one. "" is none.
    reboot: whether the system is rebooted if there is something new to boot.
    """

    id: int
    verb: str
    title: str
    request: Mapping[str, Any]
    caller: Caller
    ask: bool = False
    wait: bool = True
    files: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    reboot: bool = False

    @property
    def unit(self) -> str:
        """Return the name of the unit in which it runs."""
        return f"apt-ostree-transaction-{self.id}.service"

    @property
    def what(self) -> tuple[Any, ...]:
        """Return what two transactions have in common of which one is enough."""
        return (self.caller.uid, self.verb, self.request, self.wait, self.environment, self.reboot)


def id_of_unit(name: str) -> int | None:
    """Return the number of the transaction that runs in a unit; None for any other unit."""
    match = _UNIT.fullmatch(name)
    return int(match[1]) if match else None
