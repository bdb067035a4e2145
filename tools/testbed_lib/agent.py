"""The host's side of the agent in a virtual machine (overlay/usr/libexec/testbed-agent has the protocol)."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from testbed_lib.common import TestbedError

#: Channel 0 is the guardian's; the others are for commands, one each at a time.
CHANNELS = 5
EXIT_TIMEOUT = 124  # as coreutils' timeout
#: Seconds until a command that is killed has ended, and until the rest of a frame comes.
_LAST = 60.0
_PONG = b"\0\xfftestbed-pong:"

Stream = int | IO[Any] | None


def run_command(
    directory: Path,
    argv: Sequence[str],
    *,
    input: bytes | None = None,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = subprocess.PIPE,
    stderr: Stream = subprocess.PIPE,
    timeout: float | None = None,
    channels: Sequence[int] = range(1, CHANNELS),
    patience: float = 300,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in the machine whose sockets are in `directory`; streams as in `subprocess`.

    patience: seconds to wait for a free channel and for the agent to answer.
    """
    out, err = _Sink(stdout, 1), _Sink(stderr, 2)
    if stderr == subprocess.STDOUT:
        err = out
    with _channel(directory, channels, patience) as connection:
        _send(connection, b"R", json.dumps(list(argv)).encode())
        lock = threading.Lock()  # a kill must not fall into the middle of a frame of stdin
        _feed(connection, lock, input, stdin)
        deadline = time.monotonic() + timeout if timeout is not None else None
        timed_out = False
        while True:
            if not _readable(connection, deadline):
                if timed_out:  # the agent that ran it is gone: the machine has rebooted
                    raise TestbedError(f"the virtual machine does not tell the end of {argv[0]}")
                timed_out, deadline = True, time.monotonic() + _LAST
                with lock:
                    _send(connection, b"K", b"")
            kind, payload = _receive(connection)
            if kind == b"O":
                out.write(payload)
            elif kind == b"X":
                err.write(payload)
            elif kind == b"Q":
                code = EXIT_TIMEOUT if timed_out else int(payload)
                return subprocess.CompletedProcess(list(argv), code, out.data, err.data)


class _Sink:
    """Where a stream of the command goes: a descriptor, memory (`data`), or nowhere."""

    def __init__(self, stream: Stream, inherited: int) -> None:
        self.data: bytes | None = b"" if stream == subprocess.PIPE else None
        self.fd = -1
        if stream is None:
            self.fd = inherited
        elif not isinstance(stream, int):
            self.fd = stream.fileno()
        elif stream >= 0:
            self.fd = stream

    def write(self, data: bytes) -> None:
        if self.data is not None:
            self.data += data
        while self.fd >= 0 and data:
            data = data[os.write(self.fd, data) :]


@contextmanager
def _channel(directory: Path, channels: Sequence[int], patience: float) -> Iterator[socket.socket]:
    """Take a free channel and make sure that the agent listens on it."""
    end = time.monotonic() + patience
    with _free_channel(directory, channels, end) as number:
        while True:
            connection = _connect(directory / f"agent{number}")
            if _greet(connection, min(15.0, max(1.0, end - time.monotonic()))):
                break
            connection.close()
            if time.monotonic() > end:
                raise TestbedError(f"the agent in the virtual machine does not answer\n{_console(directory)}")
            time.sleep(0.5)  # long enough for the agent to notice that this client left
        with connection:
            yield connection


@contextmanager
def _free_channel(directory: Path, channels: Sequence[int], end: float) -> Iterator[int]:
    while True:
        for number in channels:
            with (directory / f"agent{number}.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield number
                return
        if time.monotonic() > end:
            raise TestbedError("all channels into the virtual machine are busy")
        time.sleep(0.1)


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    directory = os.open(path.parent, os.O_PATH)
    try:
        # /proc keeps the name short enough for a socket, wherever the cache is.
        connection.connect(f"/proc/self/fd/{directory}/{path.name}")
    except OSError as error:
        connection.close()
        raise TestbedError(f"the virtual machine is not running: {error}\n{_console(path.parent)}") from None
    finally:
        os.close(directory)
    return connection


def _console(directory: Path) -> str:
    return "its console:\n" + (directory / "console.log").read_bytes()[-3000:].decode(errors="replace")


def _greet(connection: socket.socket, seconds: float) -> bool:
    """Begin a conversation; whatever a former client left unread is skipped."""
    nonce = secrets.token_hex(8).encode()
    seen = b""
    connection.settimeout(seconds)
    try:
        _send(connection, b"P", nonce)
        while _PONG + nonce not in seen:
            data = connection.recv(65536)
            if not data:
                return False
            seen = seen[-64:] + data
    except OSError:  # a timeout is one
        return False
    connection.settimeout(None)
    return True


def _readable(connection: socket.socket, deadline: float | None) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(None if deadline is None else max(deadline - time.monotonic(), 0) * 1000))


def _feed(connection: socket.socket, lock: threading.Lock, input: bytes | None, stdin: Stream) -> None:
    if input is not None or stdin == subprocess.DEVNULL:
        chunks: Iterator[bytes] = (
            (input or b"")[at : at + 65536] for at in range(0, len(input or b""), 65536)
        )
    else:
        fd = 0 if stdin is None else stdin if isinstance(stdin, int) else stdin.fileno()
        chunks = iter(lambda: os.read(fd, 65536), b"")

    def carry() -> None:
        try:
            for chunk in chunks:
                with lock:
                    _send(connection, b"I", chunk)
            with lock:
                _send(connection, b"E", b"")
        except OSError:
            pass  # the command ended first

    threading.Thread(target=carry, daemon=True).start()


def _send(connection: socket.socket, kind: bytes, payload: bytes) -> None:
    connection.sendall(kind + len(payload).to_bytes(4, "big") + payload)


def _receive(connection: socket.socket) -> tuple[bytes, bytes]:
    head = _receive_exactly(connection, 5)
    return head[:1], _receive_exactly(connection, int.from_bytes(head[1:], "big"))


def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not _readable(connection, time.monotonic() + _LAST):  # the machine rebooted while the agent wrote
            raise TestbedError("the virtual machine does not answer any more")
        more = connection.recv(size - len(data))
        if not more:
            raise TestbedError("the virtual machine ended while a command ran")
        data += more
    return data
