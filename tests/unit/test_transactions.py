"""Transactions of the service: their order, and their files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.daemon import transactions
from apt_ostree.daemon.queue import Item, Queue
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.caller import Caller
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.requests import VERBS
from apt_ostree.model.requests.overlays import EditOverlay, OverlayBackup
from apt_ostree.model.requests.packages import Install
from apt_ostree.model.transaction import Phase, Record, id_of_unit
from apt_ostree.system import openfiles, transaction_files
from apt_ostree.system.caller import caller_of, read_caller

CALLER = Caller(1000, 1000, "jo", "session-1.scope")


def record(number: int, **changes: Any) -> Record:
    return replace(Record(number, "install", "install", {"packages": ["x"]}, CALLER), **changes)


@pytest.fixture
def queue() -> Queue:
    return Queue()


def add(queue: Queue, number: int, phase: Phase = Phase.QUEUED, **changes: Any) -> Item:
    item = Item(record(number, **changes), phase)
    queue.add(item)
    return item


# --- the queue


def test_one_runs_at_a_time_in_their_order(queue: Queue):
    first, second = add(queue, 1), add(queue, 2)
    assert queue.due() is first
    first.phase = Phase.RUNNING
    assert queue.due() is None and queue.running is first and queue.is_busy
    first.phase = Phase.ASKING
    assert queue.due() is second
    first.phase = second.phase = Phase.ENDED
    assert queue.due() is None and not queue.is_busy


@pytest.mark.parametrize(
    ("changes", "joins"),
    [
        ({}, True),
        ({"verb": "uninstall"}, False),
        ({"request": {"packages": ["y"]}}, False),
        ({"caller": replace(CALLER, uid=1001)}, False),
        ({"wait": False}, False),
        ({"ask": True}, False),
        ({"files": 1}, False),
    ],
)
def test_what_is_done_already_is_not_done_twice(queue: Queue, changes: dict[str, Any], joins: bool):
    item = add(queue, 1)
    assert queue.same(record(2, **changes)) is (item if joins else None)
    item.phase = Phase.ENDED
    assert queue.same(record(2, **changes)) is None


def test_a_call_that_is_made_again_has_the_same_transaction(queue: Queue):
    item = add(queue, 1, Phase.ENDED, key="k", ask=True)
    assert queue.same(record(2, key="k", ask=True)) is item
    assert queue.same(record(2, key="other", ask=True)) is None
    assert queue.same(record(2, key="k", caller=replace(CALLER, uid=1001))) is None


def test_who_does_not_wait_is_told_what_runs(queue: Queue):
    add(queue, 1, Phase.RUNNING)
    queue.refuse(record(2))
    with pytest.raises(Refused, match="'install' of jo is changing the system"):
        queue.refuse(record(2, wait=False))


def test_a_user_cannot_fill_the_queue(queue: Queue):
    for number in range(16):
        add(queue, number)
    with pytest.raises(Refused, match="16 transactions"):
        queue.refuse(record(99))
    queue.refuse(record(99, caller=replace(CALLER, uid=1001)))


# --- the files


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(transaction_files, "DIRECTORY", tmp_path / "run" / "transactions")
    return tmp_path / "run" / "transactions"


def test_a_record_is_read_as_it_was_written(directory: Path):
    rows = [record(transaction_files.new_id(), wait=False, files=2)]
    transaction_files.create(rows[0])
    rows.append(record(transaction_files.new_id()))
    transaction_files.create(rows[1])
    assert transaction_files.records() == rows
    assert transaction_files.caller(rows[0].id) == CALLER
    assert directory.stat().st_mode & 0o777 == 0o700
    (directory / "5").mkdir()  # of a service that was killed
    assert transaction_files.records() == rows and not (directory / "5").exists()
    transaction_files.remove(rows[0].id)
    assert transaction_files.records() == rows[1:]


def test_events_are_read_line_by_line(directory: Path):
    transaction_files.create(record(1))
    with transaction_files.opened(1, "{}") as (stdin, stdout):
        assert os.read(stdin, 100) == b"{}\n"
        os.write(stdout, b'{"event": 1}\n{"eve')
        assert transaction_files.read_events(1) == (['{"event": 1}'], 13)
        os.write(stdout, b'nt": 2}\n')
        assert transaction_files.read_events(1, 13) == (['{"event": 2}'], 26)
        os.write(stdout, b'{"ev')  # killed within it
    transaction_files.append_event(1, {"event": "end"})
    assert transaction_files.read_events(1, 26)[0] == ['{"ev', '{"event": "end"}']


def test_answers_reach_the_worker_or_nobody(directory: Path):
    transaction_files.create(record(1))
    transaction_files.answer(1, {"proceed": True})  # nobody reads
    with transaction_files.opened(1, "{}") as (stdin, _stdout):
        transaction_files.answer(1, {"proceed": True})
        assert os.read(stdin, 100) == b'{}\n{"proceed": true}\n'


def test_a_long_request_fits_and_a_longer_one_is_refused(directory: Path):
    transaction_files.create(record(1))
    with transaction_files.opened(1, "x" * 500_000) as (stdin, _stdout):
        assert len(os.read(stdin, 600_000)) == 500_001
    with pytest.raises(UsageError, match="bytes"), transaction_files.opened(1, "x" * 2_000_000):
        pass


def test_files_are_opened_again_as_they_were(tmp_path: Path):
    (tmp_path / "x").write_text("one")
    one, two = os.open(tmp_path / "x", os.O_RDONLY), os.open(tmp_path, os.O_RDONLY)
    three = os.open(tmp_path / "x", os.O_WRONLY | os.O_APPEND)
    rows = openfiles.passed([one, two, three])
    again = openfiles.open_passed(os.getpid(), rows)
    assert os.read(again[0], 9) == b"one" and os.listdir(again[1]) == ["x"]
    with pytest.raises(OSError, match="Bad file"):
        os.write(again[0], b"x")
    os.write(again[2], b"two")
    assert (tmp_path / "x").read_text() == "onetwo"
    for fd in (one, two, three, *again):
        os.close(fd)
    with pytest.raises(UsageError, match="cannot be opened"):
        openfiles.open_passed(os.getpid(), rows)


def test_another_file_with_the_same_number_is_not_taken(tmp_path: Path):
    (tmp_path / "x").write_text("")
    fd = os.open(tmp_path / "x", os.O_RDONLY)
    ((_, device, inode),) = openfiles.passed([fd])
    with pytest.raises(UsageError, match="not there any more"):
        openfiles.open_passed(os.getpid(), [(fd, device, inode + 1)])
    os.close(fd)


# --- requests with files


def test_files_of_a_request_are_numbered_and_named_again():
    files = (OpenFile(7, "a.deb"), OpenFile(9, "b.deb"))
    indexed = Install(packages=("x",), files=files).with_indexes()
    assert [file.fd for file in indexed.files] == [0, 1]
    assert indexed.with_descriptors([7, 9]) == Install(packages=("x",), files=files)
    with pytest.raises(UsageError, match=r"b\.deb was not passed"):
        indexed.with_descriptors([7])
    assert EditOverlay().with_indexes() == EditOverlay()
    backup = OverlayBackup(destination=OpenFile(5, "b"))
    assert backup.with_indexes().destination == OpenFile(0, "b")


@pytest.mark.parametrize(
    ("verb", "text", "files", "error"),
    [
        ("install", "{", 0, "not JSON"),
        ("install", "[" * 100_000, 0, "not JSON"),
        ("install", " " * 600_000, 0, "has 600000 characters"),
        ("status", "{}", 0, "there is no verb 'status'"),
        ("install", '{"x": 1}', 0, "unknown field 'x'"),
        ("install", '{"files": [{"fd": 0, "name": "x"}]}', 0, "not passed"),
        ("install", '{"files": [{"fd": 1, "name": "x"}]}', 1, "not passed"),
    ],
)
def test_wrong_requests(verb: str, text: str, files: int, error: str):
    with pytest.raises(UsageError, match=error):
        transactions._read(verb, text, files)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
VALUES = st.dictionaries(st.sampled_from(["packages", "deploy", "files", "live", "name", "edits", "x"]), JSON)


@given(st.sampled_from([*VERBS, "x"]), VALUES.map(json.dumps) | st.text(), st.integers(0, 2))
def test_any_request_is_read_or_refused(verb: str, text: str, files: int):
    try:
        request = transactions._read(verb, text, files)
    except UsageError as error:
        assert str(error)
    else:
        assert transactions._read(verb, json.dumps(request.to_json()), files) == request


@given(st.text() | JSON.map(json.dumps))
def test_any_line_of_a_worker_is_borne(line: str):
    item = Item(record(1), Phase.RUNNING)
    item.take(line)
    assert item.phase in Phase and item.count == 1


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        ('{"event": "end", "ok": true}', Phase.ENDED),
        ('{"event": "plan", "confirm": true}', Phase.ASKING),
        ('{"event": "plan", "confirm": false}', Phase.RUNNING),
        ('{"event"', Phase.RUNNING),
        ("[1]", Phase.RUNNING),
    ],
)
def test_the_phase_after_an_event(line: str, phase: Phase):
    item = Item(record(1), Phase.RUNNING)
    item.take(line)
    assert (item.phase, item.questions) == (phase, int(phase is Phase.ASKING))


# --- the caller


def test_the_caller_of_a_worker_in_a_unit_is_the_client(directory: Path, monkeypatch: pytest.MonkeyPatch):
    from apt_ostree.system import running

    transaction_files.create(record(5))
    monkeypatch.setattr(running, "unit_of_cgroup", lambda _text: "apt-ostree-transaction-5.service")
    assert read_caller() == CALLER
    monkeypatch.setattr(running, "unit_of_cgroup", lambda _text: "x.service")
    assert read_caller().unit == "x.service"


def test_a_client_that_is_gone_has_still_a_user():
    caller = caller_of(0, 2**22 + 1)
    assert (caller.uid, caller.login_uid, caller.user, caller.unit) == (0, None, "root", "")


def test_units_of_transactions():
    assert id_of_unit(record(5).unit) == 5
    assert id_of_unit("ssh.service") is None
    assert json.dumps(record(5).what, default=list)
