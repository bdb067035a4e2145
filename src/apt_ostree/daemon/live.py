"""The running system on the bus: its live state, its overlays and its history.

data/dbus/org.debian.aptostree1.xml describes the interfaces.
"""

# No `from __future__ import annotations`: dasbus makes the interfaces of the hints, which have to be types.
from collections.abc import Mapping
from functools import partial
from typing import Any

from dasbus.server.interface import accepts_additional_arguments, dbus_interface, dbus_signal
from dasbus.server.property import PropertiesInterface
from dasbus.typing import Double, List, ObjPath, Str, Structure, UInt32, UInt64

from apt_ostree.core import queries
from apt_ostree.daemon import variants
from apt_ostree.daemon.deferred import calls
from apt_ostree.daemon.replies import Handler
from apt_ostree.daemon.state import State
from apt_ostree.daemon.transactions import Transactions
from apt_ostree.model import bus as names


@dbus_interface(names.LIVE)
class Live(PropertiesInterface):  # type: ignore[misc]  # dasbus has no types
    """What the running system shows, and what changes it."""

    def __init__(self, state: State, transactions: Transactions) -> None:
        super().__init__()
        self._state = state
        self._transactions = transactions

    @property
    def Generation(self) -> UInt64:  # noqa: N802  # the name of the D-Bus property, as all that follow
        """The number of the live change that is shown; 0: how the boot began."""
        return self._of_booted("live-generation", {}).get("number", 0)

    @property
    def Commit(self) -> Str:  # noqa: N802
        """The commit that is shown, without overlays."""
        return self._of_booted("live-replaced", self._of_booted("checksum", ""))

    @property
    def Overlays(self) -> List[Str]:  # noqa: N802
        """The ids of the overlays that are shown, the topmost first."""
        return self._of_booted("live-overlays", [])

    @property
    def ConfirmBy(self) -> Double:  # noqa: N802
        """When what is shown is undone unless it is confirmed, in seconds since 1970; 0: never."""
        return self._of_booted("live-generation", {}).get("confirm-by") or 0.0

    @property
    def FailedUnits(self) -> List[Str]:  # noqa: N802
        """Units that live changes started, and that have failed."""
        return self._of_booted("live-failed-units", [])

    def _of_booted(self, key: str, default: Any) -> Any:
        return (self._state.booted or {}).get(key, default)

    @accepts_additional_arguments
    def Apply(self, options: Structure, *, call_info: Mapping[str, Any]) -> ObjPath:  # noqa: N802
        """Apply a deployment, or packages, to the running system."""
        return self._transactions.begin_typed(calls.apply_live, options, call_info)

    @accepts_additional_arguments
    def Rollback(self, options: Structure, *, call_info: Mapping[str, Any]) -> ObjPath:  # noqa: N802
        """Go back to an earlier generation."""
        return self._transactions.begin_typed(calls.rollback_live, options, call_info)

    @accepts_additional_arguments
    def Confirm(self, *, call_info: Mapping[str, Any]) -> ObjPath:  # noqa: N802
        """Keep what is shown."""
        return self._transactions.begin(calls.confirm(), [], {}, call_info)

    def announce(self) -> None:
        """Announce the properties, which may have changed."""
        for name in ("Generation", "Commit", "Overlays", "ConfirmBy", "FailedUnits"):
            self.report_changed_property(name)
        self.flush_changes()


@dbus_interface(names.OVERLAYS)
class Overlays:
    """The named overlays."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def List(self) -> List[Structure]:  # noqa: N802
        """Return all overlays, the topmost first."""
        return variants.dictionaries(queries.answer_json("overlays", {}))

    def Show(self, name: Str) -> Structure:  # noqa: N802
        """Return one overlay with its paths."""
        return variants.dictionary(queries.answer_json("overlay-contents", {"name": name}))

    @accepts_additional_arguments
    def Edit(self, name: Str, options: Structure, *, call_info: Mapping[str, Any]) -> ObjPath:  # noqa: N802
        """Create, enable, disable, rename or remove an overlay."""
        return self._transactions.begin_typed(partial(calls.edit_overlay, name), options, call_info)


@dbus_interface(names.HISTORY)
class History:
    """The operations on the running system."""

    def __init__(self, state: State) -> None:
        self._state = state

    @dbus_signal
    def Ended(self, number: UInt64, title: Str, outcome: Str, message: Str) -> None:  # noqa: N802
        """Tell how an operation has ended."""

    def List(self, most: UInt32) -> List[Structure]:  # noqa: N802
        """Return the newest operations without their plans, the oldest of them first."""
        rows = self._state.history(most)
        return variants.dictionaries([{k: v for k, v in row.items() if k != "plan"} for row in rows])

    def Show(self, number: UInt64) -> Structure:  # noqa: N802
        """Return one operation with its plan."""
        return variants.dictionary(queries.answer_json("history-show", {"number": number}))


def publish(bus: Any, state: State, transactions: Transactions) -> None:
    """Put the objects on the bus, and have what changes announced."""
    live, history = Live(state, transactions), History(state)
    bus.publish_object(names.LIVE_PATH, live, server_factory=Handler)
    bus.publish_object(names.OVERLAYS_PATH, Overlays(transactions), server_factory=Handler)
    bus.publish_object(names.HISTORY_PATH, history, server_factory=Handler)
    state.on_change(live.announce)
    state.on_end(lambda e: history.Ended.emit(e["number"], e["verb"], str(e["outcome"]), e["message"]))
