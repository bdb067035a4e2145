"""The process that holds a machine: boots it, follows its reboots, obeys `control`, and cleans up after it.

It outlives the command that started it. Its mounts are in a private namespace and its children die with it
(PR_SET_PDEATHSIG), so not even SIGKILL leaves mounts, loop devices or processes. A throw-away machine also
ends when the life line closes, that is when the command that wanted it ends in whatever way.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from testbed_lib.boot import Boot
from testbed_lib.cgroup import machine_cgroup
from testbed_lib.common import MACHINES, TestbedError, wait_until
from testbed_lib.kernel import clone_file
from testbed_lib.nspawn import Nspawn
from testbed_lib.qemu import Qemu
from testbed_lib.store import open_store

#: How long a clean shutdown may take; systemd itself gives up on a unit after 90 s.
_SHUTDOWN_SECONDS = 120


def guard(name: str, options: dict[str, bool], *, status_fd: int, lifeline_fd: int) -> int:
    """Hold a machine until it is off; the first line on `status_fd` says how the first boot went.

    lifeline_fd: the machine ends, with its files, when this closes; -1 for a machine that stays.
    """
    directory = MACHINES / name
    with ExitStack() as stack:
        lock = stack.enter_context((directory / "lock").open("w"))
        wait_until(lambda: _try_lock(lock), seconds=2, what=f"machine {name} being free")
        disk = open_store() / "machines" / name / "disk.img"
        stack.callback(_remove_if_orphaned, name, lifeline_fd)
        guardian = _Guardian(name, directory, disk, options, lifeline_fd)
        status = os.fdopen(status_fd, "w")
        try:
            guardian.hold(status)
        except (TestbedError, OSError) as error:
            print(f"testbed guardian: {error}", flush=True)
            if not status.closed:
                status.write(f"error {error}\n")
            return 1
        finally:
            (directory / "state.json").unlink(missing_ok=True)
    return 0


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False  # someone looks whether the machine runs
    return True


def _remove_if_orphaned(name: str, lifeline: int) -> None:
    if lifeline >= 0 and select.select([lifeline], [], [], 0)[0]:
        remove_files(name)


def remove_files(name: str) -> None:
    """Remove a machine's disk and its directory."""
    shutil.rmtree(open_store() / "machines" / name, ignore_errors=True)
    shutil.rmtree(MACHINES / name, ignore_errors=True)


class _Guardian:
    def __init__(
        self, name: str, directory: Path, disk: Path, options: dict[str, bool], lifeline: int
    ) -> None:
        self.name, self.directory, self.disk, self.options = name, directory, disk, options
        self.lifeline = lifeline
        self.boots = 0
        self.asker: socket.socket | None = None  # who waits for the next boot, or for the end
        self.failure = ""

    def hold(self, status: IO[str]) -> None:
        """Boot, and boot again as long as the machine asks for a reboot."""
        with self._control_socket() as listener:
            again = True
            while again:
                again = self._boot_once(listener, status)
            self._answer(f"error {self.failure}" if self.failure else "off")

    def _boot_once(self, listener: socket.socket, status: IO[str]) -> bool:
        backend = self._backend()
        with backend as machine:
            self.boots += 1
            self._write_state(machine)
            if not status.closed:
                status.write("booted\n")
                status.close()
            self._answer("booted")
            cut = self._obey_until_end(machine, listener)
            if cut:
                # What the guest had written but not synced is still in its page cache: the
                # image file at this instant is what a power cut leaves on the disk.
                machine.cgroup.freeze()
                clone_file(self.disk, self.disk.with_suffix(".cut"))
            again = not cut and machine.wants_reboot()
        (self.directory / "state.json").unlink(missing_ok=True)
        if cut:
            self.disk.with_suffix(".cut").rename(self.disk)
        return again

    def _backend(self) -> Boot:
        kind = Qemu if self.options.get("vm") else Nspawn
        return kind(
            self.name,
            self.directory,
            self.disk,
            machine_cgroup(self.name),
            shared_peer_group=self.options.get("shared_peer_group", False),
        )

    def _obey_until_end(self, machine: Boot, listener: socket.socket) -> bool:
        """Serve requests until the machine ends by itself (False) or its power is to be cut (True)."""
        ended = os.pidfd_open(machine.process.pid)
        poll = select.poll()
        for fd in (ended, listener.fileno(), self.lifeline):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        deadline: float | None = None
        try:
            while True:
                ready = {fd for fd, _event in poll.poll(deadline)}
                if ended in ready:
                    return False
                if self.lifeline in ready:
                    return True
                if not ready:
                    self.failure = f"no clean shutdown within {_SHUTDOWN_SECONDS} s; the power was cut"
                    return True
                request = self._accept(listener)
                if request == "kill":
                    return True
                if request in {"stop", "reboot"}:
                    try:
                        machine.ask_poweroff() if request == "stop" else machine.ask_reboot()
                        deadline = _SHUTDOWN_SECONDS * 1000
                    except TestbedError as error:
                        self._answer(f"error {error}")
        finally:
            os.close(ended)

    def _accept(self, listener: socket.socket) -> str:
        connection, _ = listener.accept()
        request = connection.recv(100).decode().strip()
        if self.asker:
            connection.close()
            return ""
        self.asker = connection
        return request

    def _answer(self, text: str) -> None:
        if self.asker:
            try:
                self.asker.sendall(f"{text}\n".encode())
            except OSError:
                pass  # the asker left
            self.asker.close()
            self.asker = None

    def _control_socket(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        # Socket names are short, cache directories may not be: bind relative to the directory.
        os.chdir(self.directory)
        Path("control").unlink(missing_ok=True)
        listener.bind("control")
        listener.listen()
        return listener

    def _write_state(self, machine: Boot) -> None:
        state = {"guardian": os.getpid(), "leader": machine.leader, "boots": self.boots, **self.options}
        temporary = self.directory / "state.json.new"
        temporary.write_text(json.dumps(state))
        temporary.rename(self.directory / "state.json")
