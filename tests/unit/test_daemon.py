"""The service: its interface, the text of its errors, and who answers a query."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from dasbus.typing import get_variant
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.cli import bus, main, options
from apt_ostree.core import queries
from apt_ostree.daemon import live, sysroot, transactions
from apt_ostree.daemon import queries as queries_of_daemon
from apt_ostree.daemon.replies import Passed
from apt_ostree.errors import AptOstreeError, NotAuthorized, Refused, UsageError
from apt_ostree.model import authorization
from apt_ostree.model import bus as names
from apt_ostree.model.queries import QUERIES, History
from apt_ostree.system.busclient import BusError

XML = Path(__file__).resolve().parents[2] / "data/dbus/org.debian.aptostree1.xml"
#: A line of an error's text.
LINES = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1)
CLASSES = [AptOstreeError, *AptOstreeError.__subclasses__()]


def interface(text: str, name: str) -> dict[tuple[str, str], list[tuple[str, ...]]]:
    """Return (kind, name) -> (type, direction) of the arguments of each member."""
    (node,) = ET.fromstring(text).findall(f"interface[@name='{name}']")
    return {
        (member.tag, member.attrib["name"]): [
            (arg.attrib["type"], arg.attrib.get("direction", "out")) for arg in member if arg.tag == "arg"
        ]
        for member in node
        if isinstance(member.tag, str)
    }


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (names.QUERIES, queries_of_daemon.Queries),
        (names.TRANSACTIONS, transactions.Transactions),
        (names.TRANSACTION, transactions.Transaction),
        (names.SYSROOT, sysroot.Sysroot),
        (names.OS, sysroot.OS),
        (names.LIVE, live.Live),
        (names.OVERLAYS, live.Overlays),
        (names.HISTORY, live.History),
    ],
)
def test_the_described_interface_is_the_codes(name: str, code: Any):
    assert interface(XML.read_text(), name) == interface(code.__dbus_xml__, name)


def test_all_queries_and_verbs_of_the_service_are_described():
    text = XML.read_text()
    heavy = queries_of_daemon._HEAVY
    assert [
        name for name in (*QUERIES, *authorization.ACTIONS) if name not in heavy and name not in text
    ] == []


@given(st.sampled_from(CLASSES), LINES, st.lists(LINES), st.none() | LINES)
def test_errors_pass_the_bus(cls, message, details, hint):
    error = cls(message, details=details, hint=hint)
    again = AptOstreeError.from_dbus(cls.dbus_name, error.to_text())
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
        queries_of_daemon.Queries(lambda: calls.append(None)).Query(name, query)
    assert calls


def test_an_error_has_its_hint():
    with pytest.raises(UsageError) as caught:
        queries_of_daemon.Queries(lambda: None).Query("install", "{}")
    again = AptOstreeError.from_dbus(UsageError.dbus_name, caught.value.to_text())
    assert again and again.hint and again.hint.startswith("there are: archives")


def test_an_answer_is_json(monkeypatch):
    monkeypatch.setattr(queries, "answer_json", lambda name, query: [name, query])
    assert json.loads(queries_of_daemon.Queries(lambda: None).Query("history", "{}")) == ["history", {}]


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


def test_without_a_service_there_is_nothing_to_reload(monkeypatch, capsys):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere")
    assert main.run(["reload"]) == 0
    assert "no service to reload" in capsys.readouterr().out


NO_REPLY, NO_OWNER = (f"org.freedesktop.DBus.Error.{name}" for name in ("NoReply", "NameHasNoOwner"))


@pytest.mark.parametrize(
    ("errors", "succeeds"),
    [
        ([NO_REPLY, NO_OWNER], True),
        (["org.freedesktop.DBus.Error.Spawn.ChildExited"], True),
        ([NO_OWNER] * 9, False),
        ([UsageError.dbus_name], False),
        ([""], False),  # of this side, such as a time that is over: it may be at work
    ],
)
def test_a_call_is_made_again_if_the_service_ends(monkeypatch, errors: list[str], succeeds: bool):
    monkeypatch.setattr(bus, "_PAUSE", 0.0)
    left = list(errors)

    def call() -> tuple[str, ...]:
        if left:
            raise BusError(left.pop(0), "why")
        return ("/path",)

    if succeeds:
        assert bus._persistently(call) == ("/path",)
    else:
        with pytest.raises(BusError):
            bus._persistently(call)


def test_the_files_of_several_options_are_counted_through(tmp_path: Path):
    paths = [tmp_path / name for name in ("a.deb", "b.deb", "c.deb", "none.deb")]
    for path in paths:
        path.touch()
    descriptors = [os.open(path, os.O_RDONLY) for path in paths]
    passed = Passed(descriptors)
    given = {
        "install-local-packages": get_variant("ah", [2]),
        "recommends": get_variant("b", True),
        "install-local-fileoverride-packages": get_variant("ah", [1, 0]),
    }

    def begin(native: Any, files: list[int], labels: list[str]) -> Any:
        assert files == [descriptors[2], descriptors[1], descriptors[0]]
        assert labels == [str(paths[2]), str(paths[1]), str(paths[0])]
        raise Refused(json.dumps(native, sort_keys=True))

    with pytest.raises(Refused) as caught:
        sysroot.with_files(given, {"files": passed}, begin)
    passed.close()
    assert json.loads(caught.value.message) == {
        "install-local-packages": [0], "recommends": True, "install-local-fileoverride-packages": [1, 2],
    }  # fmt: skip
    for descriptor in descriptors:
        with pytest.raises(OSError):
            os.fstat(descriptor)


def test_files_that_were_not_passed_are_none_of_ours():
    inner, outer = os.pipe()
    passed = Passed([inner, outer])
    for wrong in ([2], [-1], [0, 0], [0, 2]):
        with pytest.raises(UsageError, match="not passed"):
            passed.take(wrong)
    assert passed.take([1]) == [outer]
    with pytest.raises(UsageError):
        passed.take([1])
    passed.close()
    with pytest.raises(OSError):
        os.fstat(inner)
    os.close(outer)
