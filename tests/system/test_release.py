"""A Debian 12 becomes a Debian 13 by a rebase, with its layered packages and their state, and goes back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed_lib.image import mounted_disk
from testbed_lib.images import Wanted, image

from tests.system import livehost
from tests.system.livehost import Host

pytestmark = pytest.mark.extended

TREEFILE = Path(__file__).resolve().parents[2] / "examples/debian-12-release-only.yaml"
NEXT = "debian/13/amd64/minimal"
#: Debian 13 has no geekcode any more.
PACKAGES = ("munge", "geekcode")
STATE = (
    "getent passwd munge; getent group munge; stat -c '%U %G %a' /var/lib/munge;"
    " sha256sum /etc/munge/munge.key"
)


@pytest.fixture
def host() -> Iterator[Host]:
    """A Debian 12 whose repository has a tree of Debian 13, too."""
    with livehost.booted(image(Wanted(treefile=TREEFILE)), change=add_the_next) as machine:
        machine.suites("none")
        yield machine


def add_the_next(disk: Path) -> None:
    with mounted_disk(disk) as old, mounted_disk(image(Wanted())) as new:
        repositories = f"--repo={old}/ostree/repo", f"{new}/ostree/repo"
        subprocess.run(["ostree", "pull-local", *repositories, NEXT], check=True)


def release(host: Host) -> str:
    return host.sh(". /etc/os-release; echo $VERSION_ID").strip()


def test_to_the_next_release_and_back(host: Host):
    host.ao("install", "-A", "-y", *PACKAGES, timeout=300)
    host.sh("echo '# mine' >>/etc/default/munge")
    host.reboot()
    old, state = host.installed(), host.sh(STATE)

    result = host.json("rebase", f":{NEXT}", timeout=600)

    origins = {step["name"]: step["origin"] for step in result["transaction"]["install"]}
    assert origins["geekcode"] == "present tree"
    assert origins["munge"].startswith("Debian:stable")
    assert release(host) == "12" and host.installed() == old
    host.reboot()
    assert release(host) == "13"
    new = host.installed()
    assert new["munge"] != old["munge"] and new["geekcode"] == old["geekcode"]
    assert host.is_active("munge.service") and host.sh(STATE) == state
    assert host.sh("tail -n 1 /etc/default/munge") == "# mine\n"
    host.check_clean()

    host.ao("install", "-A", "-y", "figlet", timeout=300)  # from the lists of Debian 13
    assert host.installed()["figlet"]
    host.ao("cleanup", "--pending")
    host.ao("rollback")
    host.reboot()
    assert release(host) == "12" and host.installed() == old
    assert host.is_active("munge.service") and host.sh(STATE) == state
    host.ao("install", "-A", "-y", "figlet", timeout=300)  # and of Debian 12
    host.check_clean()
