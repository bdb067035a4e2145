"""Answers queries of any user over D-Bus. The bus starts it, and it ends when nobody calls."""

# No `from __future__ import annotations`: dasbus makes the interface of the hints, which have to be types.
import json
from collections.abc import Callable
from typing import Any

from dasbus.connection import SystemMessageBus
from dasbus.error import ErrorMapper, ErrorRule
from dasbus.server.interface import dbus_interface
from dasbus.typing import Str

from apt_ostree.core import queries
from apt_ostree.errors import AptOstreeError, UsageError, from_os_error
from apt_ostree.model import bus as names
from apt_ostree.system.mainloop import MainLoop

#: Seconds without a call after which the service ends.
_IDLE = 60.0
#: RequestName's DBUS_NAME_FLAG_DO_NOT_QUEUE (D-Bus specification); dasbus has another number for it.
_DO_NOT_QUEUE = 4
#: Queries for which libapt reads the archives' lists: 100 MB that a service does not give back.
_HEAVY = frozenset({"search"})


def serve() -> None:
    """Serve until nobody has called for a minute."""
    loop = MainLoop(_IDLE)
    bus = SystemMessageBus(error_mapper=error_mapper())
    bus.connection.set_exit_on_close(False)  # else Gio ends this process with the bus, in an upgrade of that
    bus.publish_object(names.PATH, Queries(loop.touch))
    bus.register_service(names.NAME, flags=_DO_NOT_QUEUE)
    loop.run()
    bus.unregister_service(names.NAME)  # the next call starts another process
    loop.drain()
    bus.disconnect()


@dbus_interface(names.QUERIES)
class Queries:
    """The queries of `core.queries`; data/dbus/org.debian.aptostree1.xml describes the interface.

    called: is told of each call.
    """

    def __init__(self, called: Callable[[], None]) -> None:
        self._called = called

    def Query(self, name: Str, query: Str) -> Str:  # noqa: N802  # the name of the D-Bus method
        """Return the answer to a query, both as JSON; raise AptOstreeError with the text of the bus."""
        self._called()
        try:
            return json.dumps(_answer(name, query))
        except AptOstreeError as error:
            raise type(error)(error.to_text()) from error


def _answer(name: str, query: str) -> Any:
    if name in _HEAVY:
        raise UsageError(f"{name} is answered by the command line only")
    try:
        return queries.answer_json(name, json.loads(query))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the query is not JSON: {error}") from error
    except OSError as error:
        raise from_os_error(error) from error


def error_mapper() -> ErrorMapper:
    """Return the mapping of our errors to D-Bus errors; any other is a mistake in the program."""
    mapper = ErrorMapper()
    mapper.add_rule(_OurErrors())
    return mapper


class _OurErrors(ErrorRule):  # type: ignore[misc]  # dasbus has no types
    """Errors of all classes: a rule of dasbus matches one class without those that derive from it."""

    def __init__(self) -> None:
        super().__init__(AptOstreeError, AptOstreeError.dbus_name)

    def match_type(self, exception_type: type[BaseException]) -> bool:
        return issubclass(exception_type, AptOstreeError)

    def get_name(self, exception_type: type[AptOstreeError]) -> str:
        return exception_type.dbus_name
