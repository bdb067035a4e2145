"""Records of operations on the disk, and what a request records of itself."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import resource
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from apt_ostree.cli import main
from apt_ostree.core import history as history_verbs
from apt_ostree.core import operation as operations
from apt_ostree.core.operation import Allowance, Operation
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Cancelled, ExternalFailure, Incomplete, NotAuthorized, Refused, UsageError
from apt_ostree.model import audit
from apt_ostree.model.audit import Fault, Kind, Record
from apt_ostree.model.caller import Caller
from apt_ostree.model.events import PlanShown
from apt_ostree.model.history import Intent, Outcome, merged
from apt_ostree.model.queries import History, ShowOperation, VerifyHistory
from apt_ostree.model.request import Request
from apt_ostree.model.requests.archives import RefreshMd
from apt_ostree.model.requests.compose import ComposeSign
from apt_ostree.model.requests.deployments import Cleanup
from apt_ostree.model.requests.live import ApplyLive, Moment, Recover
from apt_ostree.model.requests.packages import Install
from apt_ostree.model.result import Result
from apt_ostree.model.settings import Settings
from apt_ostree.system import auditlog, caller, journal, running, statedb
from tests.unit.repos import System

ROOT = Caller(0, None, "root", "")
Told = list[tuple[str, Mapping[str, str]]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What the systemd journal is told: message and fields."""
    entries: Told = []

    def send(lines: Any, *, priority: int = 6, fields: Mapping[str, str] | None = None) -> None:
        assert 0 <= priority <= 6
        entries.extend((line, fields or {}) for line in lines)

    monkeypatch.setattr(journal, "send", send)
    monkeypatch.setattr(journal, "entries", lambda _ids, names: [
        tuple(fields.get(name, "") for name in names) for _line, fields in entries
    ])  # fmt: skip
    return entries


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Told) -> Path:
    """The directory of the state database; the system was booted from a deployment, and the user is root."""
    assert told == []
    monkeypatch.setattr(statedb, "DIRECTORY", tmp_path)
    monkeypatch.setattr(statedb, "MARKER", tmp_path / "live")
    monkeypatch.setattr(running, "booted_on_ostree", lambda: True)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return tmp_path


def record(kind: Kind = Kind.BEGAN, **further: Any) -> Record:
    return Record(kind=kind, caller=ROOT, verb="install", title="install", **further)


def problems() -> list[Fault]:
    found = history_verbs.verify(VerifyHistory())
    assert found["ok"] == (not found["problems"])
    return [Fault(problem["fault"]) for problem in found["problems"]]


@contextlib.contextmanager
def database(place: Path) -> Iterator[sqlite3.Connection]:
    """Open the records as a program of another's would."""
    with contextlib.closing(sqlite3.connect(place / "audit/records.db")) as connection, connection:
        yield connection


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow: any write of SQLite fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def in_a_process_that_ends(number: int) -> None:
    """Begin an operation in a process that is then killed."""
    child = os.fork()
    if child == 0:
        code = 0 if auditlog.begin(record()) == number else 1
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


# --- records


def test_an_operation_has_a_begin_and_an_end(place, told):
    number = auditlog.begin(record())
    assert number == 1
    (begun,), working = auditlog.operations()
    assert (begun.kind, begun.operation, working) == (Kind.BEGAN, 1, {1})
    assert begun.boot_id == running.boot_id() and begun.time > 1_700_000_000_000_000
    auditlog.add(record(Kind.DONE, operation=1))
    (_, ended), working = auditlog.operations()
    assert (ended.kind, ended.operation, working) == (Kind.DONE, 1, set())
    assert [fields["APT_OSTREE_RECORD"] for _line, fields in told] == ["1", "2"]
    assert problems() == []
    assert (place / "audit").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (place / "audit").iterdir()} == {0o600}


def test_what_was_killed_is_closed_by_the_next_command(place):
    in_a_process_that_ends(1)
    (entry,) = history_verbs.history(History())
    assert (entry.outcome, entry.ended) == (Outcome.INTERRUPTED, None)
    assert auditlog.begin(record()) == 2
    auditlog.add(record(Kind.DONE, operation=2, changed=True))
    first, second = history_verbs.history(History())
    assert (first.outcome, second.outcome) == (Outcome.INTERRUPTED, Outcome.DONE)
    assert first.ended and first.message == "the command did not end"
    assert problems() == []


def test_numbers_follow_those_of_the_state_database(place):
    with statedb.opened() as state:
        assert state.log(Intent("apply-live", "root", "a", "b")) == 1
    assert auditlog.begin(record()) == 2
    with statedb.opened(lambda: 2) as state:
        assert state.log(Intent("install", "root", "a", "b")) == 2
    with statedb.opened(lambda: 2) as state:
        assert state.log(Intent("install", "root", "a", "b")) == 3
    auditlog.add(record(Kind.DONE, operation=2))
    auditlog.add(record(Kind.DENIED), numbered=True)
    assert [entry.number for entry in history_verbs.history(History())] == [1, 2, 3, 4]
    assert [entry.number for entry in history_verbs.history(History(most=2))] == [3, 4]
    assert auditlog.highest_number() == 4


def test_a_head_that_was_lost_shows_until_the_next_record(place):
    auditlog.begin(record())
    (place / "audit/head").unlink()
    assert problems() == [Fault.NO_HEAD]
    auditlog.add(record(Kind.DONE, operation=1))
    assert problems() == []


def test_a_crash_before_the_head_was_written_is_no_tampering(place):
    auditlog.begin(record())
    before = (place / "audit/head").read_text()
    auditlog.add(record(Kind.DONE, operation=1))
    (place / "audit/head").write_text(before)
    assert problems() == []
    assert auditlog.begin(record()) == 2
    assert problems() == []


def test_a_changed_record_shows(place):
    auditlog.begin(record())
    auditlog.add(record(Kind.DONE, operation=1))
    with database(place) as db:
        db.execute("UPDATE record SET text = replace(text, 'root', 'evil') WHERE number = 1")
    assert problems() == [Fault.CHANGED]


def test_records_that_were_removed_from_the_end_are_missed_for_ever(place, told):
    for _ in range(3):
        auditlog.begin(record())
    told.clear()
    with database(place) as db:
        db.execute("DELETE FROM record WHERE number > 1")
    assert problems() == [Fault.TRUNCATED]
    auditlog.begin(record())
    assert problems() == [Fault.REMOVED]


def test_a_database_that_was_removed_is_missed_for_ever(place):
    auditlog.begin(record())
    (place / "audit/records.db").unlink()
    assert problems() == [Fault.TRUNCATED]
    auditlog.begin(record())
    assert problems() == [Fault.REMOVED]


def test_without_any_record_there_is_nothing_wrong(place):
    assert not (place / "audit").exists()
    assert problems() == [] and history_verbs.history(History()) == ()
    auditlog.prune(1, 1, record())
    assert not (place / "audit").exists()


def test_records_are_pruned_by_age_and_by_number(place, told):
    long_ago = 1_000_000_000_000_000
    for number in range(30):
        auditlog.add(record(Kind.DENIED, time=long_ago if number < 15 else 0), numbered=True)
    auditlog.prune(3600, 1000, record())
    found = history_verbs.verify(VerifyHistory())
    assert (found["first"], found["last"], found["problems"]) == (16, 31, [])
    assert told[-1][1]["MESSAGE_ID"] == audit.MESSAGE_IDS[Kind.PRUNED]
    auditlog.prune(3600, 12, record())
    found = history_verbs.verify(VerifyHistory())
    assert (found["first"], found["last"], found["ok"]) == (21, 32, True)
    auditlog.prune(3600, 12, record())  # nothing is due
    assert history_verbs.verify(VerifyHistory())["last"] == 32
    auditlog.prune(3600, 1, record())  # some stay in any case
    found = history_verbs.verify(VerifyHistory())
    assert (found["records"], found["ok"]) == (11, True)
    with database(place) as db:
        db.execute("DELETE FROM record WHERE number = (SELECT min(number) FROM record)")
    assert problems() == [Fault.REMOVED]


def test_what_cannot_be_written_is_in_the_journal(place, told):
    auditlog.begin(record())
    with full_disk(), pytest.raises(ExternalFailure):
        auditlog.add(record(Kind.DENIED), numbered=True)
    assert told[-1][1]["MESSAGE_ID"] == audit.MESSAGE_IDS[Kind.DENIED]
    assert "APT_OSTREE_RECORD" not in told[-1][1]
    assert problems() == []


# --- what a request records of itself


def kinds() -> list[Kind]:
    return [one.kind for one in auditlog.operations()[0]]


def carry_out(request: Request, warnings: list[str] | None = None) -> Operation:
    made = Operation(request, [].append if warnings is None else warnings.append)
    made.before, made.after = "a" * 64, "b" * 64
    made.begin()
    return made


def test_what_is_asked_for_is_recorded(place):
    made = carry_out(Install(packages=("nginx",)))
    made.note(PlanShown("transaction", {"install": [{"name": "nginx", "old": "", "new": "1"}]}))
    made.event(Kind.SECURITY, "careful", commit="c")
    made.end(Result(changed=True, next_boot=True), Settings())
    entry = history_verbs.show_operation(ShowOperation(number=1))
    assert (entry.outcome, entry.command, entry.arguments) == (
        Outcome.STAGED, "install", {"packages": ["nginx"]},
    )  # fmt: skip
    assert entry.packages == {"added": ["nginx 1"]} and entry.exit_code == 0
    assert (entry.source, entry.target) == (entry.before, entry.after) == ("a" * 64, "b" * 64)
    assert [event["message"] for event in entry.events] == ["careful"] and entry.events[0]["commit"] == "c"
    assert entry.who["uid"] == os.getuid() and entry.who["via"] == "direct"
    assert len(entry.request) == len(entry.digest) == 64


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Refused("no", details=["why"]), Outcome.REFUSED),
        (UsageError("no"), Outcome.REFUSED),
        (Cancelled("no"), Outcome.CANCELLED),
        (NotAuthorized("no"), Outcome.DENIED),
        (ExternalFailure("no"), Outcome.FAILED),
        (Incomplete("no"), Outcome.FAILED),
    ],
)
def test_how_it_fails_is_recorded(place, error, outcome):
    carry_out(Cleanup()).fail(error, Settings())
    (entry,) = history_verbs.history(History())
    assert (entry.outcome, entry.message, entry.exit_code) == (outcome, "no", error.exit_code)
    assert entry.reasons == error.details


def test_what_never_opens_the_system_is_recorded_at_its_end(place):
    made = Operation(RefreshMd(), [].append)
    made.end(Result(changed=False), Settings())
    (entry,) = history_verbs.history(History())
    assert (entry.number, entry.outcome) == (1, Outcome.UNCHANGED)


@pytest.mark.parametrize("asked", [ApplyLive(dry_run=True), ComposeSign(repo="r", revs=("r",), keys=("k",))])
def test_what_changes_nothing_is_not_recorded(place, asked):
    made = carry_out(asked)
    made.event(Kind.SECURITY, "x")
    made.end(Result(changed=True), Settings())
    assert made.number_for_history() == 0 and not (place / "audit").exists()


def test_what_systemd_asks_for_is_recorded_when_there_is_something_to_tell(place):
    made = carry_out(Recover(at=Moment.BOOT))
    made.end(Result(changed=True), Settings())
    assert not (place / "audit").exists()
    made = carry_out(Recover(at=Moment.DEADLINE))
    made.event(Kind.UNDONE, "generation 3 was undone", undone="3")
    made.end(Result(changed=True), Settings())
    assert kinds() == [Kind.BEGAN, Kind.UNDONE, Kind.DONE]
    carry_out(Recover(at=Moment.SHUTDOWN)).fail(ExternalFailure("no"), Settings())
    assert kinds()[3:] == [Kind.FAILED]
    made = carry_out(Recover(at=Moment.BOOT))
    assert made.number_for_history() == 3


def test_on_another_system_nothing_is_recorded(place, monkeypatch):
    monkeypatch.setattr(running, "booted_on_ostree", lambda: False)
    carry_out(Cleanup()).fail(Refused("no"), Settings())
    operations.note_refusal(ROOT, Cleanup(), NotAuthorized("no"))
    assert not (place / "audit").exists()


def test_a_full_disk_hinders_what_needs_space_and_nothing_else(place, told):
    auditlog.begin(record())
    warnings: list[str] = []
    with full_disk():
        with pytest.raises(ExternalFailure, match="nothing was begun"):
            carry_out(Install(packages=("x",)))
        made = carry_out(Cleanup(), warnings)
        made.event(Kind.SECURITY, "x")
        made.end(Result(changed=True), Settings())
    assert warnings and kinds() == [Kind.BEGAN]
    assert [fields["APT_OSTREE_KIND"] for _line, fields in told[-2:]] == ["security", "done"]
    assert {fields["APT_OSTREE_VERB"] for _line, fields in told[-2:]} == {"cleanup"}


def test_a_damaged_database_hinders_until_it_is_moved_away(place):
    carry_out(Install(packages=("x",))).end(Result(changed=True), Settings())
    file = place / "audit/records.db"
    file.write_bytes(b"x" * 8192)
    with pytest.raises(ExternalFailure, match="nothing was begun"):
        carry_out(Install(packages=("x",)))
    file.rename(place / "records.damaged")
    carry_out(Install(packages=("x",))).end(Result(changed=True), Settings())
    assert problems() == [Fault.REMOVED]


def test_text_that_is_no_json_hinders_nothing(place):
    auditlog.begin(record())
    auditlog.add(record(Kind.DONE, operation=1))
    with database(place) as db:
        db.execute("UPDATE record SET text = '{' WHERE number = 1")
    carry_out(Install(packages=("x",))).end(Result(changed=True), Settings())
    auditlog.prune(1, 1, record())
    assert problems() == [Fault.CHANGED] and len(history_verbs.history(History())) == 2


def test_what_concerns_trust_is_a_security_event(place):
    carry_out(Cleanup()).fail(Refused("no valid signature", concerns_trust=True), Settings())
    (entry,) = history_verbs.history(History())
    assert [(event["kind"], event["message"]) for event in entry.events] == [
        ("security", "no valid signature")
    ]


def test_names_that_are_no_unicode_are_recorded(place):
    name = os.fsdecode(b"/srv/\xff\n.deb")
    carry_out(Install(packages=("ü", name))).end(Result(changed=True), Settings())
    (entry,) = history_verbs.history(History())
    assert entry.arguments == {"packages": ["ü", name]} and problems() == []


def test_what_is_cancelled_in_the_queue_is_recorded(place):
    operations.note_refusal(ROOT, Install(packages=("x",)), Cancelled("before"))
    (entry,) = history_verbs.history(History())
    assert (entry.outcome, entry.arguments) == (Outcome.CANCELLED, {"packages": ["x"]})


def test_a_verb_gives_its_number_to_its_generation(system: System, monkeypatch, told):
    monkeypatch.setattr(running, "booted_on_ostree", lambda: True)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    auditlog.add(record(Kind.DENIED), numbered=True)
    made = Operation(ApplyLive(), [].append)
    tx = Transaction(system.events.append, "test", operation=made)
    with tx.changing("test"):
        number = tx.records.log(Intent("test", "root", "a", "b"))
        tx.record(Kind.SECURITY, "x")
    made.end(Result(changed=True), Settings())
    assert number == made.number == 2
    assert made.before == made.after == system.one
    entry = history_verbs.show_operation(ShowOperation(number=2))
    assert (entry.source, entry.target, entry.command) == ("a", "b", "apply-live")
    assert len(entry.events) == 1


def test_denials_of_one_user_do_not_fill_the_history(place, told):
    caller = Caller(4711, None, "eve", "")
    for _ in range(50):
        operations.note_refusal(caller, Install(packages=("x",)), NotAuthorized("no"))
    operations.note_refusal(ROOT, "cancel 'install'", NotAuthorized("no"))
    entries = history_verbs.history(History())
    assert 20 <= len(entries) <= 22 and entries[-1].verb == "cancel 'install'"
    assert len(told) == 51 and problems() == []


def test_the_command_line_tells(place, capsys):
    carry_out(Install(packages=("nginx",))).fail(Refused("no", details=["why"]), Settings())
    assert main.run(["history"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-3:] == ["install", "nginx", "refused"]
    assert main.run(["history", "show", "1"]) == 0
    told = capsys.readouterr().out
    assert f"uid {os.getuid()}" in told and '{"packages": ["nginx"]}' in told and "why" in told
    assert main.run(["history", "verify"]) == 0
    with database(place) as db:
        db.execute("DELETE FROM record WHERE number = 1")
    assert main.run(["history", "verify"]) == 1
    assert "removed" in capsys.readouterr().out
    assert main.run(["history", "verify", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_from_which_terminal():
    child, terminal = pty.fork()
    if child == 0:
        os.write(1, b"ready")
        os.read(0, 1)
        os._exit(0)
    try:
        os.read(terminal, 1)
        name = os.readlink(f"/proc/{child}/fd/0")
        assert f"/dev/{caller.caller_of(os.getuid(), child).tty}" == name
    finally:
        os.write(terminal, b"x\n")
        os.waitpid(child, 0)
        os.close(terminal)


def test_an_allowance_comes_back():
    allowance = Allowance(2, 10.0)
    assert [allowance.may(1, 0.0) for _ in range(3)] == [True, True, False]
    assert allowance.may(2, 0.0)
    assert not allowance.may(1, 4.0) and allowance.may(1, 5.0) and not allowance.may(1, 5.0)
    assert [allowance.may(1, 100.0) for _ in range(3)] == [True, True, False]


def test_a_row_of_another_boot_is_an_entry_of_its_own(place):
    with statedb.opened() as state:
        state.log(Intent("apply-live", "root", "a", "b"))
        rows = state.history()
    records = [record(Kind.DONE, operation=1, boot_id="another", changed=True)]
    assert [entry.boot_id for entry in merged(rows, records, ())] == ["another", rows[0].boot_id]
