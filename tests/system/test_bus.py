"""A live change with a bus that does not answer, and with one that gets another name."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.system.livehost import Host

UNITS = "usr/lib/systemd/system"


@pytest.fixture
def tree(host: Host) -> Callable[[str], str]:
    """Commit the booted tree with what a script writes laid over it; return the ref."""

    def commit(script: str) -> str:
        host.sh(f"rm -rf /run/fx-tree; mkdir -p /run/fx-tree/{UNITS}; cd /run/fx-tree; {script}")
        host.commit("test/bus", "/run/fx-tree")
        return "test/bus"

    return commit


@pytest.mark.parametrize("stopped", ["systemd-logind.service", "dbus.service"])
def test_a_bus_service_that_hangs_costs_a_moment(host: Host, tree, stopped: str):
    # With D-Bus services, so that the bus has to read its configuration again.
    path = "usr/share/dbus-1/system.d"
    ref = tree(f"mkdir -p {path}; echo '<busconfig/>' >{path}/fx.conf")
    host.sh(f"systemctl kill --signal=STOP {stopped}")
    try:
        for words in (("apply-live", f"--target={ref}"), ("rollback", "--live")):
            began = time.monotonic()
            host.ao(*words)
            assert time.monotonic() - began < 20  # one call waits for 25 seconds by default
    finally:
        host.sh(f"systemctl kill --signal=CONT {stopped}")


def test_the_bus_stays_when_a_change_gives_it_another_name(host: Host, tree):
    pid = host.unit_property("dbus.service", "MainPID")
    ref = tree(f"cp /{UNITS}/dbus.service {UNITS}/fx-bus.service; ln -s fx-bus.service {UNITS}/dbus.service")
    for words in (("apply-live", f"--target={ref}", "--allow-replacement"), ("rollback", "--live")):
        host.ao(*words, "--restart-services")
        assert host.exists(f"/proc/{pid}"), words
        assert host.unit_property("dbus.service", "MainPID") == pid
        host.sh("busctl --timeout=5 list >/dev/null")


def test_the_bus_does_not_go_with_a_unit_that_it_needs_for_a_while(host: Host, tree):
    """Neither forwards nor back."""
    pid = host.unit_property("dbus.service", "MainPID")
    service = "[Service]\\nExecStart=sleep infinity\\n"
    ref = tree(
        f"printf '{service}' >{UNITS}/fx-needed.service; mkdir {UNITS}/dbus.service.d;"
        f"printf '[Unit]\\nRequires=fx-needed.service\\n' >{UNITS}/dbus.service.d/fx.conf;"
        f"mkdir {UNITS}/multi-user.target.wants; ln -s ../fx-needed.service {UNITS}/multi-user.target.wants"
    )
    host.ao("apply-live", f"--target={ref}", "--allow-replacement", "--restart-services")
    assert host.is_active("fx-needed.service")
    host.ao("rollback", "--live")
    assert not host.is_active("fx-needed.service")
    assert host.unit_property("dbus.service", "MainPID") == pid
