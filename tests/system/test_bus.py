"""A live change with a bus that does not answer, and with one that gets another name."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from tests.system.livehost import NOBODY, Host

UNITS = "usr/lib/systemd/system"


@pytest.fixture
def tree(host: Host) -> Callable[[str], str]:
    """Commit the booted tree with what a script writes laid over it; return the ref."""

    def commit(script: str) -> str:
        host.sh(f"rm -rf /run/fx-tree; mkdir -p /run/fx-tree/{UNITS}; cd /run/fx-tree; {script}")
        host.commit("test/bus", "/run/fx-tree")
        return "test/bus"

    return commit


def there_and_back(host: Host, ref: str) -> list[tuple[float, str]]:
    """Make a ref live and go back; return how long each took, and the warnings."""
    taken = []
    for words in (("apply-live", f"--target={ref}"), ("rollback", "--live")):
        began = time.monotonic()
        warnings = host.ao(*words).stderr
        taken.append((time.monotonic() - began, warnings))
    return taken


@contextlib.contextmanager
def hanging(host: Host, service: str) -> Iterator[None]:
    if service == "polkit.service":  # a reload continues what is stopped
        hang = f"systemctl edit --runtime --stdin --drop-in=fx {service}; systemctl start {service}"
        back = f"systemctl stop {service}; systemctl revert {service}"
    else:
        hang, back = (f"systemctl kill --signal={name} {service}" for name in ("STOP", "CONT"))
    host.run("sh", "-euc", hang, input="[Service]\nType=notify\nExecReload=sleep infinity\n")
    try:
        yield
    finally:
        host.sh(back)


@pytest.mark.variants
@pytest.mark.parametrize(
    ("service", "warning"),
    [
        ("systemd-logind.service", ""),
        ("dbus.service", "cannot reload the configuration of the message bus"),
        ("polkit.service", "cannot reload polkit"),
    ],
)
def test_a_bus_service_that_hangs_costs_a_moment(host: Host, tree, service: str, warning: str):
    # With files that the bus and polkit have to read.
    policies, rules = "usr/share/dbus-1/system.d", "usr/share/polkit-1/rules.d"
    ref = tree(
        f"mkdir -p {policies} {rules}; echo '<busconfig/>' >{policies}/fx.conf; echo '//' >{rules}/fx.rules"
    )
    usual = there_and_back(host, ref)
    with hanging(host, service):
        now = there_and_back(host, ref)
    for (seconds, text), (most, nothing) in zip(now, usual, strict=True):
        assert warning in text
        assert "cannot" not in nothing
        assert seconds < most + 10  # the bus is asked twice, for a second each; it waits 25 s for an answer


@pytest.mark.extended
def test_the_bus_stays_when_a_change_gives_it_another_name(host: Host, tree):
    pid = host.unit_property("dbus.service", "MainPID")
    ref = tree(f"cp /{UNITS}/dbus.service {UNITS}/fx-bus.service; ln -s fx-bus.service {UNITS}/dbus.service")
    for words in (("apply-live", f"--target={ref}", "--allow-replacement"), ("rollback", "--live")):
        host.ao(*words, "--restart-services")
        assert host.exists(f"/proc/{pid}"), words
        assert host.unit_property("dbus.service", "MainPID") == pid
        host.sh("busctl --timeout=5 list >/dev/null")


@pytest.mark.extended
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


def test_the_service_is_restarted_by_the_change_that_it_makes(host: Host, tree):
    host.run(*NOBODY, "apt-ostree", "history")  # starts it
    pid = host.unit_property("apt-ostreed.service", "MainPID")
    ref = tree(
        f"sed 's/^Type=.*/&\\nEnvironment=NEW=1/' /{UNITS}/apt-ostreed.service >{UNITS}/apt-ostreed.service"
    )
    done = host.ao("apply-live", f"--target={ref}", "--restart-services")
    assert "Restarting apt-ostreed.service" in done.stderr and "Verifying" in done.stderr
    assert host.unit_property("apt-ostreed.service", "MainPID") != pid
    assert host.unit_property("apt-ostreed.service", "Environment") == "NEW=1"
    host.ao("rollback", "--live", "--restart-services")
