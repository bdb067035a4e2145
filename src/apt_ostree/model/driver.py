"""The update driver: a program such as Zincati that decides about updates in place of the administrator."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass

from apt_ostree.errors import UsageError
from apt_ostree.model import jsonvalue

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Driver:
    """A registered driver.

    unit: the systemd unit that it runs in.
    """

    name: str
    unit: str

    def to_text(self) -> str:
        """Return the text of its record."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_text(text: str) -> Driver:
        """Return the driver of a record; raise UsageError for a text that is none."""
        try:
            value = json.loads(text)
        except ValueError as error:
            raise UsageError(f"the record of the update driver cannot be read: {error}") from error
        return jsonvalue.read(Driver, value, name="the record of the update driver")


def is_service(unit: str) -> bool:
    """Return whether a unit is a service of the system: not that in which all programs of a user run."""
    return unit.endswith(".service") and not unit.startswith("user@")


def checked_name(name: str) -> str:
    """Return the name of a driver; raise UsageError for a text that cannot be shown as one."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name of an update driver", hint="such as Zincati")
    return name
