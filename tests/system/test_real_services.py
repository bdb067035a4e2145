"""Debian's own services through Debian's own security updates: nginx, sshd and PostgreSQL, all in use.

One machine has them in the versions of the last point release. While nginx is asked without a pause, somebody
is logged in by ssh and a client of PostgreSQL is in the middle of a transaction, one `upgrade` brings
everything that the security archive has, and the tests look at it from all sides. A copy of the same disk
with a writable /usr is a plain Debian: there apt-get upgrades, and needrestart says what it would restart.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from testbed_lib.common import wait_until
from testbed_lib.images import Wanted, image

from tests.system import livehost
from tests.system.livehost import Host
from tests.system.test_security_upgrade import SECURITY, TREEFILE

pytestmark = pytest.mark.extended

SERVICES = ("nginx", "openssh-server", "postgresql", "needrestart")
#: The kernel's update takes half a minute for its initramfs, and is test_security_upgrade's matter.
NO_KERNEL = "Package: linux-image-*\nPin: release *\nPin-Priority: -1\n"
LONGEST_PAUSE = 10.0  # seconds without an answer of nginx; about one, where nothing else runs
CLUSTER = "postgresql@15-main.service"
SERVICE = "apt-ostreed.service"
SSL = ("libssl.so.3", "libcrypto.so.3")


@dataclass
class Update:
    """One update of a machine, and what was seen of it."""

    host: Host
    login: list[str]
    mapped_before: dict[str, dict[str, bool]]
    mapped_after: dict[str, dict[str, bool]]
    events: list[dict[str, Any]]
    requests: Requests
    session: Session
    transaction: Transaction
    versions: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def plan(self) -> dict[str, Any]:
        plan: dict[str, Any] = self.events[-1]["plan"]
        return plan

    def step(self, unit: str) -> dict[str, Any]:
        """The one line that the plan has about a unit."""
        (step,) = (each for each in self.plan["units"] if each["unit"] == unit)
        return dict(step)


# --- the machine


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    """Free ports: a container has the network of its host. None that connecting clients are given."""
    found: list[int] = []
    while len(found) < 4:
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", random.randrange(20000, 30000)))
            found.append(one.getsockname()[1])
    return dict(zip(("http", "ssh", "other http", "other ssh"), found, strict=True))


@pytest.fixture(scope="module")
def disk(ports: dict[str, int]) -> Iterator[Path]:
    """The disk of a machine that has the services, as they were before their security updates."""

    def prepare(host: Host) -> None:
        host.run_program("configure_services.sh", str(ports["http"]), str(ports["ssh"]))
        host.ao("install", "-A", "-y", *SERVICES, timeout=300)
        host.sh("mkdir -p -m 700 /root/.ssh; cd /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f id_ed25519")
        host.sh("cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys")
        host.run("tee", "/etc/apt/sources.list.d/security.sources", input=SECURITY)
        host.run("tee", "/etc/apt/preferences.d/no-kernel", input=NO_KERNEL)
        host.ao("refresh-md")
        unserved = [u for u in ("nginx.service", "ssh.service", CLUSTER) if not host.is_active(u)]
        assert not unserved and ask(ports["http"])  # each serves as soon as it is installed

    with livehost.disk_after(prepare, image(Wanted(treefile=TREEFILE))) as path:
        yield path


@pytest.fixture(scope="module")
def updated(disk: Path, ports: dict[str, int]) -> Iterator[Update]:
    """The machine, updated while all services are in use."""
    with livehost.booted(disk) as host:
        login = ["ssh", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
        login += ["-p", str(ports["ssh"]), "root@127.0.0.1"]
        before = host.installed()
        with (
            Requests(ports["http"]) as requests,
            Session(host, login) as session,
            Transaction(host) as transaction,
        ):
            mapped = json.loads(host.run_program("mapped.py").stdout)
            events = host.events("upgrade", "-A", "-y", "--restart-services", timeout=300)
            requests.wait_for_more()
            session.wait_for_more()
            mapped_after = json.loads(host.run_program("mapped.py").stdout)
        after = host.installed()
        changed = {name: (before[name], new) for name, new in after.items() if before.get(name) != new}
        yield Update(host, login, mapped, mapped_after, events, requests, session, transaction, changed)


# --- who is there while it happens


def ask(port: int) -> str:
    """Ask nginx for a page over a new connection; return what it says about itself."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 200 and b"nginx" in answer.read()
        return answer.headers["Server"]
    finally:
        connection.close()


class Requests:
    """Asks all the time; keeps the longest time without an answer, and how often there was none."""

    def __init__(self, port: int) -> None:
        self.answers = self.failures = 0
        self.pause = 0.0
        self._port = port
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Requests:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _ask(self) -> None:
        last = time.monotonic()
        while not self._end.is_set():
            try:
                ask(self._port)
            except (OSError, http.client.HTTPException):
                self.failures += 1
            else:
                now = time.monotonic()
                self.pause, last = max(self.pause, now - last), now
                self.answers += 1
            time.sleep(0.002)

    def wait_for_more(self) -> None:
        wait_until_grown(lambda: self.answers)


class Session:
    """A login that counts, aloud."""

    def __init__(self, host: Host, login: list[str]) -> None:
        self.numbers: list[int] = []
        self.unit = ""
        self._host, self._login = host, login
        self._read, self._write = os.pipe()
        self._run = threading.Thread(target=self._login_and_count)
        self._reader = threading.Thread(target=self._listen)

    def __enter__(self) -> Session:
        self._run.start()
        self._reader.start()
        self.wait_for_more()
        return self

    def __exit__(self, *_: object) -> None:
        self._host.run("pkill", "--full", "^sh -c cat /proc/self", check=False)
        self._run.join()
        os.close(self._write)
        self._reader.join()

    def _login_and_count(self) -> None:
        script = "cat /proc/self/cgroup; i=0; while sleep 0.05; do i=$((i + 1)); echo $i; done"
        words = [*self._login, f"exec sh -c '{script}'"]
        self._host.machine.exec(*words, stdout=self._write, stderr=self._write)

    def _listen(self) -> None:
        with os.fdopen(self._read) as stream:
            for line in stream:
                if line.strip().isdecimal():
                    self.numbers.append(int(line))
                elif "0::" in line:
                    self.unit = line.rpartition("/")[2].strip()

    def wait_for_more(self) -> None:
        wait_until_grown(lambda: len(self.numbers))


class Transaction:
    """A client of PostgreSQL that has committed one row and goes on with another."""

    def __init__(self, host: Host) -> None:
        self.said = ""
        self._host = host
        self._read, self._write = os.pipe()
        self._run = threading.Thread(target=self._connect)

    def __enter__(self) -> Transaction:
        self._run.start()
        os.write(self._write, b"CREATE TABLE t (row text); INSERT INTO t VALUES ('committed');\n")
        os.write(self._write, b"BEGIN; INSERT INTO t VALUES ('open');\n")
        query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
        livehost.wait_for(self._host, f'test "$({psql(query)})" = 1')
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._write, b"COMMIT;\n")
        os.close(self._write)
        self._run.join()
        os.close(self._read)

    def _connect(self) -> None:
        done = self._host.machine.exec("runuser", "-u", "postgres", "--", "psql", stdin=self._read)
        self.said = (done.stdout + done.stderr).decode()


def psql(query: str) -> str:
    """A shell command that prints the answer of PostgreSQL."""
    return f'cd /; runuser -u postgres -- psql -qAt -c "{query}"'


def wait_until_grown(count: Callable[[], int]) -> None:
    first = count()
    wait_until(lambda: count() >= first + 3, seconds=60, what="three more")


# --- the tests


def test_services_serve_when_installed_and_after_the_next_boot(disk: Path, ports: dict[str, int]):
    with livehost.booted(disk) as host:
        assert host.failed_units() == []
        assert ask(ports["http"])
        assert host.sh(psql("SELECT 1")) == "1\n"


def test_the_update_was_real_and_whole(updated: Update):
    host = updated.host
    assert {"nginx", "postgresql-15", "libssl3"} <= updated.versions.keys()
    shown = [i for i, e in enumerate(updated.events) if e["event"] == "plan" and e["kind"] == "live"]
    switched = [i for i, e in enumerate(updated.events) if e.get("title") == "Switching /usr"]
    assert shown and switched and shown[0] < switched[0]
    assert host.failed_units() == []
    for unit in ("nginx.service", "ssh.service", CLUSTER):
        assert host.is_active(unit), unit


def test_nginx_answers_with_its_new_version(updated: Update):
    host, requests = updated.host, updated.requests
    print(f"nginx: {requests.answers} answers, {requests.failures} failures, "
          f"at most {requests.pause * 1000:.0f} ms without an answer")  # fmt: skip
    assert requests.answers > 100
    assert requests.pause < LONGEST_PAUSE

    step = updated.step("nginx.service")
    assert (step["action"], step["acts"]) == ("restart", True)
    assert step["reason"] == "it runs code that the change replaces"
    assert {"/usr/sbin/nginx", "/usr/lib/x86_64-linux-gnu/libssl.so.3"} <= set(step["evidence"])
    assert step["processes"] and all(re.fullmatch(r"\d+ nginx", label) for label in step["processes"])

    assert updated.mapped_after["nginx.service"]["/usr/sbin/nginx"]
    pid = host.unit_property("nginx.service", "MainPID")
    assert f"{pid} nginx" not in step["processes"]
    assert host.sh(f"stat -L -c %d:%i /proc/{pid}/exe") == host.sh("stat -c %d:%i /usr/sbin/nginx")
    assert updated.versions["nginx"][1].partition("-")[0] in host.run("nginx", "-v").stderr


def test_a_login_survives_the_restart_of_its_server(updated: Update):
    step = updated.step("ssh.service")
    assert (step["action"], step["acts"]) == ("restart", True)
    assert step["clients"] == 0  # a login is a unit of its own
    assert all(updated.mapped_after["ssh.service"].values())

    numbers = updated.session.numbers
    assert numbers == list(range(1, len(numbers) + 1))
    assert updated.session.unit.startswith("session-")
    session = updated.step(updated.session.unit)  # and no second one
    assert (session["action"], session["acts"]) == ("defer", False)
    manager = {s["action"]: s["processes"] for s in updated.plan["units"] if s["unit"] == "user@0.service"}
    assert manager.keys() == {"reexec", "defer"}  # the defer is for the helper that PAM needs until the end
    assert not set(manager["reexec"]) & set(manager["defer"])
    assert any(label.endswith(" sshd") for label in session["processes"])


def test_postgresql_loses_what_was_not_committed_and_nothing_else(updated: Update):
    step = updated.step(CLUSTER)
    assert (step["action"], step["acts"]) == ("restart", True)
    assert "/usr/lib/postgresql/15/bin/postgres" in step["evidence"]
    assert len(step["processes"]) > 3  # the postmaster, its helpers, and the one that serves the client
    assert all(label.endswith(" postgres") for label in step["processes"])
    assert step["clients"] == 1

    assert updated.host.sh(psql("SELECT row FROM t")) == "committed\n"
    assert "terminating connection due to administrator command" in updated.transaction.said
    running = updated.host.sh(psql("SHOW server_version")).split()[0]
    assert running == updated.versions["postgresql-15"][1].partition("-")[0]


def test_the_plan_names_whoever_uses_the_new_library(updated: Update):
    """Who maps libssl and libcrypto is what /proc said just before; after, it says who runs old code."""
    using = {
        unit
        for unit, files in updated.mapped_before.items()
        if any(Path(path).name in SSL for path in files) and not unit.startswith("command-")
    }
    named = {
        step["unit"]
        for step in updated.plan["units"]
        if any(Path(path).name in SSL for path in step["evidence"])
    }
    assert named - {SERVICE} == using  # which started for this command
    assert updated.session.unit in named
    actions = {step["action"] for step in updated.plan["units"] if step["unit"] in named}
    assert actions <= {"restart", "reexec", "defer"}

    old = {unit for unit, files in updated.mapped_after.items() if not all(files.values())}
    # Staging the deployment starts this one, after the plan and before the switch; it ends at the shutdown.
    old.discard("ostree-finalize-staged-hold.service")
    deferred = {step["unit"] for step in updated.plan["units"] if step["action"] == "defer"}
    assert {unit for unit in old if not unit.startswith("command-")} == deferred


def test_needrestart_names_the_same(updated: Update, disk: Path, ports: dict[str, int]):
    """A writable /usr makes a plain Debian of a copy of the disk: apt-get upgrades it, needrestart looks.

    (Below an overlay, as `ostree admin unlock` makes one, files have other device numbers in /proc/PID/maps
    than stat() gives, and needrestart takes everything for old.) What differs:

    - needrestart calls PID 1 systemd-manager.
    - It keeps sessions apart from services, and there is none in this machine.
    - apt-ostreed, which runs as long as a command does, is restarted by us only.
    - It names dbus and systemd-logind, as does the plan, which defers them; needrestart's configuration says
      not to restart them, either.
    """
    with livehost.booted(disk) as plain:
        plain.run_program(
            "become_plain_debian.sh",
            *(str(ports[name]) for name in ("http", "other http", "ssh", "other ssh")),
        )
        quietly = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
        plain.run("apt-get", "upgrade", "-y", "-q", "-o", "Dpkg::Options::=--force-unsafe-io", env=quietly)
        said = plain.run("needrestart", "-b", "-l", "-r", "l").stdout
    theirs = set(re.findall(r"^NEEDRESTART-SVC: (.*)$", said, re.MULTILINE))
    ours = {s["unit"] for s in updated.plan["units"] if s["action"] in ("restart", "reexec", "defer")}
    print("needrestart:", *sorted(theirs), "\nours:", *sorted(ours))
    sessions = {unit for unit in ours if unit.startswith(("user@", "session-"))}
    assert theirs - {"systemd-manager"} | {"init.scope"} == ours - sessions - {SERVICE}
    assert "systemd-manager" in theirs


def test_the_way_back_from_a_login(updated: Update, ports: dict[str, int]):
    """Whoever is logged in may restart the server of the login, and sees the end of it.

    Not the upgrade itself: the container's own processes have no CAP_NET_ADMIN, which bwrap needs.
    """
    host = updated.host
    done = host.run(*updated.login, "apt-ostree rollback --live --json; echo alive")
    result, _, rest = done.stdout.rpartition("alive")
    assert rest == "\n" and "error" not in json.loads(result)
    assert host.installed()["nginx"] == updated.versions["nginx"][0]
    pid = host.unit_property("nginx.service", "MainPID")
    assert host.sh(f"stat -L -c %d:%i /proc/{pid}/exe") == host.sh("stat -c %d:%i /usr/sbin/nginx")
    assert ask(ports["http"])
    assert host.sh(psql("SELECT row FROM t")) == "committed\n"
    old = updated.versions["postgresql-15"][0].partition("-")[0]
    assert host.sh(psql("SHOW server_version")).split()[0] == old
