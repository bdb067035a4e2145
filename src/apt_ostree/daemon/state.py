"""What the service tells of the system. It is read when somebody asks or something has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from apt_ostree.core import queries
from apt_ostree.core import status as core_status
from apt_ostree.errors import AptOstreeError
from apt_ostree.model.history import Outcome
from apt_ostree.system.mainloop import MainLoop

#: Seconds between a change that is noticed and the look at it; a change is seldom a single file's.
_SETTLE = 0.5
#: Entries of the history that are looked at for what has ended.
_NEWEST = 20

Entry = Mapping[str, Any]


class State:
    """The deployments, and the operations on the running system.

    is_busy: whether a transaction is at work: the state is looked at when it has ended.
    """

    def __init__(self, loop: MainLoop, is_busy: Callable[[], bool]) -> None:
        self._loop = loop
        self._is_busy = is_busy
        self._stamp: object = None
        self._status: Mapping[str, Any] = {"deployments": []}
        self._changed: list[Callable[[], None]] = []
        self._ended: list[Callable[[Entry], None]] = []
        self._offered: list[Callable[[Entry], None]] = []
        self._foreign: list[Callable[[], None]] = []
        self._watches: list[Callable[[], None]] = []
        self._acting: set[int] = set()
        self._last = 0
        self._is_due = False
        self._offer: Entry | None = None
        self._had_transaction = False

    # --- what it is

    @property
    def deployments(self) -> Sequence[Entry]:
        """Return the deployments as `status` has them, the next one to boot first."""
        self._update()
        rows: Sequence[Entry] = self._status["deployments"]
        return rows

    @property
    def booted(self) -> Entry | None:
        """Return the booted deployment, with the live state."""
        return next((row for row in self.deployments if row["booted"]), None)

    @property
    def staged(self) -> str:
        """Return the commit that is staged, or ""."""
        return next((str(row["checksum"]) for row in self.deployments if row["staged"]), "")

    @property
    def stateroots(self) -> frozenset[str]:
        """Return the names of the stateroots."""
        return core_status.stateroots()

    def history(self, most: int) -> Sequence[Entry]:
        """Return the newest operations, the oldest of them first."""
        rows: Sequence[Entry] = queries.answer_json("history", {"most": most})
        return rows

    # --- what becomes of it

    def on_change(self, act: Callable[[], None]) -> None:
        """Have a function called when something has changed."""
        self._changed.append(act)

    def on_end(self, act: Callable[[Entry], None]) -> None:
        """Have a function called with each operation that has ended, in the way that it has."""
        self._ended.append(act)

    def on_offer(self, act: Callable[[Entry], None]) -> None:
        """Have a function called with each update that a check has found."""
        self._offered.append(act)

    def on_foreign_change(self, act: Callable[[], None]) -> None:
        """Have a function called when another program has changed the deployments or covered /usr."""
        self._foreign.append(act)

    def note_transaction(self) -> None:
        """Note that a transaction has begun or ended: what changes is its doing."""
        self._had_transaction = True
        self.notice()

    def watch(self) -> None:
        """Tell from now on what has changed, whoever changes it."""
        if not self._watches:
            self._watches = [self._loop.watch(path, self.notice) for path in core_status.watched()]
            self._watches.append(self._loop.watch_mounts(self.notice))
            self._update()
            self._note(self.history(_NEWEST))
            self._offer = _offer()

    def unwatch(self) -> None:
        """Tell nothing any more."""
        while self._watches:
            self._watches.pop()()

    def notice(self) -> None:
        """Look at the system soon, as something may have changed."""
        if self._watches and not self._is_due and not self._is_busy():
            self._is_due = True
            self._loop.later(_SETTLE, self.refresh)

    def refresh(self) -> None:
        """Look at the system, and tell what has changed since."""
        self._is_due = False
        try:
            is_new, before = self._update(), self._offer
            if self._watches:
                self._had_transaction |= self._tell_ends()
                self._offer = _offer()
        except AptOstreeError:  # told to whoever asks
            return
        is_own, self._had_transaction = self._had_transaction, self._is_busy()
        if is_new:
            _call_all(self._changed)
            if not is_own and self._watches:
                _call_all(self._foreign)
        if self._offer and self._offer != before:
            _call_all(partial(act, self._offer) for act in self._offered)

    def _update(self) -> bool:
        """Read the status again if it may have changed; return whether it has."""
        stamp = core_status.stamp()
        if stamp == self._stamp:
            return False
        before, self._status = self._status, queries.answer_json("status", {})
        self._stamp = stamp
        return before != self._status

    def _tell_ends(self) -> bool:
        """Tell which operations have ended; return whether there are any."""
        entries = self.history(_NEWEST)
        ended = [e for e in entries if e["number"] > self._last or e["number"] in self._acting]
        self._note(entries)
        for entry in ended:
            if entry["number"] not in self._acting:
                _call_all(partial(act, entry) for act in self._ended)
        return bool(ended)

    def _note(self, entries: Sequence[Entry]) -> None:
        """Remember which operations there are, and which of them have not ended."""
        self._acting = {e["number"] for e in entries if e["outcome"] == Outcome.ACTING}
        self._last = max((e["number"] for e in entries), default=0)


def _offer() -> Entry | None:
    """Return the update that the last check has found, if it is still one."""
    found: Entry | None = queries.answer_json("available-update", {})
    return found if found and not found["deployment"] else None


def _call_all(acts: Iterable[Callable[[], None]]) -> None:
    for act in acts:
        act()
