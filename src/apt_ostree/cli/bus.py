"""Asks the service on the system bus."""

from __future__ import annotations

import json
from typing import Any

from apt_ostree.errors import AptOstreeError
from apt_ostree.model import bus as names
from apt_ostree.model.request import Request


class Unavailable(Exception):
    """There is no bus, or no service on it."""


def ask(query: Request) -> Any:
    """Return the service's answer to a query, as JSON; raise its error, or Unavailable."""
    from dasbus.connection import SystemMessageBus
    from dasbus.error import DBusError

    try:
        service = SystemMessageBus().get_proxy(names.NAME, names.PATH, names.QUERIES)
        return json.loads(service.Query(query.verb, json.dumps(query.to_json())))
    except DBusError as error:
        ours = AptOstreeError.from_dbus(error.dbus_name, str(error))
        raise ours or Unavailable(str(error)) from error
    except RuntimeError as error:  # GLib.Error, if there is no bus
        raise Unavailable(str(error)) from error
