"""The command line: help is quick, mistakes and failures end in the documented exit codes."""

import importlib
import json
import os
import shlex
import subprocess
import sys

import click
import pytest

from apt_ostree import __version__, errors, program
from apt_ostree.cli import client, main, options, render

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


@pytest.mark.parametrize(
    ("words", "packages", "policy"),
    [
        (["-A", "--restart-services", "nginx"], ["nginx"], "needed"),
        (["-A", "nginx", "--restart-services"], ["nginx"], "needed"),
        (["-A", "--restart-services", "all", "nginx"], ["nginx"], "all"),
        (["-A", "--restart-services=none", "nginx"], ["nginx"], "none"),
        (["-A", "--restart-services", "--", "nginx"], ["nginx"], "needed"),
    ],
)
def test_restart_services_takes_no_package_for_its_value(monkeypatch, words, packages, policy):

    sent = []

    def call(request, _view, **_how):
        sent.append(request)
        return client.Answer({"changed": True}, next_boot=False)

    monkeypatch.setattr(client, "call", call)
    assert main.run(["install", *words]) == 0
    assert (list(sent[0].packages), sent[0].deploy.live.restart_services) == (packages, policy)


def test_error_as_json(capsys):
    code = render.error(errors.Refused("no", details=["a"], hint="b", internals=["c"]), as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "error": "Refused", "message": "no", "details": ["a"], "hint": "b",
        "internals": ["c"], "reasons": [],
    }  # fmt: skip
    assert code == 3


@pytest.mark.parametrize(
    ("verbose", "shown"),
    [(True, {"command: x"}), (False, {"(more with -v)"}), (None, set())],
)
def test_internals_of_an_error_are_shown_on_request(verbose, shown, capsys):
    render.error(errors.ExternalFailure("no", details=["a"], internals=["command: x"]), verbose=verbose)
    lines = {line.strip() for line in capsys.readouterr().err.splitlines()}
    assert lines == {"error: no", "a"} | shown


def test_an_error_without_internals_promises_no_more(capsys):
    render.error(errors.ExternalFailure("no"))
    assert capsys.readouterr().err == "error: no\n"


@pytest.mark.parametrize("arguments", [["status", "--json", "-J", "$"], ["history", "show", "--json", "x"]])
def test_a_mistake_is_one_json_document_too(arguments, capsys):
    assert main.run(arguments) == 2
    assert json.loads(capsys.readouterr().out)["error"] == "UsageError"


@pytest.mark.parametrize("module", ["apt_ostree.model.requests.packages", "apt_ostree.model.update"])
def test_status_does_not_wait_for_what_it_mostly_has_no_use_for(module):
    modules = "apt_ostree.cli.commands.status, apt_ostree.core.status"
    program = f"import {modules}, sys; print({module!r} in sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_version(capsys):
    assert main.run(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def run_alone(arguments, **env):
    """Run a command line in a Python of its own; return exit code, output, and the modules it loaded."""
    program = (
        "import sys, atexit; from apt_ostree.cli.main import run;"
        "atexit.register(lambda: print('loaded:', *sorted({name.split('.')[0] for name in sys.modules})));"
        f"sys.exit(run({arguments!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    out, _, loaded = done.stdout.partition("loaded: ")
    return done.returncode, out, set(loaded.split())


def test_help_lists_every_command_and_imports_nothing_heavy():
    code, out, loaded = run_alone(["--help"])
    assert code == 0
    assert not HEAVY & loaded
    assert set(main.COMMANDS) <= {line.split()[0] for line in out.splitlines() if line.strip()}


def test_completion_lists_every_command_and_imports_nothing_heavy():
    request = {"_APT_OSTREE_COMPLETE": "bash_complete", "COMP_WORDS": "apt-ostree ", "COMP_CWORD": "1"}
    code, out, loaded = run_alone([], **request)
    assert code == 0
    assert not HEAVY & loaded
    assert {line.partition(",")[2] for line in out.splitlines()} == set(main.COMMANDS)


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_every_command_is_there(name):
    module, attribute, summary = main.COMMANDS[name]
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.help, "a command's docstring is its help"
    assert 0 < len(summary) < 60
    assert not summary.endswith(".")


@pytest.mark.parametrize(("alias", "name"), sorted(main.ALIASES.items()))
def test_rpm_ostree_names_work_too(alias, name):
    context = click.Context(main.apt_ostree)
    command = main.apt_ostree.get_command(context, alias)
    assert command is main.apt_ostree.get_command(context, name)
    assert command is not None
    assert alias not in main.apt_ostree.list_commands(context)


@pytest.mark.parametrize(
    ("words", "answer", "text"),
    [
        (["upgrade"], client.Answer({"changed": False}, next_boot=False), "No upgrade available."),
        (
            ["uninstall", "--allow-inactive", "--idempotent", "--unchanged-exit-77", "x"],
            client.Answer({"changed": True}, next_boot=True),
            'Changes queued for next boot. Run "systemctl reboot" to start a reboot',
        ),
    ],
)
def test_programs_find_what_rpm_ostree_prints(monkeypatch, capsys, words, answer, text):
    monkeypatch.setattr(client, "call", lambda *_request, **_how: answer)
    assert main.run(words) == 0
    assert text in capsys.readouterr().out.splitlines()


def test_a_reboot_that_is_refused_is_an_error(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(client, "call", lambda *_, **__: client.Answer({"changed": True}, next_boot=True))
    script = tmp_path / "systemctl"
    script.write_text("#!/bin/sh\necho it is inhibited by x >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main.run(["install", "-r", "x"]) == 1
    assert "it is inhibited by x" in capsys.readouterr().err


def test_old_names_of_options_are_accepted(monkeypatch):
    seen = []

    def call(request, _view, **_how):
        seen.append(request)
        return client.Answer({"changed": False}, next_boot=False)

    monkeypatch.setattr(client, "call", call)
    assert main.run(["upgrade", "--upgrade-unchanged-exit-77"]) == 77
    assert main.run(["upgrade", "--check-diff"]) == 77
    assert [request.check for request in seen] == [False, True]


def test_a_quiet_search_prints_no_warnings(monkeypatch, capsys):
    monkeypatch.setattr(options, "answer", lambda _query: {"warnings": ["old lists"], "matches": []})
    assert main.run(["search", "x"]) == 0
    assert "old lists" in capsys.readouterr().err
    assert main.run(["search", "-q", "x"]) == 0
    assert "old lists" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["apply-live", "livefs"])
def test_apply_live_is_found_where_rpm_ostree_has_it(capsys, name):
    assert main.run(["ex", name, "--help"]) == 0
    assert "--target" in capsys.readouterr().out


@pytest.mark.parametrize(("mistyped", "meant"), [("statsu", "status"), ("upgrde", "upgrade")])
def test_a_mistyped_command_gets_a_proposal(mistyped, meant, capsys):
    assert main.run([mistyped]) == errors.UsageError.exit_code
    assert f"did you mean '{meant}'?" in capsys.readouterr().err


def test_options_of_a_deployment_that_exclude_each_other(monkeypatch):
    monkeypatch.setattr(client, "call", lambda *_: pytest.fail("the request was sent"))
    for words in (["-A", "-r"], ["-C", "--download-only"], ["-r", "--lock-finalization"]):
        assert main.run(["upgrade", *words]) == errors.UsageError.exit_code


@pytest.mark.parametrize("owner", ["0:99999999999", "4294967295:0", "no-such-user", "0:no-such-group"])
def test_an_owner_that_cannot_be_is_a_mistake(monkeypatch, capsys, owner):

    monkeypatch.setattr(client, "call", lambda *_: pytest.fail("the request was sent"))
    words = ["usroverlay", "--add=/usr/x", "--from=/dev/null", f"--owner={owner}"]
    assert main.run(words) == errors.UsageError.exit_code
    assert owner in capsys.readouterr().err


# --- one document, or one stream


def test_a_failure_after_the_verb_is_the_only_document(monkeypatch, capsys):
    result = {"changed": True, "commit": "c" * 64, "ref": "os"}
    monkeypatch.setattr(client, "call", lambda *_args, **_options: client.Answer(result, next_boot=False))
    code = main.run(["compose", "tree", "os.yaml", "--json", "--write-commitid-to=/nonexistent/directory/id"])
    assert code == 1
    failure = json.loads(capsys.readouterr().out)
    assert failure["error"] == "ExternalFailure" and "/nonexistent/directory/id" in failure["message"]


@pytest.mark.parametrize(
    ("words", "changed", "touched"),
    [
        (["--dry-run"], True, True),
        (["--dry-run"], False, False),
        (["--download-only-rpms", "--cachedir=c"], True, True),
        ([], False, False),
    ],
)
def test_a_file_is_touched_if_there_is_or_would_be_a_commit(monkeypatch, tmp_path, words, changed, touched):
    result = {"changed": changed, "commit": None, "ref": "os", "packages": []}
    monkeypatch.setattr(client, "call", lambda *_args, **_options: client.Answer(result, next_boot=False))
    files = (f"--touch-if-changed={tmp_path}/touched", f"--write-commitid-to={tmp_path}/id")
    code = main.run(["compose", "tree", "os.yaml", "--unchanged-exit-77", *files, *words])
    assert code == (0 if changed else 77)
    assert [path.name for path in tmp_path.iterdir()] == (["touched"] if touched else [])


@pytest.mark.parametrize(
    "words",
    [
        ["tree", "x", "--no-parent", "--parent=y"],
        ["commit", "x", "root", "--no-parent", "--parent=y"],
        ["tree", "x", "--cache-only", "--download-only"],
        ["install", "x", "dest", "--dry-run", "--download-only-rpms"],
    ],
)
def test_options_of_a_compose_that_exclude_each_other(monkeypatch, words):
    monkeypatch.setattr(client, "call", lambda *_: pytest.fail("the request was sent"))
    assert main.run(["compose", *words]) == errors.UsageError.exit_code


def test_a_mistake_ends_the_stream_of_events(capsys):
    assert main.run(["install", "./nothing.deb", "--events"]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["event"] == "error"


@pytest.mark.parametrize(
    ("argv", "own"),
    [
        (["install", "vim", "--json"], ["install", "vim", "--json"]),
        (["run", "-A", "program", "--json"], ["run", "-A"]),
        (["run", "--json", "program"], ["run", "--json"]),
        (["uninstall", "--", "--json"], ["uninstall"]),
    ],
)
def test_options_of_a_program_are_not_ours(argv, own):
    assert main._own_options(argv) == own


@pytest.mark.parametrize(
    ("argv", "read"),
    [
        (["-q", "--json", "upgrade", "-C"], ["upgrade", "-q", "--json", "-C"]),
        (["-A", "run", "program", "--json"], ["run", "-A", "program", "--json"]),
        (["--version", "upgrade"], ["--version", "upgrade"]),
        (["-h", "upgrade"], ["-h", "upgrade"]),
        (["--", "-q", "upgrade"], ["--", "-q", "upgrade"]),
        (["--no-such-option"], ["--no-such-option"]),
        ([], []),
    ],
)
def test_options_before_the_verb_are_the_verbs(argv, read):
    assert main._verb_first(argv) == read


def test_options_may_stand_before_the_verb(monkeypatch, capsys):
    def call(_request, view, **_how):
        assert view.is_text is False
        return client.Answer({"changed": False}, next_boot=False)

    monkeypatch.setattr(client, "call", call)
    assert main.run(["-q", "--json", "upgrade"]) == 0
    assert json.loads(capsys.readouterr().out) == {"changed": False}
    assert main.run(["--no-such-option", "upgrade"]) == 2


@pytest.mark.parametrize("argv", [["--json", "show", "3"], ["show", "--json", "3"]])
def test_json_of_history_may_come_before_the_subcommand(monkeypatch, capsys, argv):
    monkeypatch.setattr(options, "answer_json", lambda _query: {"number": 3})
    assert main.run(["history", *argv]) == 0
    assert json.loads(capsys.readouterr().out) == {"number": 3}


# --- kargs


@pytest.fixture
def sent(monkeypatch):
    """Return the requests that were sent; each changes something that the next boot does not start."""
    requests = []

    def call(request, _view, **_how):
        requests.append(request)
        return client.Answer({"changed": True}, next_boot=False)

    monkeypatch.setattr(client, "call", call)
    return requests


def test_kargs_can_lock_the_deployment(sent):
    assert main.run(["kargs", "--append=quiet", "--lock-finalization"]) == 0
    assert sent[0].deploy.lock_finalization
    assert main.run(["kargs", "--append=quiet", "--lock-finalization", "-r"]) == 2
    assert main.run(["initramfs", "--enable", "--lock-finalization", "-r"]) == 2
    assert len(sent) == 1


def test_kargs_without_a_change_only_shows(monkeypatch, capsys, sent):
    asked = []
    monkeypatch.setattr(options, "answer_json", lambda query: asked.append(query) or ["rw", "quiet"])
    assert main.run(["kargs", "--import-proc-cmdline"]) == 0
    assert (asked[0].running, capsys.readouterr().out) == (True, "rw quiet\n")
    assert sent == []
    assert main.run(["kargs", "--import-proc-cmdline", "--append=debug"]) == 0
    assert sent[0].import_running


@pytest.mark.parametrize(("text", "code"), [("", 2), ("rw\nostree=/x\n", 2), ("rw\ndebug\n", 0)])
def test_kargs_takes_no_text_without_arguments_or_with_ostrees(monkeypatch, sent, text, code):
    monkeypatch.setattr(options, "answer_json", lambda _query: ["rw"])
    monkeypatch.setattr(click, "edit", lambda *_text, **_how: text)
    assert main.run(["kargs", "--editor"]) == code
    assert [request.whole for request in sent] == ([("rw", "debug")] if code == 0 else [])


@pytest.mark.parametrize("words", [["-r"], ["--reboot", "--import-proc-cmdline"]])
def test_kargs_does_not_reboot_without_a_change(monkeypatch, sent, words):
    monkeypatch.setattr(options, "answer_json", lambda _query: pytest.fail("the arguments were read"))
    assert main.run(["kargs", *words]) == 2
    assert sent == []


# --- packages


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["install", "{}", "name"], "files"),
        (["uninstall", "x", "--install={}"], "files"),
        (["override", "remove", "x", "--install={}"], "install_files"),
        (["override", "remove", "x", "--replace={}"], "files"),
        (["override", "replace", "{}"], "files"),
        (["override", "replace", "x=1", "--install={}"], "install_files"),
        (["override", "reset", "x", "--install={}"], "install_files"),
        (["reset", "--install={}", "--install=name"], "files"),
        (["upgrade", "--install={}"], "files"),
        (["deploy", "13.2", "--install={}"], "files"),
        (["rebase", "x", "--install={}"], "files"),
    ],
)
def test_a_package_in_a_file_is_opened_wherever_one_is_taken(sent, tmp_path, words, field):
    path = tmp_path / "tool.deb"
    path.touch()
    assert main.run([word.format(path) for word in words]) == 0
    assert [file.name for file in getattr(sent[0], field)] == [str(path)]
    assert sent[0].open_files == getattr(sent[0], field)


OTHER_VERBS = [
    ["uninstall", "x"], ["override", "remove", "x"], ["override", "replace", "x=1"],
    ["override", "reset", "x"], ["reset"], ["upgrade"], ["deploy", "13.2"], ["rebase", "x"],
]  # fmt: skip


@pytest.mark.parametrize("words", OTHER_VERBS)
@pytest.mark.parametrize(
    ("chosen", "expected"), [([], None), (["--recommends"], True), (["--no-recommends"], False)]
)
def test_what_is_recommended_is_chosen_wherever_packages_are_layered(sent, words, chosen, expected):
    assert main.run([*words, "--install=name", *chosen]) == 0
    assert (sent[0].install, sent[0].recommends) == (("name",), expected)
    assert main.run([*words, *chosen]) == (2 if chosen else 0)
    assert len(sent) == (1 if chosen else 2)


@pytest.mark.parametrize(
    "words",
    [["install"], ["override", "replace"], ["override", "remove", "x", "--install"], ["reset", "--install"]],
)
@pytest.mark.parametrize("url", ["https://example.com/x.deb", "http://example.com/x", "file:///x.deb"])
def test_a_url_is_no_package(capsys, sent, words, url):
    assert main.run([*words, url]) == 2
    captured = capsys.readouterr().err
    assert url in captured and "hint: download it" in captured
    assert sent == []


SETTING = {"file": "/a.conf", "section": "Policy", "key": "NeverPackages", "value": "x"}
REASON = {"rule": "never-packages", "allowed": False, "text": "x is never installed", "setting": SETTING}
DENIED = {"allowed": False, "override": None, "reasons": [REASON]}


@pytest.mark.parametrize(
    ("words", "code", "verb", "told"),
    [
        (["install", "x"], 3, "install", "no: x is never installed (/a.conf: [Policy] NeverPackages=x)"),
        (["update"], 3, "upgrade", "Policy: refused"),
        (["install", "-A", "x"], 3, "install", "Policy: refused"),
        (["rollback"], 0, None, "Policy: allowed"),
        (["usroverlay", "--disable=x"], 0, None, "Policy: allowed"),
    ],
)
def test_a_command_is_judged_and_not_carried_out(monkeypatch, capsys, words, code, verb, told):
    sent = []

    def call(request, _view, **_how):
        sent.append(request)
        return client.Answer({"changed": True, "policy": DENIED}, next_boot=False)

    monkeypatch.setattr(client, "call", call)
    assert main.run(["policy", *words]) == code
    assert told in capsys.readouterr().out
    assert [(request.verb, request.deploy.dry_run) for request in sent] == ([(verb, True)] if verb else [])
    for as_json in (["policy", "--json", *words], ["policy", *words, "--json"]):
        assert main.run(as_json) == code
        assert json.loads(capsys.readouterr().out)["allowed"] == (code == 0)


@pytest.mark.parametrize("words", [["cancel"], ["compose", "tree", "x"], ["policy"], ["approve", "0" * 20]])
def test_what_is_no_change_is_not_carried_out_to_be_judged(monkeypatch, words):
    monkeypatch.setattr(client, "call", lambda *_arguments, **_how: pytest.fail("it was sent"))
    assert main.run(["policy", *words]) == 2


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_failure_and_no_other_files(closed: str):
    command = shlex.join(program.command("cli.main", "--version"))
    assert subprocess.run(["sh", "-c", f"{command} {closed}"], check=False).returncode == 0
    wrong = shlex.join(program.command("cli.main", "no-such-verb"))
    assert subprocess.run(["sh", "-c", f"{wrong} {closed}"], check=False).returncode == 2
