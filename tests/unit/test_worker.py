"""The worker's protocol: one request in, events and one end out, whatever happens in between."""

from __future__ import annotations

import inspect
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from apt_ostree import program, worker
from apt_ostree.cli import client
from apt_ostree.errors import (
    AptOstreeError,
    Cancelled,
    NotAuthorized,
    Refused,
    UsageError,
)
from apt_ostree.model import events
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.requests import VERBS, kind_of
from apt_ostree.model.requests.compose import ComposeTree
from apt_ostree.model.requests.deployments import Cleanup, Rollback
from apt_ostree.model.requests.packages import Install
from apt_ostree.system import journal
from tests.unit import fake_core

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-P", "-m", "tests.unit.fake_core"]
CALL = {"verb": "rollback", "request": {}}
ROLLBACK = {"title": "rollback", "dry_run": True, "allow_failed": False}
PLAN = {"event": "plan", "kind": "test", "confirm": True}


def line(**further: Any) -> str:
    return json.dumps({**CALL, **further}) + "\n"


def answers(*proceed: object) -> str:
    return "".join(json.dumps({"proceed": word}) + "\n" for word in proceed)


@pytest.fixture
def serve(monkeypatch):
    """Serve what is on stdin with a verb of fake_core; return the exit code, the events, and the end."""
    monkeypatch.setitem(sys.modules, "apt_ostree.core.fake_core", fake_core)
    fake_core.without_system(monkeypatch.setattr)

    def run(verb: str, stdin: str) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
        monkeypatch.setattr(worker, "VERBS", {**worker.VERBS, "rollback": f"fake_core:{verb}"})
        wire = io.StringIO()
        code = worker.serve(io.StringIO(stdin), wire)
        assert wire.getvalue().endswith("\n")
        *told, end = map(json.loads, wire.getvalue().splitlines())
        assert end["event"] == "end"
        assert "end" not in {event["event"] for event in told}
        return code, told, end

    return run


# --- the registry


def test_each_verb_has_a_function_that_takes_its_request():
    assert worker.VERBS.keys() == VERBS.keys()
    for verb in VERBS:
        function = worker.function_of(verb)
        _tx, request = inspect.signature(function).parameters
        assert get_type_hints(function)[request] is kind_of(verb)


# --- events and the end


def test_events_come_as_lines_and_then_one_end(serve):
    code, told, end = serve("tell", line(request={"dry_run": True}))
    assert code == 0
    assert [events.from_wire(event) for event in told] == [
        events.TaskBegin("one"),
        events.Progress("one", 1, 2),
        events.TaskEnd("one"),
        events.Message("careful", "warning"),
    ]
    assert end == {
        "event": "end",
        "ok": True,
        "next_boot": True,
        "result": {"changed": True, "live": False, **ROLLBACK},
    }


def test_what_follows_the_request_is_not_read_unless_somebody_asks(serve):
    assert serve("tell", line() + "no JSON at all")[0] == 0


def test_an_error_is_the_end_with_all_that_it_says(serve):
    code, told, end = serve("refuse", line())
    assert (code, told) == (Refused.exit_code, [])
    assert end == {
        "event": "end", "ok": False, "error": "Refused", "message": "no", "details": ["one", "two"],
        "hint": "another way", "internals": ["command: x"], "reasons": [],
    }  # fmt: skip


def test_an_error_of_the_system_names_its_object(serve):
    code, _told, end = serve("disk_is_full", line())
    assert (code, end["error"]) == (1, "ExternalFailure")
    assert end["message"] == "the system refused an operation on /some/where: No space left on device"
    assert "apt-ostree cleanup" in end["hint"]


def test_a_bug_says_where_it_is_and_goes_to_the_journal(serve, monkeypatch):
    written: list[tuple[str, ...]] = []
    monkeypatch.setattr(journal, "send", lambda lines, *, priority: written.append(tuple(lines)))
    code, _told, end = serve("bug", line())
    assert (code, end["error"]) == (1, "AptOstreeError")
    assert end["message"] == "internal error: KeyError: 'no such key'"
    assert any("fake_core.py" in row for row in end["internals"])
    assert written == [(end["message"], *end["internals"])]


def test_other_failures_are_not_for_the_journal(serve, monkeypatch):
    monkeypatch.setattr(journal, "send", lambda *_, **__: pytest.fail("something was written"))
    serve("refuse", line())
    serve("disk_is_full", line())
    serve("tell", "no JSON")


class _Gone(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


def test_a_client_that_is_gone_does_not_stop_the_work(serve, monkeypatch):
    monkeypatch.setattr(worker, "VERBS", {"rollback": "fake_core:tell"})
    assert worker.serve(io.StringIO(line()), _Gone()) == 0


# --- questions


def test_who_cannot_be_asked_goes_ahead(serve):
    code, told, _end = serve("ask", line())
    assert code == 0
    assert [event.get("confirm") for event in told] == [False, None, False, None]


@pytest.mark.parametrize(
    ("lines", "agrees"),
    [
        ('{"proceed": true}', True),
        ('{"proceed": false, "question": 1}\n{"proceed": true, "question": 2}', True),
        ('{"proceed": true, "question": 1}', False),
        ("no JSON", False),
        ("", False),
    ],
)
def test_an_answer_to_an_earlier_question_is_none(lines: str, agrees: bool):
    """The service may give one twice, when it was ended within it."""
    assert worker._read_answer(io.StringIO(lines), 2) is agrees


def test_a_plan_is_carried_out_after_a_yes(serve):
    code, told, _end = serve("ask", line(ask=True) + answers(True, True))
    assert code == 0
    assert told == [
        {**PLAN, "plan": {"number": 0}},
        {"event": "message", "text": "yes to 0", "level": "info"},
        {**PLAN, "plan": {"number": 1}},
        {"event": "message", "text": "yes to 1", "level": "info"},
    ]


@pytest.mark.parametrize(
    "answer",
    [
        answers(False),
        answers("yes"),
        answers(1),
        answers(None),
        "{}\n",
        "[true]\n",
        "true\n",
        "yes\n",
        "\n",
        "",  # the client is gone
        '{"proceed": true',  # and was, while it answered
    ],
)
def test_whatever_is_no_yes_is_a_no(serve, answer):
    code, told, end = serve("ask", line(ask=True) + answer)
    assert (code, end["error"]) == (Cancelled.exit_code, "Cancelled")
    assert told == [{**PLAN, "plan": {"number": 0}}]


def test_each_question_has_an_answer_of_its_own(serve):
    code, told, _end = serve("ask", line(ask=True) + answers(True, False))
    assert code == Cancelled.exit_code
    assert [event["event"] for event in told] == ["plan", "message", "plan"]


# --- a process of its own


class Worker:
    """A worker with a verb of fake_core."""

    def __init__(self, verb: str, place: Path, **options: Any) -> None:
        env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", fake_core.PLACE: str(place)}
        self.process = subprocess.Popen(
            [*PROGRAM, verb],
            env={**env, **options.pop("env", {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        assert self.process.stdin
        assert self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def send(self, text: str) -> None:
        self.stdin.write(text)
        self.stdin.flush()

    def read(self) -> dict[str, Any]:
        return dict(json.loads(self.stdout.readline()))

    def wait_until_ready(self) -> None:
        """Wait until the worker takes a cancel."""
        bits = 1 << (signal.SIGTERM - 1) | 1 << (signal.SIGINT - 1)
        status = Path(f"/proc/{self.process.pid}/status")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            row = next(row for row in status.read_text().splitlines() if row.startswith("SigCgt:"))
            if int(row.split()[1], 16) & bits == bits:
                return
            time.sleep(0.005)
        raise AssertionError("the worker takes no signals")

    def end(self) -> tuple[int, list[dict[str, Any]], str]:
        """Wait for the end; return the exit code, what was written to the wire, and what to stderr."""
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, [json.loads(row) for row in out.splitlines()], err


@pytest.fixture
def start(tmp_path):
    """Start workers, and see that none is left."""
    started: list[Worker] = []

    def run(verb: str, **options: Any) -> Worker:
        started.append(Worker(verb, tmp_path / "place", **options))
        return started[-1]

    yield run
    for one in started:
        one.process.kill()
        one.process.wait()
        for stream in (one.stdin, one.stdout, one.process.stderr):
            stream.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_cancel_before_the_request(start, number):
    one = start("work")
    one.wait_until_ready()
    one.process.send_signal(number)
    code, (end,), _err = one.end()
    assert (code, end["event"], end["error"]) == (130, "end", "Cancelled")


def test_a_cancel_while_asking(start):
    one = start("ask")
    one.send(line(ask=True))
    assert one.read() == {**PLAN, "plan": {"number": 0}}
    one.process.terminate()
    code, (end,), _err = one.end()
    assert (code, end["error"]) == (130, "Cancelled")


def test_a_cancel_while_working_and_none_while_putting_back(start, tmp_path):
    one = start("work")
    one.send(line())
    assert one.read()["text"] == "working"
    one.process.terminate()
    code, (end,), _err = one.end()
    assert (code, end["error"]) == (130, "Cancelled")
    assert (tmp_path / "place").read_text() == "put back"


def test_a_cancel_where_python_drops_exceptions(start):
    one = start("fork")
    one.send(line())
    code, (end,), _err = one.end()
    assert (code, end["error"]) == (130, "Cancelled")


def test_a_lost_client_does_not_stop_the_work(start, tmp_path):
    one = start("outlive")
    one.send(line())
    assert one.read()["text"] == "begun"
    one.stdout.close()
    one.stdin.close()
    assert one.process.wait(timeout=60) == 0
    assert (tmp_path / "place").read_text() == "done"


def test_output_of_others_is_kept_off_the_wire(start):
    one = start("chatter")
    one.send(line())
    code, told, err = one.end()
    assert code == 0
    assert [row["event"] for row in told] == ["message", "end"]
    assert {'{"event": "end", "ok": true}', "from the descriptor", "from a child"} <= set(err.splitlines())


def test_passed_files_are_ours_and_no_childs(start, tmp_path):
    passed = tmp_path / "passed"
    passed.write_text("content")
    with passed.open() as file:
        number = file.fileno()
        one = start("descriptors", pass_fds=[number], umask=0o077)
        one.send(json.dumps({"verb": "install", "request": {"files": [{"fd": number, "name": "x"}]}}) + "\n")
        code, (end,), err = one.end()
    assert code == 0, err
    assert end["result"]["text"] == "content"
    assert end["result"]["child"] == ["0", "1", "2", "3"]  # 3 is the directory that it reads
    assert end["result"]["umask"] == 0o022


# --- the client with a real worker


class View:
    """Remembers events, and answers questions."""

    def __init__(self, *proceed: bool) -> None:
        self.events: list[events.Event] = []
        self._answers = list(proceed)

    def show(self, event: events.Event) -> None:
        self.events.append(event)

    def confirm(self, _plan: events.PlanShown) -> bool:
        return self._answers.pop(0)


@pytest.fixture
def real(monkeypatch, tmp_path):
    """Have the client start workers with a verb of fake_core."""

    def choose(verb: str) -> None:
        command = ("env", f"PYTHONPATH={ROOT / 'src'}:{ROOT}", *PROGRAM, verb)
        monkeypatch.setattr(program, "command", lambda _name: command)

    return choose


def test_a_call_that_needs_no_system():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(UsageError, match="nothing to clean up was named"):
        client.call(Cleanup(), View())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_call_on_another_system():
    expected = Refused if os.geteuid() == 0 else NotAuthorized
    with pytest.raises(expected) as caught:
        client.call(Rollback(dry_run=True), View())
    assert caught.value.hint


def test_an_answer_has_the_result(real):
    real("tell")
    view = View()
    answer = client.call(Rollback(dry_run=True), view)
    assert answer.next_boot
    assert answer.result == {"changed": True, "live": False, **ROLLBACK}
    assert events.TaskEnd("one") in view.events


@pytest.mark.parametrize("agreed", [True, False])
def test_the_view_is_asked(real, agreed):
    real("ask")
    view = View(True, agreed)
    if agreed:
        assert client.call(Rollback(), view, ask=True).result["changed"]
    else:
        with pytest.raises(Cancelled):
            client.call(Rollback(), view, ask=True)
    assert [e.plan["number"] for e in view.events if isinstance(e, events.PlanShown)] == [0, 1]


def test_a_worker_that_was_killed_is_a_failure(real):
    real("die")
    with pytest.raises(AptOstreeError, match=r"without an answer \(exit code -9\)") as caught:
        client.call(Rollback(), View())
    assert type(caught.value) is AptOstreeError


def test_a_file_travels_as_a_descriptor(real, monkeypatch, tmp_path):
    real("descriptors")
    monkeypatch.setenv(fake_core.PLACE, str(tmp_path / "place"))
    (tmp_path / "x.deb").write_text("content")
    with (tmp_path / "x.deb").open() as file:
        answer = client.call(Install(files=(OpenFile(file.fileno(), "x.deb"),)), View())
    assert answer.result["text"] == "content"


def test_a_call_that_needs_no_rights(tmp_path):
    treefile = tmp_path / "os.yaml"
    treefile.write_text("ref: test/${arch}\nsuite: trixie\n")
    answer = client.call(ComposeTree(treefile=str(treefile), print_only=True, version="7"), View())
    assert answer.result["treefile"] == {"ref": "test/${arch}", "suite": "trixie", "version": "7"}
    assert not answer.next_boot
