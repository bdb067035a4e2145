"""A cgroup (version 2) per machine: everything of a machine can be frozen, killed and waited for at once."""

from __future__ import annotations

import errno
import functools
import os
from pathlib import Path

from testbed_lib.common import TestbedError, wait_until


@functools.cache
def hierarchy() -> Path:
    """Return where the version 2 hierarchy is mounted; on a hybrid host it stands beside version 1."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _source, point, kind = line.split()[:3]
        if kind == "cgroup2":
            return Path(point)
    raise TestbedError("no cgroup2 file system is mounted; mount one: mount -t cgroup2 none DIRECTORY")


class Cgroup:
    """The cgroup of one machine, or of one command in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> Cgroup:
        """Make the cgroup, and those above it."""
        self.path.mkdir(parents=True, exist_ok=True)
        return self

    def launcher(self) -> list[str]:
        """Return the beginning of a command line that runs the rest of it in the cgroup."""
        return ["/bin/sh", "-c", 'echo 0 >"$0/cgroup.procs" && exec "$@"', str(self.path)]

    def processes(self) -> list[int]:
        """Return the processes in it, not those below."""
        try:
            return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]
        except OSError:
            return []  # the machine ended, and its cgroups with it

    def freeze(self) -> None:
        """Stop every process, and return when they stand still."""
        (self.path / "cgroup.freeze").write_text("1")
        wait_until(lambda: "frozen 1" in self._events(), seconds=10, what=f"freezing {self.path}")

    def kill(self) -> None:
        """Kill every process, also those below, and wait until they are gone."""
        if self.path.exists():
            (self.path / "cgroup.kill").write_text("1")
            wait_until(lambda: "populated 0" in self._events(), seconds=60, what=f"killing {self.path}")

    def remove(self) -> None:
        """Kill what is in it, then remove it and those below.

        A command whose caller was killed may enter it after that, and is killed, too.
        """
        wait_until(self._is_removed, seconds=60, what=f"removing {self.path}")

    def _is_removed(self) -> bool:
        self.kill()
        try:
            for directory, _children, _files in os.walk(self.path, topdown=False):
                Path(directory).rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        return True

    def _events(self) -> str:
        return (self.path / "cgroup.events").read_text()


def machine_cgroup(name: str) -> Cgroup:
    """Return the cgroup of a machine (which may not exist)."""
    return Cgroup(_machines() / name)


def machine_cgroups() -> list[str]:
    """Return the names of the machines that have a cgroup."""
    return sorted(path.parent.name for path in _machines().glob("*/cgroup.procs"))


def _machines() -> Path:
    return hierarchy() / "apt-ostree-testbed"
