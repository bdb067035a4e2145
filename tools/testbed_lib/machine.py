"""A machine, seen from outside: create, start, run commands in it, reboot, cut its power, stop, remove.

The command line and the tests use this class; the guardian process does the work.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testbed_lib import agent
from testbed_lib.agent import EXIT_TIMEOUT, Stream
from testbed_lib.cgroup import Cgroup, hierarchy, machine_cgroup, machine_cgroups
from testbed_lib.common import CHECKOUT, ENVIRONMENT, MACHINES, TestbedError, say, wait_until
from testbed_lib.guardian import remove_files
from testbed_lib.kernel import clone_file
from testbed_lib.store import open_store


class Machine:
    """One named machine. Nothing is held open: any process may use any machine by its name."""

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?", name):
            raise TestbedError(f"not a machine name: {name!r} (use a-z, 0-9 and '-')")
        self.name = name
        self.directory = MACHINES / name
        self._lifeline = -1

    def create_disk(self, image: Path) -> None:
        """Give the machine a fresh copy of a disk image."""
        self.directory.mkdir(parents=True, exist_ok=True)
        disk = self._disk()
        disk.parent.mkdir(parents=True, exist_ok=True)
        clone_file(image, disk)

    def has_disk(self) -> bool:
        """Say whether the machine exists, running or not."""
        return self._disk().exists()

    def is_running(self) -> bool:
        """Say whether a guardian holds the machine."""
        try:
            with (self.directory / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def is_vm(self) -> bool:
        """Say whether the running machine is a virtual one."""
        return bool(self._state()["vm"])

    def boot(self, *, vm: bool = False, shared_peer_group: bool = False) -> None:
        """Boot the machine's disk, in nspawn or as a virtual machine, and wait until it settled.

        A machine with a name from `throw_away_name` holds a life line: it ends, with its files, when this
        process does.
        """
        if self.is_running():
            raise TestbedError(f"machine {self.name} is already running")
        options = {"vm": vm, "shared_peer_group": shared_peer_group}
        status_read, status_write = os.pipe()
        life_read, life_write = os.pipe() if self._is_ours() else (-1, -1)
        argv = [sys.executable, CHECKOUT / "tools/testbed", "_guard", self.name, json.dumps(options)]
        argv += [str(status_write), str(life_read)]
        with (self.directory / "guardian.log").open("wb") as log:
            subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[fd for fd in (status_write, life_read) if fd >= 0],
                start_new_session=True,  # a Ctrl-C on the terminal is not for the guardian
                cwd="/",
            )
        os.close(status_write)
        if life_read >= 0:
            os.close(life_read)
            self._drop_lifeline()
            self._lifeline = life_write
        with os.fdopen(status_read) as status:
            answer = status.read().strip()
        if answer != "booted":
            log_tail = (self.directory / "guardian.log").read_text().strip()[-2000:]
            raise TestbedError(
                f"machine {self.name} did not boot: {answer.removeprefix('error ')} {log_tail}"
            )
        self.wait_settled()

    def wait_settled(self) -> None:
        """Wait until systemd has started everything; name the units that failed."""
        seconds = 900 if self._state()["vm"] else 120
        state = ""

        def look() -> bool:
            nonlocal state
            state = (
                self.exec("systemctl", "is-system-running", "--wait", timeout=seconds).stdout.decode().strip()
            )
            return state in {"running", "degraded"}

        wait_until(look, seconds=seconds, what=f"machine {self.name} settling")
        if state == "degraded":
            failed = self.exec("systemctl", "--failed", "--no-legend", "--plain").stdout.decode()
            say("units failed: " + ", ".join(line.split()[0] for line in failed.splitlines()))

    def exec(
        self,
        *argv: str,
        input: bytes | None = None,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = subprocess.PIPE,
        stderr: Stream = subprocess.PIPE,
        timeout: float | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command as root; exit code 124 when it took longer than `timeout` seconds."""
        state = self._state()
        if state["vm"]:
            done = agent.run_command(
                self.directory, argv, input=input, stdin=stdin, stdout=stdout, stderr=stderr, timeout=timeout
            )
        else:
            streams = {"input": input, "stdin": stdin, "stdout": stdout, "stderr": stderr}
            done = self._exec_in_container(state["leader"], argv, timeout=timeout, **streams)
        if check and done.returncode:
            text = (done.stderr or done.stdout or b"").decode(errors="replace").strip()
            raise TestbedError(f"exit code {done.returncode} in {self.name} from: {' '.join(argv)}\n{text}")
        return done

    def _exec_in_container(
        self,
        leader: int,
        argv: Sequence[str],
        *,
        input: bytes | None,
        stdin: Stream,
        stdout: Stream,
        stderr: Stream,
        timeout: float | None,
    ) -> subprocess.CompletedProcess[bytes]:
        group = self._command_cgroup(leader).create()

        process = None
        code = EXIT_TIMEOUT
        try:
            process = subprocess.Popen(
                [*group.launcher(), "nsenter", "--target", str(leader), "--all", "--", *argv],
                stdin=subprocess.PIPE if input is not None else stdin,
                stdout=stdout,
                stderr=stderr,
                env=ENVIRONMENT,
            )
            try:
                out, err = process.communicate(input, timeout=timeout)
                code = process.returncode
            except subprocess.TimeoutExpired:
                _end_command(process, group)
                out, err = process.communicate()
        finally:
            if process:
                _end_command(process, group)
            group.remove()
        return subprocess.CompletedProcess(list(argv), 128 - code if code < 0 else code, out, err)

    def reboot(self) -> None:
        """Shut down cleanly, boot what a boot loader would choose, wait until settled."""
        self._ask("reboot", "booted")
        self.wait_settled()

    def stop(self) -> None:
        """Shut down cleanly."""
        self._ask("stop", "off")

    def kill(self) -> None:
        """Cut the power: what was not synced is lost."""
        self._ask("kill", "off")

    def remove(self) -> None:
        """Cut the power if it runs, and remove all its files."""
        if self.is_running():
            self.kill()
        machine_cgroup(self.name).remove()  # its guardian may have been killed
        remove_files(self.name)
        self._drop_lifeline()

    def _is_ours(self) -> bool:
        return self.name.startswith(f"run-{os.getpid()}-")

    def _drop_lifeline(self) -> None:
        if self._lifeline >= 0:
            os.close(self._lifeline)
        self._lifeline = -1

    def _disk(self) -> Path:
        return open_store() / "machines" / self.name / "disk.img"

    def _state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self.directory / "state.json").read_text())
        except FileNotFoundError:
            raise TestbedError(f"machine {self.name} is not running") from None
        return state

    def _command_cgroup(self, leader: int) -> Cgroup:
        # Below PID 1's own delegated part, so that the command is in the machine for systemd's eyes too.
        own = Path(f"/proc/{leader}/cgroup").read_text().rsplit("0::/", 1)[1].strip()
        payload = (hierarchy() / own).parent
        return Cgroup(payload / "testbed.slice" / f"command-{secrets.token_hex(4)}.scope")

    def _ask(self, request: str, expected: str) -> None:
        if not self.is_running():
            raise TestbedError(f"machine {self.name} is not running")
        with socket.socket(socket.AF_UNIX) as connection:
            directory = os.open(self.directory, os.O_PATH)
            try:
                # /proc keeps the name short enough for a socket, wherever the cache is.
                connection.connect(f"/proc/self/fd/{directory}/control")
                connection.sendall(f"{request}\n".encode())
                answer = connection.makefile().read().strip()
            finally:
                os.close(directory)
        if answer != expected:
            raise TestbedError(
                f"machine {self.name}: {answer.removeprefix('error ') or 'busy with a request'}"
            )
        if expected == "off":
            wait_until(lambda: not self.is_running(), seconds=30, what=f"the end of {self.name}")


def _end_command(nsenter: subprocess.Popen[bytes], group: Cgroup) -> None:
    """Kill what a command left running, all but nsenter, which ends by itself when it has reaped the command.

    Were nsenter killed too, the command would stay a zombie until the host's PID 1 cares, and hold up
    the machine's shutdown.
    """

    def look() -> bool:
        others = [pid for pid in group.processes() if pid != nsenter.pid]
        for pid in others:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return not others and nsenter.poll() is not None

    wait_until(look, seconds=30, what="the end of a command")


def all_machines() -> list[Machine]:
    """Return the machines that exist, running or not."""
    if not MACHINES.is_dir():
        return []
    return [Machine(path.name) for path in sorted(MACHINES.iterdir())]


def sweep() -> None:
    """Remove what machines left whose guardian was killed: throw-away files, cgroups.

    A command whose caller was killed may be in the cgroup of a machine that has no files any more.
    """
    for machine in (*all_machines(), *map(Machine, machine_cgroups())):
        if machine.is_running():
            continue
        owner = re.match(r"run-(\d+)-", machine.name)
        was_killed = owner and not Path(f"/proc/{owner[1]}").exists()
        if was_killed or machine.directory.exists():
            machine_cgroup(machine.name).remove()
        if was_killed:
            say(f"removing what is left of {machine.name}, which was killed")
            remove_files(machine.name)


def throw_away_name() -> str:
    """Return a new name for a throw-away machine; it tells `sweep` whose it is."""
    return f"run-{os.getpid()}-{secrets.token_hex(3)}"
