"""Another release, other kernel arguments and base packages, by true boots of a virtual machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from testbed_lib.images import Wanted
from testbed_lib.machine import Machine

from tests.system.livehost import WRITABLE_SYSROOT, Host
from tests.system.test_release import NEXT, TREEFILE, add_the_next, release

pytestmark = pytest.mark.vm

TIMEOUT = 1200  # seconds of one command; everything is emulated
UPGRADES = 10


def query(host: Host, text: str) -> str:
    return host.sh(f'runuser -u postgres -- psql --no-align --tuples-only --command="{text}"').strip()


def check_services(host: Host, rows: str) -> None:
    for unit in ("nginx.service", "postgresql@15-main.service"):
        assert host.is_active(unit)
    assert host.sh("curl --silent --fail http://localhost/x.html") == "mine\n"
    assert query(host, "select string_agg(name, ' ' order by name) from fx") == rows
    assert host.failed_units() == []


def use(host: Host) -> None:
    """Layer a web server and a database, use them, and prepare the next release; its boot is locked."""
    host.suites("none")
    host.ao("install", "-A", "-y", "nginx", "postgresql", timeout=TIMEOUT)
    query(host, "create table fx (name text)")
    query(host, "insert into fx values ('a')")
    host.sh("echo mine >/var/www/html/x.html")
    host.reboot()
    check_services(host, "a")
    plan = host.json("rebase", f":{NEXT}", "--lock-finalization", timeout=TIMEOUT)["transaction"]
    assert plan["protected"] == ["postgresql-15"]
    assert {row["origin"] for row in plan["install"] if row["name"] == "postgresql-15"} == {"present tree"}


def test_to_the_next_release_and_back_with_services_in_use(new_machine: Callable[..., Machine]):
    """Each release boots in a virtual machine; a container stages it, as that takes half an hour there."""
    machine = new_machine(Wanted(treefile=TREEFILE))
    add_the_next(machine._disk())
    machine.boot()
    host = Host(machine)
    use(host)
    machine.stop()

    def boot_after(*change: str) -> tuple[str, str]:
        machine.boot()
        host.ao(*change, timeout=TIMEOUT)
        machine.stop()
        machine.boot(vm=True)
        return release(host), host.sh("uname -r").partition("-")[0].rpartition(".")[0]

    machine.boot(vm=True)  # what is locked does not boot
    assert release(host) == "12"
    check_services(host, "a")
    query(host, "insert into fx values ('b')")
    machine.stop()

    assert boot_after("rebase", "-C", f":{NEXT}") == ("13", "6.12")
    check_services(host, "a b")
    assert "postgresql-15" in host.deployments()[0]["requested-packages"]
    query(host, "insert into fx values ('c')")
    machine.stop()

    assert boot_after("rebase", ":debian/12/amd64/release-only") == ("12", "6.1")
    check_services(host, "a b c")
    machine.stop()
    machine.boot()
    host.check_clean()


def commit_newer(host: Host) -> None:
    """Write the commits of later upgrades; in the virtual machine that would take minutes each."""
    host.sh("mkdir -p /var/tmp/fx/usr/share")
    trees = (f"--tree=ref={NEXT}", "--tree=dir=/var/tmp/fx", "--owner-uid=0", "--owner-gid=0")
    commit = (*WRITABLE_SYSROOT, "ostree", "commit", "--repo=/ostree/repo", *trees)
    for number in range(UPGRADES):
        host.sh(f"echo {number} >/var/tmp/fx/usr/share/fx-number")
        host.run(*commit, f"--branch=fx/{number}")


def test_what_is_pinned_stays_and_what_was_changed_is_taken_back(new_vm: Callable[..., Host]):
    def prepare(host: Host) -> None:
        commit_newer(host)
        host.ao("kargs", "--append=fx.first=1")

    host = new_vm(prepare)
    assert "fx.first=1" in host.sh("cat /proc/cmdline").split()
    host.ao("override", "remove", "nano", timeout=TIMEOUT)
    host.reboot()
    assert not host.exists("/usr/bin/nano")
    host.ao("kargs", "--delete=fx.first=1", timeout=TIMEOUT)
    host.ao("override", "reset", "nano", timeout=TIMEOUT)
    host.reboot()
    assert host.exists("/usr/bin/nano") and "fx.first=1" not in host.sh("cat /proc/cmdline").split()

    host.ao("pin", "booted", timeout=TIMEOUT)
    pinned = host.commit_of_booted()
    host.machine.stop()

    host.machine.boot()
    for number in range(UPGRADES):
        host.run(*WRITABLE_SYSROOT, "ostree", "refs", "--force", f"--create={NEXT}", f"fx/{number}")
        host.ao("upgrade", "--base-only", timeout=TIMEOUT)
        host.reboot()
        assert host.sh("cat /usr/share/fx-number") == f"{number}\n"
    host.machine.stop()
    host.machine.boot(vm=True)
    rows = host.deployments()
    assert [(row["pinned"], row["booted"]) for row in rows] == [(False, True), (False, False), (True, False)]
    assert rows[2]["checksum"] == pinned
    host.ao("rollback", timeout=TIMEOUT)
    host.reboot()
    assert host.sh("cat /usr/share/fx-number") == f"{UPGRADES - 2}\n"
    host.machine.stop()
    host.machine.boot()
    host.check_clean()
