"""Views: text for people, one JSON document or JSON lines for programs, and a copy of the events."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest

from apt_ostree.cli import client, main, render
from apt_ostree.cli.commands import deployments
from apt_ostree.errors import AptOstreeError, Refused, UsageError
from apt_ostree.model import events
from apt_ostree.model.events import Message, PlanShown, Progress, TaskBegin, TaskEnd

PLAN = PlanShown("deployments", {"next": "a", "order": ["a"], "dropped": [], "kept": []})
EVENTS: list[events.Event] = [
    TaskBegin("Looking"),
    Progress("Looking", 1, 2),
    TaskEnd("Looking", "2 found"),
    Message("all is well"),
    Message("not quite", "warning"),
    PLAN,
]
FAILURE = Refused("no", details=["because"], hint="try again", internals=["command: x"])
RESULT = {"changed": True, "commit": "abc"}


def shown(view, capsys) -> tuple[list[str], list[str]]:
    """Show all events; return the lines on stdout and on stderr."""
    for event in EVENTS:
        view.show(event)
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


# --- text


def test_text_is_told_as_it_happens_and_the_plan_is_the_output(capsys):
    out, err = shown(render.TextView(), capsys)
    assert err == ["Looking...", "Looking: 2 found", "all is well", "warning: not quite"]
    assert out  # what the plan looks like is cli.plans' business


def test_quiet_text_is_the_plan_and_warnings(capsys):
    out, err = shown(render.TextView(quiet=True), capsys)
    assert err == ["warning: not quite"]
    assert out


def test_a_terminal_shows_progress_in_place(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    view = render.TextView()
    view.show(Progress("Pulling", 1, 4))
    view.show(Progress("Pulling", 7, 0))  # of nobody knows how many
    view.show(Message("done"))
    err = capsys.readouterr().err
    bar = f"[{'#' * 5}{' ' * 15}]"
    assert err == f"\r\033[KPulling {bar}  25%\r\033[KPulling 7\r\033[Kdone\n"


@pytest.mark.parametrize(
    ("line", "agreed"),
    [
        ("y\n", True), ("YES\n", True), (" yes \n", True),
        ("n\n", False), ("\n", False), ("", False), ("yep\n", False),
    ],
)  # fmt: skip
def test_who_sits_at_a_terminal_is_asked(monkeypatch, capsys, line, agreed):
    stdin = io.StringIO(line)
    monkeypatch.setattr(stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert render.TextView().confirm(PLAN) is agreed
    assert capsys.readouterr() == ("", "Proceed? [y/N] ")


def test_where_nobody_sits_the_answer_is_no(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert render.TextView().confirm(PLAN) is False
    assert "--assumeyes" in capsys.readouterr().err


def test_a_failure_in_text(capsys):
    assert render.TextView(verbose=True).fail(FAILURE) == 3
    assert capsys.readouterr() == ("", "error: no\n  because\n  command: x\nhint: try again\n")


# --- JSON


def test_json_is_one_document(capsys):
    view = render.JsonView()
    out, err = shown(view, capsys)
    assert out == []
    assert err == ["warning: not quite"]
    view.end(RESULT)
    assert json.loads(capsys.readouterr().out) == RESULT


def test_json_is_one_document_also_on_a_failure(capsys):
    view = render.JsonView()
    shown(view, capsys)
    assert view.fail(FAILURE) == 3
    captured = capsys.readouterr()
    assert json.loads(captured.out) == FAILURE.to_json()
    assert captured.err.startswith("error: no\n")


@pytest.mark.parametrize("view", [render.JsonView(), render.EventsView()])
def test_a_program_is_not_asked(view, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert view.confirm(PLAN) is False
    assert not view.is_text


# --- events


def test_events_are_lines_and_the_last_one_is_the_result(capsys):
    view = render.EventsView()
    out, err = shown(view, capsys)
    assert [events.from_wire(json.loads(row)) for row in out] == EVENTS
    assert err == []
    view.end(RESULT)
    assert json.loads(capsys.readouterr().out) == {"event": "result", **RESULT}


def test_events_are_lines_and_the_last_one_is_the_failure(capsys):
    assert render.EventsView().fail(FAILURE) == 3
    captured = capsys.readouterr()
    (line,) = captured.out.splitlines()
    assert json.loads(line) == {"event": "error", **FAILURE.to_json()}
    assert captured.err.startswith("error: no\n")


# --- a copy


@pytest.fixture
def pipe():
    read, write = os.pipe()
    with os.fdopen(read) as reader:
        yield reader, write
        try:
            os.close(write)
        except OSError:
            pass  # the test did


@pytest.mark.parametrize("plain", [render.TextView, render.JsonView])
def test_a_copy_goes_to_the_descriptor_and_the_view_stays_as_it_is(plain, pipe, capsys):
    alone = shown(plain(), capsys)
    reader, write = pipe
    view = render.TeeView(plain(), write)
    assert shown(view, capsys) == alone
    view.end(RESULT)
    view.fail(FAILURE)
    os.close(write)
    rows = [json.loads(row) for row in reader]
    assert [events.from_wire(row) for row in rows[:-2]] == EVENTS
    assert rows[-2:] == [{"event": "result", **RESULT}, {"event": "error", **FAILURE.to_json()}]
    assert view.is_text == plain.is_text


def test_a_copy_asks_in_the_view(pipe, monkeypatch):
    plain = render.TextView()
    monkeypatch.setattr(plain, "confirm", lambda plan: plan is PLAN)
    assert render.TeeView(plain, pipe[1]).confirm(PLAN) is True


def test_a_reader_that_has_seen_enough_does_not_end_us(pipe, capsys):
    reader, write = pipe
    reader.close()
    view = render.TeeView(render.JsonView(), write)
    shown(view, capsys)
    view.end(RESULT)
    assert json.loads(capsys.readouterr().out) == RESULT


# --- the choice


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, render.TextView),
        ({"quiet": True, "verbose": None}, render.TextView),
        ({"as_json": True}, render.JsonView),
        ({"events": True}, render.EventsView),
    ],
)
def test_a_view_is_what_the_options_say(options, kind):
    assert type(render.view(**{"as_json": False, **options})) is kind


def test_json_and_events_exclude_each_other():
    with pytest.raises(UsageError):
        render.view(as_json=True, events=True)


@pytest.mark.parametrize("descriptor", [987654, -1, 2**40])
def test_a_copy_needs_an_open_descriptor(descriptor):
    with pytest.raises(UsageError, match=f"{descriptor} is not open"):
        render.view(as_json=False, progress_fd=descriptor)


def test_a_copy_needs_a_descriptor_for_writing():
    with open("/dev/null") as file, pytest.raises(UsageError, match="not open for writing"):
        render.view(as_json=False, progress_fd=file.fileno())


# --- through the command line


@pytest.fixture
def call(monkeypatch):
    """Have the client show events, and end with a result or a failure."""

    def choose(outcome: AptOstreeError | dict) -> None:
        def call(_request, view, **_how):
            for event in EVENTS:
                view.show(event)
            if isinstance(outcome, AptOstreeError):
                raise outcome
            return client.Answer(outcome, next_boot=False)

        monkeypatch.setattr(client, "call", call)

    return choose


def test_the_command_prints_one_document(call, capsys):
    call(RESULT)
    assert main.run(["upgrade", "--json"]) == 0
    assert json.loads(capsys.readouterr().out).items() >= RESULT.items()


def test_the_command_prints_one_document_on_a_failure(call, capsys):
    call(FAILURE)
    assert main.run(["upgrade", "--json"]) == 3
    assert json.loads(capsys.readouterr().out) == FAILURE.to_json()


@pytest.mark.parametrize(("outcome", "last"), [(RESULT, "result"), (FAILURE, "error")])
def test_the_command_prints_lines(call, capsys, outcome, last):
    call(outcome)
    main.run(["upgrade", "--events"])
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert [events.from_wire(row) for row in rows[:-1]] == EVENTS
    assert rows[-1]["event"] == last


@pytest.mark.parametrize(("outcome", "last"), [(RESULT, "result"), (FAILURE, "error")])
def test_the_command_copies_to_a_descriptor(call, pipe, capsys, outcome, last):
    call(outcome)
    reader, write = pipe
    main.run(["upgrade", "--json", f"--progress-fd={write}"])
    os.close(write)
    assert [json.loads(row)["event"] for row in reader][-1] == last
    json.loads(capsys.readouterr().out)


def test_a_cleanup_names_what_keeps_its_space(capsys):
    live = {"generation": 4, "reason": "it is live", "pid": None, "command": "", "unit": ""}
    shown = {
        "generation": 3,
        "reason": "nginx shows it",
        "pid": 8,
        "command": "nginx",
        "unit": "nginx.service",
    }
    deployments._show_freed({"freed_bytes": 4000, "held": [live, shown]})
    assert capsys.readouterr().out.splitlines() == [
        "Freed 4.0 kB.",
        "Generation 4 keeps its space: it is live.",
        "Generation 3 keeps its space: nginx shows it; restart nginx.service to free it.",
    ]
