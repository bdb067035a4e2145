"""One boot of a machine, whatever runs it: the common part of nspawn.py and qemu.py."""

from __future__ import annotations

import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from testbed_lib.cgroup import Cgroup
from testbed_lib.common import ENVIRONMENT
from testbed_lib.kernel import die_with_parent


class Boot:
    """A context manager that boots on entry, and on exit leaves nothing mounted or running."""

    #: PID 1 of the machine as the host numbers it; 0 when it has a kernel of its own.
    leader = 0

    def __init__(
        self, name: str, directory: Path, disk: Path, cgroup: Cgroup, *, shared_peer_group: bool = False
    ) -> None:
        self.name, self.directory, self.disk, self.cgroup = name, directory, disk, cgroup
        self.shared_peer_group = shared_peer_group
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            command, environment = self._prepare(stack)
            stack.callback(self.cgroup.remove)
            self.cgroup.create()
            log = stack.enter_context((self.directory / "console.log").open("ab"))
            self.process = subprocess.Popen(
                [*self.cgroup.launcher(), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**ENVIRONMENT, **environment},
                cwd=self.directory,
                preexec_fn=_die_with_guardian,  # noqa: PLW1509 - the guardian has one thread
            )
            self._wait_for_start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask_poweroff(self) -> None:
        """Ask for a clean shutdown."""
        raise NotImplementedError

    def ask_reboot(self) -> None:
        """Ask for a clean reboot."""
        raise NotImplementedError

    def wants_reboot(self) -> bool:
        """Say, of a boot that ended, whether the machine asked to be started again."""
        raise NotImplementedError

    def _prepare(self, stack: ExitStack) -> tuple[list[str], dict[str, str]]:
        """Acquire what the boot needs; return the command that runs it, and its further environment."""
        raise NotImplementedError

    def _wait_for_start(self, stack: ExitStack) -> None:
        """Return when requests can be made."""
        raise NotImplementedError


def _die_with_guardian() -> None:
    die_with_parent(signal.SIGKILL)  # and so does the machine
