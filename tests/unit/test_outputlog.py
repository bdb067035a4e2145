"""The output of a build: kept in files, few of them, without ever failing the build."""

import os
import stat

import pytest

from apt_ostree.errors import Cancelled, ExternalFailure
from apt_ostree.model.package_plan import PackagePlan, Step
from apt_ostree.system import journal, outputlog


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setattr(outputlog, "DIRECTORY", tmp_path / "log")
    return tmp_path / "log"


@pytest.fixture
def sent(monkeypatch):
    """What was sent to the journal."""
    entries = []
    monkeypatch.setattr(journal, "send", lambda lines, **fields: entries.append((list(lines), fields)))
    return entries


@pytest.fixture
def output(tmp_path):
    path = tmp_path / "output.log"
    path.write_bytes(b"--- dpkg\nUnpacking \xff\n")
    return path


def logs(directory):
    return sorted(directory.glob("*.log"))


def test_the_whole_output_is_kept_in_a_file_and_in_the_journal(directory, output, sent):
    reports = []
    with outputlog.kept(reports.append, output, "packages", ["install: a 1"]):
        pass
    (place,) = logs(directory)
    assert place.name.endswith("Z-packages.log")
    first, *rest = place.read_bytes().splitlines()
    assert first.endswith(b" UTC")
    assert rest == [b"install: a 1", b"--- dpkg", b"Unpacking \xff"]
    assert sent == [
        (["install: a 1", "--- dpkg", "Unpacking \ufffd"], {"fields": {"APT_OSTREE_LOG": str(place)}})
    ]
    assert reports == []


def test_an_error_tells_where_the_output_is(directory, output, sent):
    with pytest.raises(ExternalFailure) as caught, outputlog.kept(print, output, "packages"):
        raise ExternalFailure("no", hint="do it")
    (place,) = logs(directory)
    assert caught.value.hint == f"do it; the whole output is in {place}"
    with pytest.raises(ExternalFailure) as caught, outputlog.kept(print, output, "packages"):
        raise ExternalFailure("no")
    assert caught.value.hint.startswith("the whole output is in ")
    assert caught.value.hint.endswith(".log")
    assert len(logs(directory)) == 2


def test_a_cancel_keeps_the_output_and_its_words(directory, output, sent):
    with pytest.raises(Cancelled) as caught, outputlog.kept(print, output, "packages"):
        raise Cancelled("cancelled")
    assert caught.value.hint is None
    assert len(logs(directory)) == 1


def test_nothing_printed_nothing_kept(directory, tmp_path, sent):
    with pytest.raises(ExternalFailure) as caught, outputlog.kept(print, tmp_path / "none", "packages"):
        raise ExternalFailure("no")
    assert (caught.value.hint, directory.exists(), sent) == (None, False, [])


def test_a_log_that_cannot_be_written_is_a_warning(directory, output, sent):
    directory.write_text("a file\n")
    reports = []
    with outputlog.kept(reports.append, output, "packages"):
        pass
    assert [report.level for report in reports] == ["warning"]
    assert str(directory) in reports[0].text
    assert sent[0][1] == {"fields": None}


def test_the_output_of_a_failure_survives_elsewhere(directory, output, sent, tmp_path, monkeypatch):
    directory.write_text("a file\n")
    monkeypatch.setattr(outputlog.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ExternalFailure) as caught, outputlog.kept([].append, output, "compose"):
        raise ExternalFailure("no")
    (place,) = tmp_path.glob("apt-ostree-*-compose.log")
    assert caught.value.hint == f"the whole output is in {place}"
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def make_logs(directory, *sizes):
    directory.mkdir()
    for age, size in enumerate(sizes):
        path = directory / f"{age}.log"
        with path.open("wb") as stream:
            stream.truncate(size)
        os.utime(path, (1000 - age, 1000 - age))
    return directory / "0.log"


def test_the_newest_twenty_logs_stay(directory):
    newest = make_logs(directory, *[10] * 25)
    outputlog.remove_old(directory, keep=newest)
    assert {path.name for path in logs(directory)} == {f"{age}.log" for age in range(20)}


def test_logs_are_20_mb_together(directory):
    newest = make_logs(directory, 9_000_000, 9_000_000, 9_000_000, 1)
    outputlog.remove_old(directory, keep=newest)
    assert [path.name for path in logs(directory)] == ["0.log", "1.log"]


def test_the_log_just_written_stays_whatever_its_size_and_time(directory):
    make_logs(directory, 30_000_000, 30_000_000)
    outputlog.remove_old(directory, keep=directory / "1.log")
    assert [path.name for path in logs(directory)] == ["1.log"]


def test_other_files_are_left_alone(directory):
    newest = make_logs(directory, *[10] * 25)
    (directory / "notes").touch()
    outputlog.remove_old(directory, keep=newest)
    assert (directory / "notes").exists()


def test_a_transaction_in_lines():
    steps = (Step("a", "all", new="1"), Step("b", "all", new="2"))
    transaction = PackagePlan(install=steps, remove=(Step("c", "all", old="3"),))
    assert transaction.summary() == ["install: a 1, b 2", "remove: c 3"]
