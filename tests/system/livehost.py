"""A booted machine as the live tests see it: run apt-ostree in it, and take stock of everything it shows."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from testbed_lib.common import TestbedError, wait_until
from testbed_lib.images import Wanted, image
from testbed_lib.machine import Machine

_numbers = itertools.count(1)
_at_exit = contextlib.ExitStack()
atexit.register(_at_exit.close)

_PROGRAMS = Path(__file__).parent / "programs"
#: Before a command: it sees a /sysroot that it can write to.
WRITABLE_SYSROOT = ("unshare", "-m", "sh", "-euc", 'mount -o remount,rw /sysroot; exec "$@"', "sh")
#: Before a command: it runs as nobody.
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
_KINDS = {1: "ExternalFailure", 2: "UsageError", 3: "Refused", 4: "NotAuthorized", 130: "Cancelled"}


def program(name: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a program of tests/system/programs in a machine, without its file."""
    text = (_PROGRAMS / name).read_text()
    if name.endswith(".py"):
        return ("/usr/bin/python3", "-c", text, *arguments)
    return ("bash", "-euc", text, name, *arguments)


def ask(service: str = "fx-service") -> tuple[str, ...]:
    """Return the command that asks a fixture service; the answer begins with its version."""
    return ("curl", "--silent", "--fail", "--unix-socket", f"/run/{service}/socket", "http://x/")


@dataclass(frozen=True)
class Look:
    """What a machine showed at one moment."""

    usr: str
    etc: Mapping[str, Any]
    state: Mapping[str, Any]
    refs: Sequence[str]
    deployments: Sequence[str]
    mounts: Sequence[Any]
    records: Sequence[Any]
    units: Sequence[str]
    store: Sequence[str]

    @property
    def live_refs(self) -> list[str]:
        return [ref for ref in self.refs if ref.startswith("apt-ostree/live/")]

    def system(self) -> dict[str, Any]:
        """What an undo must restore: all but the record's file and the cache of layers."""
        keys = ("usr", "etc", "mounts", "records", "units")
        return {key: getattr(self, key) for key in keys} | {"live_refs": self.live_refs}

    def everything(self) -> dict[str, Any]:
        """What a refused command must leave alone, to the byte."""
        return {**self.system(), "state": self.state, "refs": self.refs, "deployments": self.deployments}


class Host:
    """A machine of the test bed."""

    def __init__(self, machine: Machine, *, shared_peer_group: bool = False) -> None:
        self.machine = machine
        self._shared = shared_peer_group

    def run(
        self,
        *argv: str,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        words = ["env", *(f"{k}={v}" for k, v in env.items()), *argv] if env else argv
        done = self.machine.exec(*words, input=input.encode() if input is not None else None, timeout=timeout)
        text = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )
        if check and done.returncode:
            raise AssertionError(f"exit code {done.returncode} from {argv}:\n{text.stdout}{text.stderr}")
        return text

    def run_program(
        self, name: str, *arguments: str, input: str | None = None, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of tests/system/programs."""
        done = self.run(*program(name, *arguments), input=input, check=False, timeout=timeout)
        assert not check or done.returncode == 0, f"{name} {arguments}: {done.stdout}{done.stderr}"
        return done

    def sh(self, script: str, *, check: bool = True) -> str:
        return self.run("sh", "-euc", script, check=check).stdout

    def ao(
        self, *argv: str, code: int = 0, failpoint: str | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run apt-ostree, which has to end with this exit code."""
        env = {"APT_OSTREE_FAILPOINT": failpoint} if failpoint else None
        done = self.run("apt-ostree", *argv, check=False, env=env, timeout=timeout)
        assert done.returncode == code, f"{argv} {failpoint}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def json(self, *argv: str, code: int = 0, timeout: float = 120) -> Any:
        """Run apt-ostree with --json and return its result, or its error."""
        return json.loads(self.ao(*argv, "--json", code=code, timeout=timeout).stdout)

    def events(self, *argv: str, timeout: float = 120) -> list[dict[str, Any]]:
        """Run apt-ostree and return its events; the last one is the result."""
        text = self.ao(*argv, "--events", timeout=timeout).stdout
        return [json.loads(line) for line in text.splitlines()]

    def failure(self, *argv: str, code: int) -> str:
        """Run apt-ostree, which has to fail with this exit code; return message, details and hint."""
        error = self.json(*argv, code=code)
        assert error["error"] == _KINDS[code]
        return "\n".join([error["message"], *error["details"], error["hint"] or ""])

    def memory_of_worker(self, verb: str, **arguments: Any) -> int:
        """Have a worker run a verb; return its peak memory in kB."""
        request = json.dumps({"verb": verb, "request": arguments})
        done = self.run_program("worker_memory.py", input=f"{request}\n")
        return int(done.stderr.splitlines()[-1])

    def deployments(self) -> list[dict[str, Any]]:
        """Return the deployments as `status` shows them, the next one to boot first."""
        rows: list[dict[str, Any]] = self.json("status")["deployments"]
        return rows

    def answer(self, service: str = "fx-service") -> str:
        """Return what a fixture service answers: a line with its version, and its configuration."""
        return self.run(*ask(service)).stdout

    def look(self) -> Look:
        return Look(**json.loads(self.run_program("look.py").stdout))

    def shown(self) -> dict[str, Any]:
        """Return what overlays change, and have to give back."""
        look = self.look()
        return {"usr": look.usr, "etc": look.etc}

    def succeeds(self, script: str) -> bool:
        return self.run("sh", "-c", script, check=False).returncode == 0

    def contents_of_usr(self) -> str:
        """Return a digest of /usr that is the same wherever the same tree is checked out."""
        script = (
            "cd /usr && find . -xdev -printf '%p %y %m %U %G %l\\n' | sort | sha256sum; "
            "find . -xdev -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum"
        )
        return self.sh(script)

    def unit_property(self, unit: str, name: str) -> str:
        """Return a property of a unit, as `systemctl show` has it."""
        return self.run("systemctl", "show", f"--property={name}", "--value", unit).stdout.strip()

    def failed_units(self) -> list[str]:
        return self.sh("systemctl --failed --no-legend --plain").splitlines()

    def installed(self, *patterns: str) -> dict[str, str]:
        """Return the packages that dpkg knows, or those of these patterns, with their versions."""
        listed = self.run("dpkg-query", "--show", "--showformat=${Package} ${Version}\\n", *patterns).stdout
        return dict(line.split() for line in listed.splitlines())

    def is_active(self, unit: str) -> bool:
        return self.succeeds(f"systemctl is-active --quiet {unit}")

    def exists(self, path: str) -> bool:
        return self.succeeds(f"test -e {path}")

    def is_link(self, path: str) -> bool:
        return self.succeeds(f"test -L {path}")

    def suites(self, *names: str) -> None:
        """Offer these suites of the fixture repository."""
        self.run("testbed-fixtures", *names)

    def commit_of_pending(self) -> str:
        """Return the commit of the deployment that the next boot starts."""
        return self.sh("ostree admin status").split()[1].partition(".")[0]

    def commit_of_booted(self) -> str:
        return self.sh("ostree admin status | sed -n 's/^[*] [^ ]* \\([0-9a-f]*\\).*/\\1/p'").strip()

    def create_ref(self, ref: str, commit: str) -> None:
        """Have a ref on a commit, which keeps it."""
        self.run(*WRITABLE_SYSROOT, "ostree", "refs", f"--create={ref}", commit)

    def undeploy(self) -> None:
        """Drop the pending deployment, if there is one."""
        self.sh("ostree admin status | head -n 1 | grep -q '^[*]' || ostree admin undeploy 0 >/dev/null")

    def reset(self) -> None:
        """Go back to the booted system, without a pending deployment, what was kept for it, and marks."""
        self.sh("rm -f /var/lib/apt-ostree/verdicts.json")
        self.ao("apply-live", "--reset")
        self.sh("ostree admin status | head -n 1 | grep -q '^[*]' || apt-ostree cleanup --pending >/dev/null")

    def power_cut(self) -> None:
        self.machine.kill()
        self.machine.boot(shared_peer_group=self._shared)

    def reboot(self) -> None:
        self.machine.reboot()

    def commit(self, ref: str, directory: str) -> None:
        """Commit the booted tree, with a directory laid over it, to a ref."""
        trees = (f"--tree=ref={self.commit_of_booted()}", f"--tree=dir={directory}")
        owner = ("--owner-uid=0", "--owner-gid=0")
        self.run(
            *WRITABLE_SYSROOT, "ostree", "commit", "--repo=/ostree/repo", f"--branch={ref}", *owner, *trees
        )

    def check_clean(self, *how: str) -> None:
        """What must hold after anything: the repository is sound, files are as dpkg knows them."""
        self.run_program("check_repository.py", *how, timeout=1200)  # emulated, it takes minutes
        # systemd leaves out a unit to break a cycle, each time another one.
        assert "ordering cycle" not in self.run("journalctl", "--boot", "--identifier=systemd").stdout
        verified = self.run("dpkg", "--verify", check=False).stdout.splitlines()
        wrong = [line for line in verified if " c /etc/" not in line]
        assert wrong == [], wrong


def check_refused_here(*words: str) -> None:
    """See that the machine on which the tests run, which OSTree did not boot, is refused this command."""
    if Path("/run/ostree-booted").exists():
        pytest.skip("this machine was booted from OSTree")
    source = Path(__file__).resolve().parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-m", "apt_ostree", *words, "--json"],
        env={"PYTHONPATH": str(source), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"] == "Refused"


def same(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Fail with the paths that differ."""
    problems = []
    for key in before:
        one, two = before[key], after[key]
        if isinstance(one, dict):
            names = {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)}
            problems += [f"{key} {name}: {one.get(name)} -> {two.get(name)}" for name in sorted(names)]
        elif one != two:
            problems.append(f"{key}: {one} -> {two}")
    assert not problems, "\n".join(problems)


@contextlib.contextmanager
def booted(
    disk: Path, *, shared_peer_group: bool = False, change: Callable[[Path], object] = lambda _disk: None
) -> Iterator[Host]:
    """Give a machine with a copy of a disk, which may be changed before; it is removed afterwards."""
    machine = Machine(f"run-{os.getpid()}-live{next(_numbers)}")
    machine.create_disk(disk)
    try:
        change(machine._disk())
        machine.boot(shared_peer_group=shared_peer_group)
        yield Host(machine, shared_peer_group=shared_peer_group)
    finally:
        machine.remove()


@contextlib.contextmanager
def disk_after(prepare: Callable[[Host], None], disk: Path) -> Iterator[Path]:
    """Give a copy of a disk after a machine booted from it, was prepared and shut down."""
    with booted(disk) as host:
        prepare(host)
        host.machine.stop()
        yield host.machine._disk()


@functools.cache
def prepared_disk() -> Path:
    """Return the disk of a machine that has its package lists, with nothing but the fixture packages in them.

    It is made once for all tests of this process, which removes it when it ends.
    """
    return _at_exit.enter_context(disk_after(_prepare, image(Wanted())))


def _prepare(host: Host) -> None:
    host.sh(": >/etc/apt/sources.list")
    host.suites("stable")
    host.ao("install", "--dry-run", "fx-hello")
    # So that every copy of the disk knows the digests of the base.
    host.look()
    host.run_program("check_repository.py")


#: Where a program stands in for systemctl, and what it writes to.
_NO_REBOOT, _REBOOTED = "/run/no-reboot", "/run/rebooted"


def reboots(host: Host, *argv: str) -> bool:
    """Run apt-ostree, which has to succeed; return whether it reboots the machine, which goes on."""
    host.run_program("no_reboot.sh", _NO_REBOOT, _REBOOTED)
    host.run("apt-ostree", *argv, env={"PATH": f"{_NO_REBOOT}:/usr/bin:/bin"})
    return host.sh(f"cat {_REBOOTED} 2>/dev/null && rm {_REBOOTED} || true") == "reboot\n"


#: Kills the worker of a change, as the kernel does when memory is short; fails if there is none.
KILL_WORKER = "pkill -KILL -f '[p]rogram.py worker'"


def unit_steps(plan: Mapping[str, Any]) -> dict[str, tuple[str, bool]]:
    """Return what a plan does with units: (action, whether it is done) by unit."""
    return {step["unit"]: (step["action"], step["acts"]) for step in plan["units"]}


def wait_for(host: Host, script: str, seconds: float = 60) -> None:
    """Wait until a shell command in the machine succeeds."""
    try:
        wait_until(lambda: host.succeeds(script), seconds=seconds, what=script)
    except TestbedError as error:
        raise AssertionError(str(error)) from error


def wait_for_stopped_worker(host: Host, unit: str) -> tuple[str, str]:
    """Wait until the worker of a background command stopped at its failpoint; return the pids of both."""
    client = host.unit_property(unit, "MainPID")
    wait_for(host, f"grep -q '(stopped)' /proc/$(pgrep -P {client})/status")
    return client, host.sh(f"pgrep -P {client}").strip()


class Shared:
    """A machine that tests use one after the other, as long as each gives it back as it was."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._stack = contextlib.ExitStack()
        self._host: Host | None = None
        self._first: Look | None = None

    def __enter__(self) -> Shared:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._host:
                self._host.check_clean("whole")
        finally:
            self._stack.close()

    def lend(self) -> Iterator[Host]:
        """Give the machine for one test; reset it and compare afterwards."""
        if self._host is None:
            self._host = self._stack.enter_context(booted(self._disk))
            self._first = self._host.look()
        host, self._host = self._host, None  # until it proves to be as it was
        yield host
        host.suites("stable")
        host.reset()
        assert self._first
        same(self._first.system(), host.look().system())
        host.sh("systemctl reset-failed")
        self._host = host
