"""The facts of automatic updates, asked of the machine that the tests run on, and a file that is fetched."""

from __future__ import annotations

import json
import subprocess
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from apt_ostree.errors import ExternalFailure
from apt_ostree.system import conditions, process


def test_this_machine_has_facts():
    facts = conditions.read()
    assert facts.now > 1_700_000_000 and facts.uptime > 0 and facts.load >= 0
    assert all(isinstance(user, str) for user in facts.users)


def test_without_a_bus_nothing_holds_an_update_back(monkeypatch):
    def fail(*_arguments, **_options):
        raise ExternalFailure("the program 'busctl' is not installed")

    monkeypatch.setattr(process, "run", fail)
    facts = conditions.read()
    assert (facts.metered, facts.users) == (False, ())


@pytest.mark.parametrize(("value", "metered"), [(0, False), (1, True), (2, False), (3, True), (4, False)])
def test_the_connection_and_the_users_of_a_bus(monkeypatch, value, metered):
    """The answers are those of busctl 252 and 257."""

    def answer(command, **_options):
        rows = {
            "Metered": [{"type": "u", "data": value}],
            "State": [{"type": "s", "data": "user"}, {"type": "s", "data": "active"}],
            "ListSessions": [{"type": "a(susso)", "data": [[["c1", 1000, "alice", "", "/s/c1"]]]}],
        }[command[-1]]
        return subprocess.CompletedProcess(command, 0, "\n".join(map(json.dumps, rows)), "")

    monkeypatch.setattr(process, "run", answer)
    facts = conditions.read()
    assert (facts.metered, facts.users) == (metered, ("alice",))


def test_a_file_is_fetched(tmp_path):
    tmp_path.chmod(0o755)
    halt = tmp_path / "halt"
    halt.write_text("all\n")
    assert conditions.fetch(halt.as_uri()) == "all\n"
    halt.unlink()
    assert conditions.fetch(halt.as_uri()) is None


def test_a_file_is_fetched_from_a_server(tmp_path):
    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_arguments):
            """Say nothing."""

    (tmp_path / "halt").write_text("13.2\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}"
            assert conditions.fetch(f"{address}/halt") == "13.2\n"
            assert conditions.fetch(f"{address}/missing") is None
        finally:
            server.shutdown()
            thread.join()
