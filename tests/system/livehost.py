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
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from testbed_lib.images import Wanted, image
from testbed_lib.machine import Machine

_numbers = itertools.count(1)

#: Prints everything that a live change may touch, as JSON. Digests of files in /usr are remembered by the
#: name of the repository object that they are; check_clean() verifies that it stands for the content.
_LOOK = r"""
import hashlib, json, os, pathlib, re, sqlite3, stat, subprocess
base, recent = pathlib.Path("/var/lib/testbed/digests.json"), pathlib.Path("/run/testbed-digests.json")
digests = {}
for path in (base, recent):
    if path.exists():
        digests |= json.loads(path.read_text())
known = len(digests)
objects = {}
for directory in os.scandir("/ostree/repo/objects"):
    for entry in os.scandir(directory):
        objects[entry.inode()] = directory.name + entry.name
mounted = {line.split(" ")[4] for line in open("/proc/1/mountinfo")}
def describe(path):
    info = os.lstat(path)
    row = [stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid]
    if stat.S_ISLNK(info.st_mode):
        return [*row, os.readlink(path)]
    if stat.S_ISREG(info.st_mode):
        name = objects.get(info.st_ino) if path.startswith("/usr/") else None
        digest = digests.get(name) or hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
        if name:
            digests[name] = digest
        return [*row, digest]
    return row
def tree(top):
    found = {}
    for where, directories, files in os.walk(top):
        directories[:] = [name for name in directories if f"{where}/{name}" not in mounted]
        for name in directories + files:
            path = f"{where}/{name}"
            try:
                found[path] = describe(path)
            except FileNotFoundError:
                pass
    return found
def lines(*argv):
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True).stdout.splitlines()
etc = tree("/etc")
usr = tree("/usr")
if os.access("/usr", os.W_OK):  # unlocked: any Python program writes its caches there
    usr = {path: row for path, row in usr.items() if "/__pycache__" not in path}
mounts = []
for line in open("/proc/1/mountinfo"):
    words = line.split(" ")
    if words[4] == "/usr" or words[4].startswith("/usr/"):
        after = line.split(" - ")[1].split(" ")
        mounts.append([words[3], words[4], after[0], re.sub("^/dev/loop.*", "/dev/loop", after[1])])
records = []
if os.path.exists("/var/lib/apt-ostree/state.db"):
    db = sqlite3.connect("file:/var/lib/apt-ostree/state.db?mode=ro", uri=True)
    records = [list(row) for row in db.execute("SELECT id, phase, target FROM generation ORDER BY id")]
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
if len(digests) != known:
    (recent if base.exists() else base).write_text(json.dumps(digests))
listed = lines("systemctl", "list-units", "--plain", "--no-legend", "--state=active", "fx-*")
units = [line.split()[0] for line in listed]
print(json.dumps({
    "usr": hashlib.sha256(json.dumps(usr, sort_keys=True).encode()).hexdigest(),
    "etc": etc,
    "state": tree("/var/lib/apt-ostree"),
    "refs": sorted(lines("ostree", "refs")),
    "deployments": lines("ostree", "admin", "status"),
    "mounts": mounts,
    "records": records,
    "units": units,
    "store": sorted(map(str, pathlib.Path("/ostree/apt-ostree").glob("*/*"))),
}))
"""


#: As `ostree fsck`, but only of objects that were touched since the disk was prepared: a write through a
#: hardlink would be seen, in half a second instead of five.
_CHECK_REPOSITORY = r"""
import os, pathlib, gi
gi.require_version("OSTree", "1.0")
from gi.repository import Gio, OSTree
repo = OSTree.Repo.new(Gio.File.new_for_path("/ostree/repo"))
repo.open(None)
kinds = {"commit": OSTree.ObjectType.COMMIT, "dirtree": OSTree.ObjectType.DIR_TREE,
         "dirmeta": OSTree.ObjectType.DIR_META, "file": OSTree.ObjectType.FILE}
since = os.stat("/etc/apt/sources.list").st_ctime
for where, _directories, files in os.walk("/ostree/repo/objects"):
    for name in files:
        stem, _, kind = name.partition(".")
        if kind in kinds and os.lstat(f"{where}/{name}").st_ctime > since:
            repo.fsck_object(kinds[kind], where[-2:] + stem, None)
"""


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
        self, *argv: str, check: bool = True, env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        words = ["env", *(f"{k}={v}" for k, v in env.items()), *argv] if env else argv
        done = self.machine.exec(*words, timeout=timeout)
        text = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )
        if check and done.returncode:
            raise AssertionError(f"exit code {done.returncode} from {argv}:\n{text.stdout}{text.stderr}")
        return text

    def sh(self, script: str, *, check: bool = True) -> str:
        return self.run("sh", "-euc", script, check=check).stdout

    def ao(self, *argv: str, code: int = 0, failpoint: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run apt-ostree, which has to end with this exit code."""
        env = {"APT_OSTREE_FAILPOINT": failpoint} if failpoint else None
        done = self.run("apt-ostree", *argv, check=False, env=env)
        assert done.returncode == code, f"{argv} {failpoint}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def json(self, *argv: str, code: int = 0) -> list[dict[str, Any]]:
        """Run apt-ostree with --json and return its events."""
        return [json.loads(line) for line in self.ao(*argv, "--json", code=code).stdout.splitlines()]

    def look(self) -> Look:
        return Look(**json.loads(self.run("/usr/bin/python3", "-c", _LOOK).stdout))

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

    def is_active(self, unit: str) -> bool:
        return self.succeeds(f"systemctl is-active --quiet {unit}")

    def exists(self, path: str) -> bool:
        return self.succeeds(f"test -e {path}")

    def suites(self, *names: str) -> None:
        """Offer these suites of the fixture repository."""
        self.run("testbed-fixtures", *names)

    def commit_of_pending(self) -> str:
        """Return the commit of the deployment that the next boot starts."""
        return self.sh("ostree admin status").split()[1].partition(".")[0]

    def undeploy(self) -> None:
        """Drop the pending deployment, if there is one."""
        self.sh("ostree admin status | head -n 1 | grep -q '^[*]' || ostree admin undeploy 0 >/dev/null")

    def reset(self) -> None:
        """Go back to the booted system, without a pending deployment."""
        self.ao("apply-live", "--reset")
        self.undeploy()

    def power_cut(self) -> None:
        self.machine.kill()
        self.machine.boot(shared_peer_group=self._shared)

    def reboot(self) -> None:
        self.machine.reboot()

    def commit(self, ref: str, directory: str) -> None:
        """Commit the booted tree, with a directory laid over it, to a ref."""
        self.sh(
            "base=$(ostree admin status | sed -n 's/^[*] [^ ]* \\([0-9a-f]*\\).*/\\1/p');"
            "unshare -m sh -euc 'mount -o remount,rw /sysroot; ostree commit --repo=/ostree/repo --branch=$0"
            f" --owner-uid=0 --owner-gid=0 --tree=ref=$1 --tree=dir=$2 >/dev/null' {ref} $base {directory}"
        )

    def check_clean(self) -> None:
        """What must hold after anything: the repository is sound, files are as dpkg knows them."""
        self.run("/usr/bin/python3", "-c", _CHECK_REPOSITORY)
        verified = self.run("dpkg", "--verify", check=False).stdout.splitlines()
        assert [line for line in verified if " c /etc/" not in line] == []


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
    assert json.loads(done.stdout.splitlines()[-1])["error"] == "Refused"


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
def booted(disk: Path, *, shared_peer_group: bool = False) -> Iterator[Host]:
    """Give a machine with a copy of a disk; it is removed afterwards."""
    machine = Machine(f"run-{os.getpid()}-live{next(_numbers)}")
    machine.create_disk(disk)
    try:
        machine.boot(shared_peer_group=shared_peer_group)
        yield Host(machine, shared_peer_group=shared_peer_group)
    finally:
        machine.remove()


@contextlib.contextmanager
def prepared_disk() -> Iterator[Path]:
    """Give the disk of a machine that has its package lists, and nothing but the fixture packages in them."""
    yield _prepared()._disk()


@functools.cache
def _prepared() -> Machine:
    """Prepare a machine, once for all tests of this process, which removes it when it ends."""
    machine = Machine(f"run-{os.getpid()}-prepared")
    atexit.register(machine.remove)
    machine.create_disk(image(Wanted()))
    machine.boot()
    host = Host(machine)
    host.sh(": >/etc/apt/sources.list")
    host.suites("stable")
    host.ao("install", "--dry-run", "fx-hello")
    host.look()  # so that every copy of the disk knows the digests of the base
    machine.stop()
    return machine


def wait_for(host: Host, script: str, seconds: float = 60) -> None:
    """Wait until a shell command in the machine succeeds."""
    end = time.monotonic() + seconds
    while not host.succeeds(script):
        assert time.monotonic() < end, script
        time.sleep(0.05)


def wait_for_stopped_worker(host: Host, unit: str) -> tuple[str, str]:
    """Wait until the worker of a background command stopped at its failpoint; return the pids of both."""
    wait_for(
        host,
        f"p=$(systemctl show -p MainPID --value {unit}); grep -q '(stopped)' /proc/$(pgrep -P $p)/status",
    )
    client = host.sh(f"systemctl show -p MainPID --value {unit}").strip()
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
                self._host.check_clean()
                self._host.run("ostree", "fsck", "--quiet")
        finally:
            self._stack.close()

    def lend(self) -> Iterator[Host]:
        """Give the machine for one test; reset it and compare afterwards."""
        if self._host is None:
            self._host = self._stack.enter_context(booted(self._disk))
            self._first = self._host.look()
        host, self._host = self._host, None  # until it proves to be as it was
        yield host
        host.reset()
        assert self._first
        same(self._first.system(), host.look().system())
        host.sh("systemctl reset-failed")
        self._host = host
