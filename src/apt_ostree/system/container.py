"""Boots a directory as a container without a network (systemd-nspawn(1)), and runs programs in it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from apt_ostree.errors import ExternalFailure, Refused
from apt_ostree.model.testboot import ENDED
from apt_ostree.system import process

_NSPAWN = "systemd-nspawn"
_INTERVAL = 0.1  # seconds
_PATIENCE = 30.0  # seconds, for a program that only asks the container's system manager
#: Arguments of the container's system manager: no disks, no jobs of timers, no waiting for a network
#: (systemd-fstab-generator(8), systemd-cryptsetup-generator(8), systemd-debug-generator(8)).
_ARGUMENTS = (
    "fstab=no",
    "luks=no",
    "systemd.mask=timers.target",
    "systemd.mask=systemd-networkd-wait-online.service",
    "systemd.mask=NetworkManager-wait-online.service",
    "systemd.mask=ifupdown-wait-online.service",
)


def require() -> None:
    """Raise Refused if there is no systemd-nspawn."""
    if shutil.which(_NSPAWN, path=process.BASE_ENVIRONMENT["PATH"]) is None:
        raise Refused(
            f"a test boot needs {_NSPAWN}",
            hint="'apt-ostree install -A systemd-container' installs it; without --test nothing is tested",
        )


class Container:
    """A container that is running. pid: its first process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def run(
        self, command: Sequence[str], *, what: str, timeout: float = _PATIENCE, check: bool = True
    ) -> str:
        """Run a program in the container and return its output; raise ExternalFailure if it fails."""
        enter = ["nsenter", f"--target={self._pid}", "--all", "--"]
        return process.run(
            [*enter, *command], what=what, merge_stderr=True, timeout=timeout, check=check
        ).stdout

    def wait_for_boot(self, seconds: float) -> str:
        """Wait until the boot ends; return the state of the system manager (systemctl(1))."""
        end, state = time.monotonic() + seconds, "offline"
        while state not in ENDED and (left := end - time.monotonic()) > 0:
            with contextlib.suppress(ExternalFailure):  # time ran out
                command = ["systemctl", "is-system-running", "--wait"]
                answer = self.run(command, what="wait for the test boot", timeout=left, check=False)
                state = (answer.split() or [state])[-1]
            time.sleep(_INTERVAL)
        return state

    def units(self) -> list[dict[str, Any]]:
        """Return systemctl's list of units: unit, load, active, sub and description."""
        command = ["systemctl", "--no-pager", "list-units", "--all", "--output=json"]
        rows: list[dict[str, Any]] = json.loads(self.run(command, what="list the units of the test boot"))
        return rows

    def log(self) -> str:
        """Return the journal of the boot."""
        command = ["journalctl", "--no-pager", "--boot", "--output=short-monotonic"]
        return self.run(command, what="read the journal of the test boot", check=False)

    def log_tail(self, unit: str, lines: int = 5) -> list[str]:
        """Return the last lines that a unit logged."""
        command = ["journalctl", "--no-pager", "--boot", f"--lines={lines}", "--output=cat", f"--unit={unit}"]
        return self.run(command, what=f"read the log of {unit}", check=False).splitlines()


@contextlib.contextmanager
def booted(root: Path, *, output: Path) -> Iterator[Container]:
    """Boot a directory; the container ends with the block, and if this process ends.

    Nothing in it is worth an orderly end: systemd-nspawn kills it when it is asked to end.

    output: a file for what systemd-nspawn prints.
    """
    # One that is killed may leave a mount of its name in /run, which keeps another one from starting.
    machine = f"apt-ostree-test-{os.urandom(4).hex()}"
    command = [
        "setpriv", "--pdeathsig=TERM", "--",
        _NSPAWN, "--quiet", f"--directory={root}", "--boot", f"--machine={machine}", "--register=no",
        "--kill-signal=SIGKILL", "--private-network", "--link-journal=no", "--resolv-conf=off",
        "--timezone=off", "--console=pipe", *_ARGUMENTS,
    ]  # fmt: skip
    unified = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
    with process.beside(command, what="start the test boot", env=unified, log=output) as pid:
        yield Container(_first_process(pid, output))


def _first_process(nspawn: int, output: Path) -> int:
    """Return the pid of the container's system manager once it runs; raise ExternalFailure if it ends."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and not process.has_ended(nspawn):
        for pid in _children(nspawn):
            if _is_manager(pid):
                return pid
        time.sleep(_INTERVAL)
    lines = output.read_text(errors="replace").splitlines()
    raise ExternalFailure("cannot start the container of the test boot", details=lines[-5:])


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _is_manager(pid: int) -> bool:
    """Return whether a process is the first one of a pid namespace and systemd: before, it is still ours."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        pids = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
        return len(pids) > 1 and pids[-1] == "1" and Path(f"/proc/{pid}/comm").read_text() == "systemd\n"
    return False
