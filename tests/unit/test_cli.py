"""The command line: help is quick, mistakes and failures end in the documented exit codes."""

import importlib
import json
import os
import subprocess
import sys

import click
import pytest

from apt_ostree import __version__, errors
from apt_ostree.cli import main, render

HEAVY = {"gi", "apt", "apt_pkg", "rich", "dasbus", "yaml", "jinja2", "sqlite3", "systemd"}


@click.command()
@click.pass_obj
def boom(raised):
    """Fail as the test wants."""
    if isinstance(raised, int):
        return raised
    raise raised


@pytest.fixture
def run_boom(monkeypatch):
    """Run a command that raises (or returns) what is given; return the exit code."""
    monkeypatch.setitem(main.COMMANDS, "boom", (__name__, "boom", "Fail"))

    def run(outcome):
        monkeypatch.setattr(main.apt_ostree, "context_settings", {"obj": outcome})
        return main.run(["boom"])

    return run


@pytest.mark.parametrize("arguments", [["no-such-command"], ["--no-such-option"]])
def test_mistakes_exit_2(arguments, capsys):
    assert main.run(arguments) == errors.UsageError.exit_code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "--help" in captured.err


@pytest.mark.parametrize(
    ("cls", "code"),
    [
        (errors.AptOstreeError, 1),
        (errors.ExternalFailure, 1),
        (errors.UsageError, 2),
        (errors.Refused, 3),
        (errors.NotAuthorized, 4),
        (errors.Incomplete, 5),
        (errors.Cancelled, 130),
    ],
)
def test_errors_become_exit_codes(run_boom, capsys, cls, code):
    assert run_boom(cls("it failed", details=["because"], hint="try again")) == code
    assert capsys.readouterr().err.splitlines() == ["error: it failed", "  because", "hint: try again"]


def test_interrupt_is_a_cancel(run_boom):
    assert run_boom(click.exceptions.Abort()) == 130


def test_unchanged_has_its_own_code(run_boom):
    assert run_boom(errors.EXIT_UNCHANGED) == 77


def test_error_as_json(capsys):
    code = render.error(errors.Refused("no", details=["a"], hint="b"), as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "event": "error", "error": "Refused", "message": "no", "details": ["a"], "hint": "b",
    }  # fmt: skip
    assert code == 3


def test_version(capsys):
    assert main.run(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_help_lists_every_command_and_imports_nothing_heavy():
    program = (
        "import sys, json; from apt_ostree.cli.main import run; code = run(['--help']);"
        "print(json.dumps([code, sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    *text, last = done.stdout.splitlines()
    code, loaded = json.loads(last)
    assert code == 0
    assert not HEAVY & set(loaded)
    assert set(main.COMMANDS) <= {line.split()[0] for line in text if line.strip()}


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_every_command_is_there(name):
    module, attribute, summary = main.COMMANDS[name]
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.help, "a command's docstring is its help"
    assert 0 < len(summary) < 60
    assert not summary.endswith(".")
