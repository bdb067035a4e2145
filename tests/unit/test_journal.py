"""Reading what a unit printed; the systemd journal itself is replaced, which nobody can fill at will."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from apt_ostree.system import journal


class Reader:
    """Stands for systemd.journal.Reader."""

    messages: ClassVar[list[Any]] = []
    asked: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        self._rest: Iterator[Any] = iter(self.messages)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None: ...

    def add_match(self, **match: str) -> None:
        self.asked.append(match)

    def seek_realtime(self, since: float) -> None:
        self.asked.append(since)

    def get_next(self) -> dict[str, Any]:
        return {"MESSAGE": message} if (message := next(self._rest, None)) is not None else {}


@pytest.fixture
def messages(monkeypatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(Reader, "messages", found)
    monkeypatch.setattr(Reader, "asked", [])
    module = types.ModuleType("systemd")
    module.journal = types.SimpleNamespace(Reader=Reader)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "systemd", module)
    return found


def test_the_last_error_of_a_unit(messages):
    messages += ["Finalizing", "error: first", b"bytes", "error: No space left on device", "Stopped"]
    assert journal.last_error("x.service", 7.0) == "No space left on device"
    assert Reader.asked == [{"_SYSTEMD_UNIT": "x.service"}, 7.0]


def test_no_error_is_empty(messages):
    messages += ["Finalizing", "Finalized"]
    assert journal.last_error("x.service", 7.0) == ""


def test_a_journal_that_cannot_be_read_has_none(messages, monkeypatch):
    def fails(self: Reader) -> None:
        raise PermissionError

    monkeypatch.setattr(Reader, "__init__", fails)
    assert journal.last_error("x.service", 7.0) == ""
