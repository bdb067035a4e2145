"""The test bed keeps what docs/testbed.md promises; every test boots for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from testbed_lib.bootentry import parse_entry, version_key
from testbed_lib.cgroup import Cgroup, machine_cgroup
from testbed_lib.common import MACHINES, TestbedError, wait_until
from testbed_lib.images import Wanted
from testbed_lib.machine import Machine, sweep
from testbed_lib.store import open_store

from tests.system.conftest import TESTBED


def text_of(machine: Machine, script: str) -> str:
    return machine.exec("sh", "-euc", script, check=True).stdout.decode().strip()


def booted_deployment(machine: Machine) -> str:
    status = text_of(machine, "ostree admin status")
    return next(line.split()[2] for line in status.splitlines() if line.startswith("*"))


def stage_deployment(machine: Machine) -> str:
    """Stage a deployment and return its name."""
    text_of(machine, "ostree admin deploy --stage --karg-append=testbed $(ostree refs | head -n 1)")
    first = text_of(machine, "ostree admin status").splitlines()[0]
    assert first.endswith("(staged)")
    return first.split()[1]


# --- boot entries


def test_entries_sort_by_version_numbers():
    names = ["ostree-9-debian.conf", "ostree-10-debian.conf", "ostree-2-debian.conf"]
    assert max(names, key=version_key) == "ostree-10-debian.conf"


def test_entry_without_deployment_is_an_error():
    entry = parse_entry("x.conf", "title X\nversion 1\noptions root=LABEL=root rw\nlinux /vmlinuz\n")
    with pytest.raises(TestbedError):
        _ = entry.boot_link


# --- commands


def test_run_passes_streams_and_exit_code_through():
    data = bytes(range(256)) * 1000
    argv = [TESTBED, "run", "--", "sh", "-c", "cat; echo problem >&2; exit 7"]
    done = subprocess.run(argv, input=data, capture_output=True, check=False, timeout=300)
    assert done.returncode == 7
    assert done.stdout == data
    assert done.stderr.endswith(b"problem\n")


def test_commands(machine: Machine):
    assert machine.exec("cat", input=b"in\0put").stdout == b"in\0put"
    assert machine.exec("sh", "-c", "exit 3").returncode == 3
    assert machine.exec("sh", "-c", "kill -9 $$").returncode == 137
    assert machine.exec("no-such-command").returncode == 127
    assert machine.exec("sh", "-c", "sleep 100 & sleep 100", timeout=0.5).returncode == 124
    assert text_of(machine, "pgrep -c sleep || true") == "0"
    began = time.monotonic()
    for _ in range(10):
        machine.exec("true", check=True)
    assert time.monotonic() - began < 5


def test_machine_is_as_a_real_boot(machine: Machine):
    assert text_of(machine, "systemctl is-system-running") == "running"
    assert text_of(machine, "cat /proc/1/comm") == "systemd"
    assert booted_deployment(machine)
    assert "ro" in text_of(machine, "findmnt -no OPTIONS /usr").split(",")
    assert "ro" in text_of(machine, "findmnt -no OPTIONS /sysroot").split(",")
    assert text_of(machine, "dpkg-query --show --showformat='${db:Status-Abbrev}' apt-ostree") == "ii"
    assert "apt-ostree" in text_of(machine, "apt-ostree --version")
    text_of(machine, "ostree fsck --quiet && dpkg --audit")


def peer_group(machine: Machine, path: str) -> str:
    line = text_of(machine, f"grep ' {path} ' /proc/1/mountinfo")
    return next(word for word in line.split() if word.startswith("shared:"))


@pytest.mark.parametrize("shared", [False, True])
def test_peer_group_of_usr(new_machine: Callable[..., Machine], shared: bool):
    machine = new_machine()
    machine.boot(shared_peer_group=shared)
    assert (peer_group(machine, "/usr") == peer_group(machine, "/")) is shared


# --- reboots and power cuts


def check_reboot_follows_the_boot_entry(machine: Machine) -> None:
    first = booted_deployment(machine)
    staged = stage_deployment(machine)
    boot_id = text_of(machine, "cat /proc/sys/kernel/random/boot_id")
    machine.reboot()
    assert booted_deployment(machine) == staged != first
    assert text_of(machine, "cat /proc/sys/kernel/random/boot_id") != boot_id
    text_of(machine, "ostree fsck --quiet")


def check_power_cut_loses_what_was_not_synced(machine: Machine, *, vm: bool = False) -> None:
    before = booted_deployment(machine)
    stage_deployment(machine)
    text_of(machine, "echo kept >/var/kept; sync; echo lost >/var/lost")
    machine.kill()
    assert not machine.is_running()
    machine.boot(vm=vm)
    assert text_of(machine, "cat /var/kept") == "kept"
    assert machine.exec("grep", "lost", "/var/lost").returncode != 0
    # A staged deployment is made at a clean shutdown only, and there was none.
    assert booted_deployment(machine) == before
    text_of(machine, "ostree fsck --quiet")


def test_reboot_follows_the_boot_entry(machine: Machine):
    check_reboot_follows_the_boot_entry(machine)


@pytest.mark.extended
def test_reboot_from_inside(machine: Machine):
    staged = stage_deployment(machine)
    machine.exec("systemctl", "--no-block", "reboot", check=True)
    state = machine.directory / "state.json"
    wait_until(
        lambda: state.exists() and json.loads(state.read_text())["boots"] == 2, seconds=60, what="a boot"
    )
    machine.wait_settled()
    assert booted_deployment(machine) == staged


def test_power_cut_loses_what_was_not_synced(machine: Machine):
    check_power_cut_loses_what_was_not_synced(machine)


@pytest.mark.extended
def test_stop_keeps_the_disk(machine: Machine):
    text_of(machine, "echo kept >/var/kept")
    machine.stop()
    assert not machine.is_running()
    machine.boot()
    assert text_of(machine, "cat /var/kept") == "kept"


@pytest.mark.vm
def test_virtual_machine(new_machine: Callable[..., Machine]):
    machine = new_machine()
    machine.boot(vm=True)
    data = bytes(range(256)) * 4000
    assert machine.exec("cat", input=data).stdout == data
    assert machine.exec("sh", "-c", "exit 3").returncode == 3
    assert machine.exec("sleep", "100", timeout=2).returncode == 124
    assert text_of(machine, "systemd-detect-virt --vm")
    text_of(machine, "getent hosts deb.debian.org")
    check_reboot_follows_the_boot_entry(machine)
    check_power_cut_loses_what_was_not_synced(machine, vm=True)
    machine.stop()


# --- nothing is left over


def loop_devices(name: str) -> list[str]:
    files = Path("/sys/block").glob("loop*/loop/backing_file")
    return [text for path in files if f"/machines/{name}/" in (text := path.read_text())]


def everything_is_gone(name: str) -> bool:
    group = machine_cgroup(name).path
    processes = [line for path in group.rglob("cgroup.procs") for line in path.read_text().split()]
    return not processes and not loop_devices(name) and name not in Path("/proc/self/mounts").read_text()


def start_run() -> tuple[subprocess.Popen[bytes], str]:
    """Begin a `testbed run` that lasts; return it and its machine's name."""
    # A shell starts what it puts into the background, such as all these tests, with SIGINT ignored.
    argv = ["env", "--default-signal=INT", TESTBED, "run", "--", "sh", "-c", "echo ready; sleep 1000"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"ready\n"
    name = next(path.name for path in MACHINES.iterdir() if path.name.startswith(f"run-{process.pid}-"))
    return process, name


@pytest.mark.variants
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_run_leaves_nothing(number: signal.Signals):
    process, name = start_run()
    disk = open_store() / "machines" / name
    assert disk.exists() and loop_devices(name)
    process.send_signal(number)
    process.communicate(timeout=60)
    wait_until(lambda: everything_is_gone(name), seconds=30, what="the end of everything")
    wait_until(lambda: not disk.exists() and not (MACHINES / name).exists(), seconds=30, what="no files")


@pytest.mark.extended
def test_killed_guardian_leaves_nothing():
    process, name = start_run()
    guardian = json.loads((MACHINES / name / "state.json").read_text())["guardian"]
    os.kill(guardian, signal.SIGKILL)
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: everything_is_gone(name), seconds=30, what="the end of everything")
    sweep()  # as the next command does
    assert not (MACHINES / name).exists()
    assert not (open_store() / "machines" / name).exists()
    assert not machine_cgroup(name).path.exists()


class LateCommand(Cgroup):
    """A frozen cgroup that a command enters just after all in it was killed."""

    command: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        super().kill()
        if not self.command:
            self.freeze()
            self.command = subprocess.Popen([*self.launcher(), "true"])
            wait_until(lambda: bool(self.processes()), seconds=10, what="a command in the cgroup")


@pytest.mark.extended
def test_a_command_that_enters_late_is_killed_too():
    group = LateCommand(machine_cgroup("test-late-command").path)
    group.create()
    group.remove()
    assert group.command and group.command.wait(10) == -signal.SIGKILL
    assert not group.path.exists()


def test_what_entered_a_machine_that_is_gone_is_killed_by_the_next_command():
    with subprocess.Popen(["true"]) as caller:
        pass
    group = machine_cgroup(f"run-{caller.pid}-late").create()
    with subprocess.Popen([*group.launcher(), "sleep", "infinity"]) as late:
        wait_until(group.processes, seconds=10, what="a command in the cgroup")
        group.freeze()
        sweep()
        assert late.wait(10) == -signal.SIGKILL
    assert not group.path.exists()


# --- fixture packages


def test_fixture_suites(machine: Machine):
    """The repository is trusted as far as it is meant to be."""
    text_of(machine, ": >/etc/apt/sources.list && apt-get update")
    assert "Candidate: 1.0" in text_of(machine, "apt-cache policy fx-hello")
    text_of(machine, "testbed-fixtures stable updates && apt-get update")
    assert "Candidate: 2.0" in text_of(machine, "apt-cache policy fx-hello")
    for suite in ("unsigned", "badsig", "expired"):
        machine.exec("testbed-fixtures", suite, check=True)
        assert machine.exec("apt-get", "update", "--error-on=any").returncode != 0, suite
        assert "9.0" not in text_of(machine, "apt-cache policy fx-hello")


@pytest.mark.extended
def test_without_fixture_repository(new_machine: Callable[..., Machine]):
    machine = new_machine(Wanted(fixtures=False))
    machine.boot()
    assert machine.exec("test", "-e", "/var/lib/testbed/repo").returncode == 1
    assert machine.exec("test", "-e", "/etc/apt/sources.list.d/testbed.sources").returncode == 1
