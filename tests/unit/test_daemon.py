"""The service: its interface, the text of its errors, and who answers a query."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.cli import bus, options
from apt_ostree.core import queries
from apt_ostree.daemon import service
from apt_ostree.errors import AptOstreeError, NotAuthorized, Refused, UsageError
from apt_ostree.model import bus as names
from apt_ostree.model.queries import QUERIES, History

XML = Path(__file__).resolve().parents[2] / "data/dbus/org.debian.aptostree1.xml"
#: A line of an error's text.
LINES = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1)
CLASSES = [AptOstreeError, *AptOstreeError.__subclasses__()]


def interface(text: str) -> dict[str, list[tuple[str, ...]]]:
    """Return member -> (name, type, direction) of its arguments."""
    (node,) = ET.fromstring(text).findall(f"interface[@name='{names.QUERIES}']")
    return {
        member.attrib["name"]: [
            tuple(arg.attrib[key] for key in ("name", "type", "direction")) for arg in member
        ]
        for member in node
        if isinstance(member.tag, str)
    }


def test_the_described_interface_is_the_codes():
    described, own = interface(XML.read_text()), interface(service.Queries.__dbus_xml__)
    unnamed = {name: [row[1:] for row in rows] for name, rows in described.items()}
    assert unnamed == {name: [row[1:] for row in rows] for name, rows in own.items()}


def test_all_queries_of_the_service_are_described():
    text = XML.read_text()
    assert [name for name in QUERIES if name not in service._HEAVY and name not in text] == []


@given(st.sampled_from(CLASSES), LINES, st.lists(LINES), st.none() | LINES)
def test_errors_pass_the_bus(cls, message, details, hint):
    error = cls(message, details=details, hint=hint)
    mapper = service.error_mapper()
    name = mapper.get_error_name(cls)
    again = AptOstreeError.from_dbus(name, error.to_text())
    assert again and (type(again), again.to_json()) == (cls, error.to_json())


def test_errors_of_others_are_not_ours():
    assert AptOstreeError.from_dbus("org.freedesktop.DBus.Error.ServiceUnknown", "x") is None


@pytest.mark.parametrize(
    ("name", "query", "error"),
    [
        ("history", "{", "the query is not JSON"),
        ("history", "[" * 100_000, "the query is not JSON"),
        ("history", "[]", "expected an object"),
        ("history", '{"x": 1}', "unknown field 'x'"),
        ("install", "{}", "there is no query 'install'"),
        ("search", '{"terms": ["x"]}', "command line"),
        ("status", '{"sysroot": "/mnt"}', "only the command line can name another system"),
    ],
)
def test_wrong_queries(name: str, query: str, error: str):
    calls: list[None] = []
    with pytest.raises(UsageError, match=error):
        service.Queries(lambda: calls.append(None)).Query(name, query)
    assert calls


def test_an_error_has_its_hint():
    with pytest.raises(UsageError) as caught:
        service.Queries(lambda: None).Query("install", "{}")
    again = AptOstreeError.from_dbus(UsageError.dbus_name, str(caught.value))
    assert again and again.hint and again.hint.startswith("there are: history")


def test_an_answer_is_json(monkeypatch):
    monkeypatch.setattr(queries, "answer_json", lambda name, query: [name, query])
    assert json.loads(service.Queries(lambda: None).Query("history", "{}")) == ["history", {}]


@pytest.mark.parametrize("outcome", [["row"], Refused("no"), bus.Unavailable("no bus")])
def test_the_service_answers_what_the_caller_may_not_read(monkeypatch, outcome):
    def refuse(_name: str, _query: object) -> None:
        raise NotAuthorized("root only")

    def ask(_query: object) -> object:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(queries, "answer_json", refuse)
    monkeypatch.setattr(bus, "ask", ask)
    if isinstance(outcome, list):
        assert options.answer_json(History()) == outcome
        return
    expected = Refused if isinstance(outcome, Refused) else NotAuthorized
    with pytest.raises(expected):
        options.answer_json(History())


def test_without_a_bus_there_is_no_service(monkeypatch):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere")
    with pytest.raises(bus.Unavailable):
        bus.ask(History())
