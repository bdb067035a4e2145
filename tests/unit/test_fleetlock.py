"""The example that asks a FleetLock server: the request is that of the protocol, and the answer decides."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples/fleetlock"


class Server(HTTPServer):
    """A server that answers with a code, and remembers what it was asked."""

    code = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["fleet-lock-protocol"], json.loads(body)))
        self.send_response(self.server.code)
        self.end_headers()
        self.wfile.write(
            b'{"kind": "failed_lock", "value": "no slot is free"}' if self.server.code != 200 else b""
        )

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.mark.parametrize("step", ["pre-reboot", "steady-state"])
def test_the_request_is_that_of_the_protocol(server: Server, step: str):
    done = subprocess.run([SCRIPT, step, server.url, "workers"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ((path, header, body),) = server.asked
    assert (path, header, body["client_params"]["group"]) == (f"/v1/{step}", "true", "workers")
    machine = Path("/etc/machine-id").read_text().strip()
    assert len(body["client_params"]["id"]) == 32 and body["client_params"]["id"] != machine


def test_a_server_without_a_free_slot_means_no(server: Server):
    server.code = 409
    done = subprocess.run(
        [SCRIPT, "pre-reboot", server.url, "workers"], check=False, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "no slot is free" in done.stderr


def test_without_a_server_there_is_no_reboot():
    command = [SCRIPT, "pre-reboot", "http://127.0.0.1:1", "workers"]
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0
