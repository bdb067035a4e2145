"""Debian's docker-registry on the host: images are pushed to it, and what it sends is counted."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench_lib.measure import BenchError, run

NAME = "os:1"
_CONFIG = """
version: 0.1
log: {{level: info, formatter: json, accesslog: {{disabled: true}}}}
http: {{addr: '{address}'}}
storage: {{filesystem: {{rootdirectory: {directory}}}}}
"""


class Registry:
    """A registry that answers. address: HOST:PORT; log: what it has said, a JSON object a line."""

    def __init__(self, address: str, log: Path) -> None:
        self.address = address
        self._log = log

    def push(self, image: Path) -> None:
        """Give the name to an image, which is a directory in OCI's layout."""
        words = ("--quiet", "--insecure-policy", "--preserve-digests", "--dest-tls-verify=false")
        run("skopeo", "copy", *words, f"oci:{image}", f"docker://{self.address}/{NAME}")

    def sent(self) -> int:
        """Return the bytes of blobs that it has sent since it began."""
        return sum(map(_bytes_of_blob, self._log.read_text().splitlines()))


@contextmanager
def serving() -> Iterator[Registry]:
    """Run a registry, which is empty."""
    address = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="apt-ostree-bench-", dir="/var/tmp") as name:
        config, log = Path(name) / "config.yml", Path(name) / "log"
        config.write_text(_CONFIG.format(address=address, directory=Path(name) / "storage"))
        with log.open("wb") as stderr:
            command = ["docker-registry", "serve", config]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            _wait(address)
            yield Registry(address, log)
        finally:
            process.terminate()
            process.wait()


def free_port() -> int:
    """Return a port of this host, and so of its containers, that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _wait(address: str) -> None:
    host, _, port = address.partition(":")
    for _attempt in range(100):
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise BenchError("docker-registry does not answer")


def _bytes_of_blob(line: str) -> int:
    """Return what a line of the log says to have been sent of a blob."""
    said = json.loads(line) if line.startswith("{") else {}
    is_blob = said.get("http.request.method") == "GET" and "/blobs/" in said.get("http.request.uri", "")
    return int(said.get("http.response.written", 0)) if is_blob else 0
