"""The one door to programs: environment, output, failures, time limits."""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from apt_ostree.errors import ExternalFailure
from apt_ostree.system import process


def gone(pid):
    """Whether a process ends within a second (an unreaped one counts as ended)."""
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def test_output_and_input_are_text():
    done = process.run(["sh", "-c", "cat; echo err >&2"], what="copy", stdin="grüße\n")
    assert (done.stdout, done.stderr, done.returncode) == ("grüße\n", "err\n", 0)


def test_bytes_that_are_no_text_do_not_raise():
    assert "\ufffd" in process.run(["printf", r"\377"], what="print").stdout


def test_environment_is_ours(monkeypatch):
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    monkeypatch.setenv("LD_PRELOAD", "/nonexistent")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "17")
    done = process.run(["env"], what="list variables", env={"EXTRA": "1"})
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert seen["LC_ALL"] == "C.UTF-8"
    assert "LD_PRELOAD" not in seen
    assert (seen["SOURCE_DATE_EPOCH"], seen["EXTRA"]) == ("17", "1")


def test_stdin_is_empty_unless_given():
    assert process.run(["cat"], what="read").stdout == ""


def test_missing_program_is_named():
    with pytest.raises(ExternalFailure) as caught:
        process.run(["no-such-program-here"], what="do it")
    assert "do it" in caught.value.message
    assert "no-such-program-here" in caught.value.message
    assert caught.value.hint


def test_failure_has_the_tail_and_the_command():
    with pytest.raises(ExternalFailure) as caught:
        process.run(["sh", "-c", "seq 100 >&2; exit 7"], what="count")
    assert "exit code 7" in caught.value.message
    assert "100" in caught.value.details
    assert "1" not in caught.value.details
    assert not any("sh -c" in line for line in caught.value.details)
    assert caught.value.internals == ("command: sh -c 'seq 100 >&2; exit 7'",)


def test_failure_can_be_an_answer():
    assert process.run(["false"], what="ask", check=False).returncode == 1


def test_death_by_signal_is_named():
    with pytest.raises(ExternalFailure, match="SIGTERM"):
        process.run(["sh", "-c", "kill -TERM $$"], what="live")


def test_a_program_in_a_sandbox_is_named_itself():
    arguments = ["unshare", "--net", "bwrap", "--bind", "/a", "/", "--", "/usr/bin/dpkg", "--", "-i"]
    assert process.describe_exit(subprocess.CompletedProcess(arguments, 2)) == "dpkg ended with exit code 2"


def test_log_takes_both_streams(tmp_path):
    log = tmp_path / "log"
    done = process.run(["sh", "-c", "echo out; echo err >&2"], what="talk", log=log)
    assert sorted(log.read_text().split()) == ["err", "out"]
    assert done.stdout == ""
    with pytest.raises(ExternalFailure) as caught:
        process.run(["sh", "-c", "echo reason; exit 1"], what="talk", log=log)
    assert caught.value.details == ("reason",)
    assert sorted(log.read_text().split()) == ["err", "out", "reason"]


def test_timeout_kills_the_whole_group(tmp_path):
    pidfile = tmp_path / "pid"
    began = time.monotonic()
    with pytest.raises(ExternalFailure, match=r"0\.3 seconds") as caught:
        process.run(
            ["sh", "-c", f"sleep 1000 & echo $! >{pidfile}; echo hm; wait"], what="sleep", timeout=0.3
        )
    assert caught.value.details == ("hm",)
    assert time.monotonic() - began < 5
    assert gone(int(pidfile.read_text()))


def test_cancel_kills_the_whole_group(tmp_path, monkeypatch):
    pidfile = tmp_path / "pid"

    def interrupted(self, *_args, **_kwargs):
        monkeypatch.undo()
        while not (pidfile.exists() and pidfile.read_text().strip()):
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(process.subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        process.run(["sh", "-c", f"sleep 1000 & echo $! >{pidfile}; wait"], what="sleep")
    assert gone(int(pidfile.read_text()))


def test_descriptors_are_passed_only_when_asked():
    read, write = os.pipe()
    try:
        process.run(["sh", "-c", f"echo hello >/dev/fd/{write}"], what="write", pass_fds=(write,))
        assert os.read(read, 10) == b"hello\n"
    finally:
        os.close(read)
        os.close(write)


def test_an_attached_program_runs_as_long_as_the_block(tmp_path):
    pid = tmp_path / "pid"
    with process.attached(["sh", "-c", f"echo $$ >{pid}; exec cat"], patience=10):
        number = int(pid.read_text())
        os.kill(number, 0)
    assert gone(number)


@pytest.mark.parametrize(
    ("command", "seconds"), [(["sh", "-c", "sleep 60"], 1), (["false"], 0.5), (["no-such-program-here"], 0.5)]
)
def test_an_attached_program_that_is_not_ready_delays_only_for_its_patience(command, seconds):
    began = time.monotonic()
    with process.attached(command, patience=0.2):
        pass
    assert time.monotonic() - began < seconds


def test_an_attached_program_ends_if_this_process_is_killed(tmp_path):
    pid = tmp_path / "pid"
    child = os.fork()
    if child == 0:
        with process.attached(["sh", "-c", f"echo $$ >{pid}; exec cat"], patience=10):
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert gone(int(pid.read_text()))


def test_programs_run_at_the_same_time(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # each end waits until the other one is opened
    reader, writer = process.run_at_once(
        [["cat", str(fifo)], ["sh", "-c", f"echo text >{fifo}; echo err >&2; exit 3"]], what="pass a text"
    )
    assert (reader.stdout, reader.returncode) == ("text\n", 0)
    assert (writer.stderr, writer.returncode) == ("err\n", 3)


def test_none_is_left_if_one_cannot_start(tmp_path):
    pidfile = tmp_path / "pid"
    command = f"echo $$ >{pidfile}; exec sleep 1000"
    with pytest.raises(ExternalFailure, match="'no-such' is not installed"):
        process.run_at_once([["sh", "-c", command], ["no-such"]], what="sleep")
    assert not pidfile.exists() or gone(int(pidfile.read_text()))


# --- a program that is watched


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(process, "_BETWEEN_LOOKS", 0.02)


def test_a_watch_sees_what_is_printed_and_leaves_it_whole(often):
    seen = []
    script = "echo one; while ! [ -e $0 ]; do sleep 0.01; done; echo two"

    def look(printed):
        seen.append(printed)
        if printed == "one\n":
            flag.touch()

    with tempfile.TemporaryDirectory() as directory:
        flag = Path(directory, "go-on")
        done = process.run(["sh", "-c", script, flag], what="talk", watch=look)
    assert (done.returncode, done.stdout) == (0, "one\ntwo\n")
    assert "one\n" in seen


def test_what_a_watch_raises_ends_the_program(often, tmp_path):
    pids = tmp_path / "pids"

    def look(_printed):
        if pids.exists() and len(pids.read_text().split()) == 2:
            raise ExternalFailure("enough")

    with pytest.raises(ExternalFailure, match="enough"):
        process.run(["sh", "-c", "sleep 60 & echo $$ $! > $0; wait", pids], what="wait", watch=look)
    assert all(gone(pid) for pid in pids.read_text().split())


def test_a_signal_that_cancels_ends_a_watched_program(tmp_path):
    def cancel(_number, _frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, cancel)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            process.run(
                ["sh", "-c", "echo $$ > $0; exec sleep 60", tmp_path / "pid"],
                what="wait",
                watch=lambda _printed: None,
            )
    finally:
        signal.signal(signal.SIGALRM, before)
    assert gone((tmp_path / "pid").read_text().strip())
