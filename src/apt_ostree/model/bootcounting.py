"""Boot counting of the Boot Loader Specification: how many attempts an entry has left, by its file's name."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"(?P<name>.+)\+(?P<left>\d+)(?:-(?P<done>\d+))?\.conf")


@dataclass(frozen=True, slots=True)
class Counted:
    """The counter of an entry.

    left, done: attempts. With none left, the boot loader starts the entry only if there is no other.
    """

    left: int
    done: int = 0


def counter_of(name: str) -> Counted | None:
    """Return the counter in the name of an entry's file, NAME+LEFT-DONE.conf; None if it is not counted."""
    match = _NAME.fullmatch(name)
    return Counted(int(match["left"]), int(match["done"] or 0)) if match else None


def root_of(entry: str) -> str:
    """Return the argument ostree= of an entry's text: the link to its deployment; "" without one."""
    rows = (line.split() for line in entry.splitlines())
    words = (word for key, *words in filter(None, rows) if key == "options" for word in words)
    return next((word.removeprefix("ostree=") for word in words if word.startswith("ostree=")), "")


def given_up(counted: Counted) -> str:
    """Return what to tell of an entry without attempts left."""
    attempts = "1 attempt" if counted.done == 1 else f"{counted.done} attempts"
    return f"the boot loader gave it up after {attempts}" if counted.done else "the boot loader gave it up"
