"""Asks polkit before something is done for a client of the service, and replies when it has decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apt_ostree.daemon.replies import Later
from apt_ostree.system.polkit import Check


class Authority:
    """polkit, as clients of a connection to the bus meet it."""

    def __init__(self, bus: Any) -> None:
        self._bus = bus
        self._checks = 0

    @property
    def is_busy(self) -> bool:
        """Return whether polkit is asked about something."""
        return bool(self._checks)

    def ask(
        self,
        actions: Sequence[str],
        call: Mapping[str, Any],
        act: Callable[[], Any],
        *,
        otherwise: Callable[[Exception], None] = lambda _error: None,
    ) -> Later:
        """Act if polkit allows it to the caller; return the reply, which comes then.

        otherwise: called with the error if it does not come to that.
        """
        later = Later()
        self._checks += 1

        def allowed() -> None:
            try:
                value = act()
            except Exception as error:
                refused(error)
            else:
                self._checks -= 1
                later.give(value)

        def refused(error: Exception) -> None:
            self._checks -= 1
            otherwise(error)
            later.fail(error)

        Check(
            self._bus,
            call["sender"],
            actions,
            interactive=call["interactive"],
            allowed=allowed,
            refused=refused,
        )
        return later
