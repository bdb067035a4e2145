"""Test boots: a change that would not come up is refused before anything is touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testbed_lib.images import Wanted, image

from tests.system import livehost
from tests.system.livehost import Host, same, wait_for

CONTAINER = "pgrep -x systemd-nspawn"
CHECK = "/etc/apt-ostree/health.d/on-the-machine"
SETTING = "/etc/apt-ostree/apt-ostree.conf"


def prepare(host: Host) -> None:
    host.ao("install", "-A", "-y", "systemd-container")
    host.sh(": >/etc/apt/sources.list")
    host.ao("install", "-A", "-y", "fx-broken", "fx-service")
    host.look()


def shown(host: Host) -> dict[str, Any]:
    look = host.look()
    return {**look.system(), "refs": look.refs, "deployments": look.deployments}


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    with livehost.disk_after(prepare, image(Wanted())) as made:
        yield made


def test_a_service_that_would_fail_is_refused(own: Host):
    own.suites("updates")
    before = shown(own)
    for options in (("--test",), ("--test", "-A", "--restart-services")):
        refusal = own.failure("upgrade", "--packages-only", "-y", *options, code=3)
        assert "fx-broken.service: it failed" in refusal and "broken on purpose" in refusal, options
        same(before, shown(own))
    assert "fx-broken.service" in own.sh("cat /var/log/apt-ostree/*-test-boot.log")

    # The setting asks for it as well, but does not hold up the way back.
    own.ao("upgrade", "--packages-only", "-y", "-A")
    own.sh(f"mkdir -p /etc/apt-ostree; printf '[Live]\\nTestBeforeApply=yes\\n' >{SETTING}")
    logs = own.sh("ls /var/log/apt-ostree/*-test-boot.log")
    own.ao("apply-live", "--reset", "-y")
    own.ao("kargs", "--append=fx=1")  # the same packages
    assert own.sh("ls /var/log/apt-ostree/*-test-boot.log") == logs
    own.failure("apply-live", "-y", "--allow-replacement", code=3)


@pytest.mark.extended
def test_what_fails_in_any_container_does_not_count(own: Host):
    own.sh(f"mkdir -p {Path(CHECK).parent}; printf '#!/bin/sh\\ntest -e /run/ostree-booted\\n' >{CHECK}")
    own.sh(f"chmod 755 {CHECK}; echo kept >/var/lib/test-boot; ip link >/run/links")
    events = own.events("install", "-A", "-y", "--test", "fx-hello", "fx-state")
    warnings = [event["text"] for event in events if event.get("level") == "warning"]
    assert any(CHECK in text for text in warnings), warnings
    assert own.sh("fx-hello") == "hello 1.0\n"
    assert own.sh("cat /var/lib/test-boot; ip link | cmp - /run/links") == "kept\n"
    assert not own.succeeds(CONTAINER)


def test_a_killed_command_leaves_nothing(own: Host):
    before = own.look().system()
    own.sh("systemd-run --quiet --unit=client apt-ostree install -A -y --test fx-hello")
    wait_for(own, CONTAINER)
    own.sh("systemctl kill --signal=KILL --kill-whom=main 'apt-ostree-transaction-*.service'")
    wait_for(own, f"! {CONTAINER}")
    wait_for(own, "! systemctl is-active --quiet client")
    own.ao("recover")
    same(before, own.look().system())
