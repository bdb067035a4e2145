"""Which transaction of the service is carried out next: one at a time, in their order.

While one asks its user, it has no lock, and the next one runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from apt_ostree.errors import Refused
from apt_ostree.model.transaction import Phase, Record

#: Transactions of one user that have not ended.
_MOST = 16


@dataclass(slots=True)
class Item:
    """A transaction.

    offset: how far its events were read, in bytes.
    count: how many that were.
    questions: how many of them asked the user.
    client: the bus name of who follows it and answers its question; "" if nobody does.
    files: descriptors that were passed with it.
    watches: what ends each watch that was begun for it.
    """

    record: Record
    phase: Phase = Phase.QUEUED
    offset: int = 0
    count: int = 0
    questions: int = 0
    client: str = ""
    files: list[int] = field(default_factory=list)
    watches: list[Callable[[], None]] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        """Return whether the end was told."""
        return self.phase is Phase.ENDED

    def take(self, line: str) -> None:
        """Follow the worker by one of its events; a line that is none was cut short, as the worker was."""
        self.count += 1
        try:
            event = json.loads(line)
        except ValueError:
            return
        if not isinstance(event, dict):
            return
        asks = bool(event.get("confirm"))
        self.questions += asks
        is_end = event.get("event") == "end"
        self.phase = Phase.ENDED if is_end else Phase.ASKING if asks else Phase.RUNNING


class Queue:
    """The transactions, by their numbers."""

    def __init__(self) -> None:
        self._items: dict[int, Item] = {}

    def __iter__(self) -> Iterator[Item]:
        return iter(list(self._items.values()))

    def __getitem__(self, number: int) -> Item:
        return self._items[number]

    def add(self, item: Item) -> None:
        """Add a transaction as the last one."""
        self._items[item.record.id] = item

    def drop(self, number: int) -> None:
        """Forget a transaction that has ended."""
        del self._items[number]

    @property
    def is_busy(self) -> bool:
        """Return whether there is a transaction that has not ended."""
        return any(not item.has_ended for item in self)

    @property
    def running(self) -> Item | None:
        """Return the transaction that has the system for itself."""
        return next((item for item in self if item.phase is Phase.RUNNING), None)

    def due(self) -> Item | None:
        """Return the transaction that can run now."""
        if self.running:
            return None
        return next((item for item in self if item.phase is Phase.QUEUED), None)

    def same(self, record: Record) -> Item | None:
        """Return a transaction that does what another one would do: nobody has to wait for it twice.

        That of a call that is made again, because its reply was lost, may have ended.
        """
        calls = (item for item in self if item.record.key == record.key != "")
        again = next((item for item in calls if item.record.caller.uid == record.caller.uid), None)
        if again or record.ask or record.files:
            return again
        others = (item for item in self if item.phase in (Phase.QUEUED, Phase.RUNNING))
        return next((item for item in others if item.record.what == record.what), None)

    def refuse(self, record: Record) -> None:
        """Raise Refused for a transaction that would have to wait and may not, or one too many."""
        own = [i for i in self if not i.has_ended and i.record.caller.uid == record.caller.uid]
        if len(own) >= _MOST and record.caller.uid != 0:
            raise Refused(f"{len(own)} transactions of yours have not ended", hint="wait for them to end")
        running = self.running
        if running and not record.wait:
            raise Refused(
                f"'{running.record.title}' of {running.record.caller.user} is changing the system",
                hint="wait for it to end, or leave --no-wait out",
            )
