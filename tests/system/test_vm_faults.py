"""Power cuts in a virtual machine, at any moment of a live change: a minute or two each.

    sudo APT_OSTREE_TORTURE=1 make vm ARGS="-s -k power_cuts"

APT_OSTREE_TORTURE_SEED and APT_OSTREE_TORTURE_COUNT choose other moments, or fewer. What boots is the
deployment that was booted, whole: a staged one takes effect at a shutdown, and there is none.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.system.livehost import Host, ask, same, wait_for
from tests.system.sweep import COUNT, PACKAGES, SEED, TORTURE

TIMEOUT = 900  # seconds of one command; everything is emulated
#: What is cut, and what comes before it. The booted deployment has the packages in version 1.0.
LIVE = ("apply-live", "--target=test/2.0", "--allow-replacement", "--restart-services")
VERBS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "install": ((), ("install", "-A", "-y", "-C", "fx-hello")),
    "reset": (LIVE, ("apply-live", "--reset")),
    "upgrade": ((), ("upgrade", "-A", "-y", "-C", "--packages-only", "--restart-services")),
    "rollback": (LIVE, ("rollback", "--live")),
}


@pytest.fixture
def host(new_vm: Callable[..., Host]) -> Host:
    return new_vm(_prepare)


def _prepare(host: Host) -> None:
    """Have all archives and commits already."""
    host.sh(": >/etc/apt/sources.list; echo mine >/etc/mine; echo edited >>/etc/motd; rm -f /etc/issue.net")
    host.suites("stable")
    host.ao("install", *PACKAGES)
    host.reboot()
    host.sh("echo '# edited' >>/etc/fx-conf/main.conf")
    host.suites("stable", "updates")
    host.ao("install", "--download-only", "fx-hello")
    host.ao("upgrade", "--packages-only")
    host.create_ref("test/2.0", host.commit_of_pending())
    host.undeploy()
    host.look()  # so that the machine knows the digests of the tree


def _state(host: Host) -> dict[str, Any]:
    """What must be the same after every boot."""
    look = host.look()
    leftovers = host.sh(
        "cd /ostree/apt-ostree 2>/dev/null && ls -d view-* layers/* uppers/* 2>/dev/null || true"
    )
    wait_for(host, " ".join(ask()), seconds=TIMEOUT)
    return look.system() | {
        "deployments": list(look.deployments),
        "marker": host.exists("/var/lib/apt-ostree/live"),
        "leftovers": leftovers,
        "service": host.answer().split()[0],
    }


def _run(host: Host, *words: str) -> float:
    began = time.monotonic()
    if words:
        host.ao(*words, timeout=TIMEOUT)
    return time.monotonic() - began


@pytest.mark.vm
@pytest.mark.skipif(not TORTURE, reason="takes most of an hour; APT_OSTREE_TORTURE is not set")
def test_power_cuts(host: Host):
    booted = _state(host)
    assert (booted["service"], booted["records"], booted["marker"], booted["leftovers"]) == (
        "1.0",
        [],
        False,
        "",
    )
    lasts = {}
    for name, (before, words) in VERBS.items():
        _run(host, *before)
        lasts[name] = _run(host, *words)
        host.ao("apply-live", "--reset", timeout=TIMEOUT)
        host.undeploy()
    dice = random.Random(f"{SEED} power cuts")
    for number in range(COUNT or 25):
        name = list(VERBS)[number % len(VERBS)]
        before, words = VERBS[name]
        delay = dice.uniform(0, 1.05 * lasts[name])
        case = f"{name}, power cut after {delay:.2f} s of {lasts[name]:.2f} s"
        _run(host, *before)
        host.run("systemd-run", "--unit=cut", "apt-ostree", *words)
        time.sleep(delay)
        host.machine.kill()
        host.machine.boot(vm=True)
        try:
            same(booted, _state(host))
            host.check_clean()
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}") from error
        print(f"{case}: ok", flush=True)
    host.run("ostree", "fsck", "--quiet", timeout=TIMEOUT)
