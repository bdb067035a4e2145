"""One transaction on the bus. data/dbus/org.debian.aptostree1.xml describes the interface."""

# No `from __future__ import annotations`: dasbus makes the interface of the hints, which have to be types.
import json
from collections.abc import Mapping
from typing import Any, Protocol

from dasbus.server.interface import accepts_additional_arguments, dbus_interface, dbus_signal
from dasbus.typing import Bool, List, Str, UInt32, UInt64

from apt_ostree.daemon.queue import Item
from apt_ostree.errors import AptOstreeError
from apt_ostree.model import bus as names


class Service(Protocol):
    """What has the transactions. sender: the bus name of the client."""

    def events(self, item: Item, first: int, sender: str) -> list[str]:
        """Return the events of a transaction from a number on."""

    def answer(self, item: Item, sender: str, *, proceed: bool) -> None:
        """Answer the question of a transaction."""

    def cancel(self, item: Item, call: Mapping[str, Any]) -> Any:
        """Cancel a transaction, if the caller may."""


@dbus_interface(names.TRANSACTION)
class Transaction:
    """One transaction on the bus."""

    def __init__(self, service: Service, item: Item) -> None:
        self._service = service
        self._item = item

    @property
    def Title(self) -> Str:  # noqa: N802  # the name of the D-Bus property, as all that follow
        """The command as the history shows it."""
        return self._item.record.title

    @property
    def Uid(self) -> UInt32:  # noqa: N802
        """The user who made the request."""
        return self._item.record.caller.uid

    @property
    def Phase(self) -> Str:  # noqa: N802
        """One of queued, running, asking, ended."""
        return str(self._item.phase)

    @dbus_signal
    def Event(self, number: UInt64, event: Str) -> None:  # noqa: N802
        """Tell of an event, by its number."""

    @accepts_additional_arguments
    def Events(self, first: UInt64, *, call_info: Mapping[str, Any]) -> List[Str]:  # noqa: N802
        """Return the events from a number on."""
        return self._service.events(self._item, first, call_info["sender"])

    @accepts_additional_arguments
    def Answer(self, proceed: Bool, *, call_info: Mapping[str, Any]) -> None:  # noqa: N802
        """Answer the question that is open."""
        self._service.answer(self._item, call_info["sender"], proceed=proceed)

    @accepts_additional_arguments
    def Cancel(self, *, call_info: Mapping[str, Any]) -> None:  # noqa: N802
        """Cancel the transaction; the reply comes when the client was allowed to."""
        return self._service.cancel(self._item, call_info)  # type: ignore[no-any-return]  # a Later

    # --- the same events with types of the bus, for those who do not read JSON

    @dbus_signal
    def TaskBegin(self, title: Str) -> None:  # noqa: N802
        """Tell that a step begins."""

    @dbus_signal
    def TaskEnd(self, title: Str, detail: Str) -> None:  # noqa: N802
        """Tell that a step has ended."""

    @dbus_signal
    def Progress(self, title: Str, done: UInt64, total: UInt64) -> None:  # noqa: N802
        """Tell how much of a step is done."""

    @dbus_signal
    def Message(self, text: Str, level: Str) -> None:  # noqa: N802
        """Tell something."""

    @dbus_signal
    def Finished(self, success: Bool, error: Str, text: Str) -> None:  # noqa: N802
        """Tell that the transaction has ended."""

    def tell(self, number: int, line: str) -> None:
        """Emit the signals of an event; of a line that was cut short only the general one."""
        self.Event.emit(number, line)
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, TypeError, KeyError):
            return
        if kind == "task-begin":
            self.TaskBegin.emit(event["title"])
        elif kind == "task-end":
            self.TaskEnd.emit(event["title"], event["detail"])
        elif kind == "progress":
            self.Progress.emit(event["title"], event["done"], event["total"])
        elif kind == "message":
            self.Message.emit(event["text"], event["level"])
        elif kind == "end":
            error = None if event["ok"] else AptOstreeError.from_json(event)
            self.Finished.emit(
                event["ok"], error.dbus_name if error else "", error.to_text() if error else ""
            )
