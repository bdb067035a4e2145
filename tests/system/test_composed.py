"""Two machines from one composed tree share only what its author wrote, and each keeps its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from testbed_lib.images import Wanted, image

from tests.system import livehost
from tests.system.livehost import Host

pytestmark = pytest.mark.extended

TREEFILE = Path(__file__).parent / "trees" / "machines.yaml"
MINE = [
    "/etc/bind/rndc.key",
    "/etc/iscsi/initiatorname.iscsi",
    "/etc/machine-id",
    "/etc/munge/munge.key",
    "/etc/nvme/hostid",
    "/etc/nvme/hostnqn",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssl/private/ssl-cert-snakeoil.key",
    "/var/lib/postgresql/17/main/global/pg_control",
]
SERVICE = "apt-ostree-configure.service"


@dataclass(frozen=True)
class Seen:
    """What a machine showed after its first boot.

    secrets: path -> digest of each file that seems to belong to one machine.
    failed: the units that failed.
    """

    secrets: dict[str, str]
    failed: str


def secrets(host: Host) -> dict[str, str]:
    found: dict[str, str] = json.loads(host.run_program("secrets.py").stdout)
    return found


def look(host: Host) -> Seen:
    return Seen(secrets(host), host.sh("systemctl --failed --plain --no-legend"))


@pytest.fixture(scope="module")
def disk() -> Path:
    return image(Wanted(treefile=TREEFILE, fixtures=False))


@pytest.fixture(scope="module")
def other(disk: Path) -> Seen:
    with livehost.booted(disk) as machine:
        return look(machine)


@pytest.fixture(scope="module")
def host(disk: Path, other: Seen) -> Iterator[Host]:
    """A machine; the other one has stopped, because containers share ports."""
    with livehost.booted(disk) as machine:
        yield machine


@pytest.fixture(scope="module")
def first(host: Host) -> Seen:
    return look(host)


def test_two_machines_share_what_the_author_wrote(host: Host, first: Seen, other: Seen):
    assert set(MINE) <= set(first.secrets) and set(MINE) <= set(other.secrets)
    shared = {path for path, digest in first.secrets.items() if other.secrets.get(path) == digest}
    assert shared == {"/etc/fleet.key"}
    shipped = host.sh("ostree ls -R $(ostree rev-parse --repo=/ostree/repo debian/13/amd64/minimal) /usr")
    assert not [path for path in MINE[:-1] if f" /usr{path}" in shipped and path != "/etc/machine-id"]
    assert "main/global" not in shipped


def test_their_services_run(host: Host, first: Seen):
    assert first.failed == ""
    assert "STATUS:          Success" in host.sh("munge -n | unmunge")
    assert host.sh("su postgres -c 'psql -Atc \"select 6 * 7\"'") == "42\n"
    host.sh("named-checkconf; sshd -t; iscsistart -v")
    assert host.sh("stat -c %U:%a /etc/munge/munge.key /etc/bind/rndc.key") == "munge:600\nbind:640\n"


def test_what_a_machine_made_stays(host: Host, first: Seen):
    host.sh("rm /etc/nvme/hostid")
    host.reboot()
    left = {path: digest for path, digest in first.secrets.items() if path in MINE[:-1]}
    del left["/etc/nvme/hostid"]
    now = secrets(host)
    assert {path: now.get(path) for path in left} == left
    assert "/etc/nvme/hostid" not in now  # its owner removed it
    assert host.sh(f"systemctl show -P Result -P ActiveState {SERVICE}").split() == [
        "exec-condition",
        "inactive",
    ]


@pytest.mark.parametrize("action", ["error", "kill"])
@pytest.mark.parametrize("step", ["before", "configured", "before-record"])
def test_a_configure_step_that_was_cut_short_is_repeated(host: Host, first: Seen, step: str, action: str):
    """What the machine has by then stays."""
    host.sh("systemctl stop munge; rm -f /etc/munge/munge.key /etc/apt-ostree/configured.json")
    mounts = host.sh("findmnt -rn | wc -l")
    host.ao("recover", "--at=configure", code=1, failpoint=f"deferred.{step}={action}")
    made = host.sh("sha256sum </etc/munge/munge.key 2>/dev/null || true")
    assert bool(made) == (step != "before")
    host.ao("recover", "--at=configure")
    assert made in ("", host.sh("sha256sum </etc/munge/munge.key"))
    host.sh("cmp /usr/lib/sysimage/apt-ostree/deferred.json /etc/apt-ostree/configured.json")
    host.sh("! test -e /etc/apt-ostree/configuring.json; ! ls -A /ostree/apt-ostree/work | grep build-")
    assert host.sh("findmnt -rn | wc -l") == mounts
    host.sh("systemctl reset-failed munge; systemctl start munge; munge -n | unmunge")


def test_a_live_change_to_such_a_tree_configures_its_packages(host: Host, first: Seen):
    """The next tree of the ref leaves munge to machines, and this one has not configured it yet."""
    host.sh("systemctl stop munge; rm /etc/munge/munge.key /etc/apt-ostree/configured.json")
    host.run_program("commit_manifest.sh")
    host.json("upgrade", "-A", "-y", "--base-only")
    assert secrets(host)["/etc/munge/munge.key"] != first.secrets["/etc/munge/munge.key"]
    host.sh("systemctl start munge; munge -n | unmunge")
