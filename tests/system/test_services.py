"""What a live update does with services: why it restarts, when it is content, and the way back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system import livehost
from tests.system.livehost import Host, same, unit_steps

RESTARTING = ("upgrade", "-A", "-y", "--packages-only", "--restart-services")
SETTINGS = "/etc/apt-ostree/apt-ostree.conf.d/test.conf"


@contextlib.contextmanager
def settings(host: Host, text: str) -> Iterator[None]:
    host.sh(f"mkdir -p {Path(SETTINGS).parent}; printf '%s' '{text}' >{SETTINGS}")
    try:
        yield
    finally:
        host.sh(f"rm -r {Path(SETTINGS).parent}; rmdir --ignore-fail-on-non-empty /etc/apt-ostree")


def version(host: Host, service: str) -> str:
    """Return the version that a service runs."""
    return host.answer(service).split()[0]


def newer(host: Host, *packages: str) -> None:
    """Install 1.0 live, and offer 2.0."""
    host.ao("install", "-A", "-y", *packages)
    host.suites("stable", "updates")


def upgrade(host: Host, *options: str, code: int = 0) -> dict[str, Any]:
    return host.json(*RESTARTING, *options, code=code)


def test_a_changed_program_is_named_and_with_the_option_restarted(host: Host):
    newer(host, "fx-service")
    host.ao("upgrade", "--packages-only")
    named = host.json("apply-live", "--dry-run", "--allow-replacement")["plan"]
    assert unit_steps(named) == {"fx-service.service": ("restart", False)}
    assert named["impact"] == "service"
    planned = host.json("apply-live", "--dry-run", "--allow-replacement", "--restart-services")["plan"]

    done = host.json("apply-live", "--allow-replacement", "--restart-services")

    assert done["plan"] == planned
    assert unit_steps(done["plan"]) == {"fx-service.service": ("restart", True)}
    assert done["plan"]["units"][0]["evidence"] == ["/usr/libexec/fx-service/daemon"]
    assert version(host, "fx-service") == "2.0"
    host.ao("rollback", "--live")
    assert version(host, "fx-service") == "1.0"


@pytest.mark.extended
def test_without_the_option_nothing_is_restarted_and_later_it_still_is_known(host: Host):
    newer(host, "fx-service", "fx-hello")
    host.ao("upgrade", "-A", "-y", "--packages-only")
    assert version(host, "fx-service") == "1.0"
    host.ao("uninstall", "-A", "-y", "fx-hello")
    assert version(host, "fx-service") == "1.0"
    host.ao("install", "fx-hello", "fx-conf")
    again = host.json("apply-live", "--dry-run")["plan"]
    assert unit_steps(again) == {"fx-service.service": ("restart", False)}
    host.sh("systemctl restart fx-service")  # by the administrator; nothing old runs any more
    again = host.json("apply-live", "--dry-run")["plan"]
    assert unit_steps(again) == {}


@pytest.mark.variants
@pytest.mark.parametrize("service", ["fx-broken", "fx-flaps", "fx-mute"])
def test_an_update_that_does_not_run_is_undone(host: Host, service: str):
    newer(host, service)
    before = host.look()
    with settings(host, "[Live]\nUnitTimeout=4\n"):
        failed = upgrade(host, code=1)
    assert service in failed["message"]
    assert version(host, service) == "1.0"
    same(before.system(), host.look().system())
    assert before.deployments == host.look().deployments
    assert host.json("history")[-1]["outcome"] == "failed"


@pytest.mark.extended
def test_a_service_that_does_not_stop_is_undone(host: Host):
    newer(host, "fx-deaf")
    before = host.look()
    with settings(host, "[Live]\nUnitTimeout=3\n"):
        failed = upgrade(host, code=1)
    assert "fx-deaf" in failed["message"]
    assert version(host, "fx-deaf") == "1.0"
    same(before.system(), host.look().system())
    host.sh("systemctl kill --signal=KILL fx-deaf")  # or the reset after this test waits


#: A unit of the administrator's that cannot run without another one.
_FOLLOWER = """[Unit]
Requires=SERVICE.service
After=SERVICE.service
[Service]
ExecStart=sleep infinity
"""


@contextlib.contextmanager
def follower(host: Host, service: str) -> Iterator[None]:
    text = _FOLLOWER.replace("SERVICE", service)
    host.sh(f"printf '%s' '{text}' >/run/systemd/system/fx-follower.service")
    host.sh("systemctl daemon-reload; systemctl start fx-follower")
    try:
        yield
    finally:
        host.sh("systemctl stop fx-follower; rm /run/systemd/system/fx-follower.service")
        host.sh("systemctl daemon-reload")


@pytest.mark.extended
def test_what_depends_on_a_service_comes_back_with_it(host: Host):
    newer(host, "fx-broken", "fx-service")
    with follower(host, "fx-broken"):
        assert "fx-broken" in upgrade(host, code=1)["message"]
        assert host.is_active("fx-follower")
    host.ao("uninstall", "-A", "-y", "fx-broken")
    with follower(host, "fx-service"):
        first = host.unit_property("fx-follower", "MainPID")
        done = upgrade(host)
        assert unit_steps(done["plan"])["fx-follower.service"] == ("restart", True)
        assert host.is_active("fx-follower")
        assert host.unit_property("fx-follower", "MainPID") != first


@pytest.mark.extended
def test_a_service_that_stops_before_the_switch_runs_its_old_code_after_an_undo(host: Host):
    newer(host, "fx-service")
    directory = "/run/systemd/system/fx-service.service.d"
    host.sh(f"mkdir {directory}; printf '[Service]\\nX-StopIfChanged=yes\\n' >{directory}/x.conf")
    host.sh("systemctl daemon-reload; mkdir -p /etc/apt-ostree/health.d")
    host.sh("ln -s /bin/false /etc/apt-ostree/health.d/no")
    try:
        failed = upgrade(host, code=1)
        assert "health.d/no" in failed["message"]
        assert version(host, "fx-service") == "1.0"
        host.sh("rm /etc/apt-ostree/health.d/no")
        done = upgrade(host)
        actions = [s["action"] for s in done["plan"]["units"] if s["unit"] == "fx-service.service"]
        assert actions == ["stop", "start"]
        assert version(host, "fx-service") == "2.0"
    finally:
        host.sh(f"rm -rf {directory} /etc/apt-ostree/health.d; systemctl daemon-reload")


def test_a_health_check_decides(host: Host):
    newer(host, "fx-service")
    directory = "/etc/greenboot/check/required.d"
    host.sh(f"mkdir -p {directory}; printf '#!/bin/sh\\necho too bad; exit 1\\n' >{directory}/x.sh")
    host.sh(f"chmod 755 {directory}/x.sh")
    try:
        failed = upgrade(host, code=1)
        assert "x.sh" in failed["message"] and "too bad" in failed["details"]
        assert version(host, "fx-service") == "1.0"
        host.sh(f"printf '#!/bin/sh\\nexit 0\\n' >{directory}/x.sh")
        done = upgrade(host)
        assert done["plan"]["health_checks"] == [f"{directory}/x.sh"]
        assert version(host, "fx-service") == "2.0"
    finally:
        host.sh("rm -r /etc/greenboot")


def test_a_socket_stays_open(host: Host):
    newer(host, "fx-socket")
    host.run("systemd-run", "--quiet", "--unit=hammer", "-p", "StandardOutput=file:/run/hammered",
             *livehost.program("hammer_socket.py"))  # fmt: skip
    livehost.wait_for(host, "systemctl is-active fx-socket.service")
    done = upgrade(host)
    assert unit_steps(done["plan"])["fx-socket.service"] == ("restart", True)
    assert "fx-socket.socket" not in unit_steps(done["plan"])
    host.sh("sleep 0.3; touch /run/stop-hammer; while systemctl is-active -q hammer; do sleep 0.1; done")
    refused, *answers = host.sh("cat /run/hammered; rm /run/hammered /run/stop-hammer").splitlines()
    assert refused == "0"
    assert {"version 1.0", "version 2.0"} <= set(answers)


@pytest.mark.extended
def test_a_service_that_a_new_socket_started_goes_with_it(host: Host):
    host.ao("install", "-A", "-y", "fx-socket")
    knock = 'import socket; s = socket.socket(socket.AF_UNIX); s.connect("/run/fx-socket"); s.send(b"x")'
    host.run("/usr/bin/python3", "-c", knock)
    livehost.wait_for(host, "systemctl is-active fx-socket.service")
    host.ao("rollback", "--live")
    assert not host.is_active("fx-socket.service") and not host.is_active("fx-socket.socket")


@pytest.mark.extended
def test_instances_one_by_one(host: Host):
    newer(host, "fx-worker")
    instances = [f"fx-worker@{number}.service" for number in (1, 2, 3)]
    host.run("systemctl", "start", *instances)
    try:
        host.sh("touch /etc/fx-worker-fails; rm /run/fx-worker.log")
        failed = upgrade(host, code=1)
        assert "fx-worker@2.service" in failed["message"]
        log = host.sh("cat /run/fx-worker.log; rm /run/fx-worker.log").splitlines()
        assert log[:2] == ["1 2.0", "2 2.0"]  # the third was not touched any more
        assert sorted(log[2:]) == ["1 1.0", "2 1.0"]
        assert all(host.is_active(name) for name in instances)
        host.sh("rm /etc/fx-worker-fails")
        upgrade(host)
        assert host.sh("cat /run/fx-worker.log").splitlines() == ["1 2.0", "2 2.0", "3 2.0"]
    finally:
        host.sh("rm -f /etc/fx-worker-fails")
        host.run("systemctl", "stop", *instances)


UNWELL = ("fx-unwell-oneshot", "fx-unwell-simple", "fx-unwell-restarted")


def test_new_units_that_do_not_run_are_kept_and_named(host: Host):
    units = sorted(f"{package}.service" for package in UNWELL)
    done = host.ao("install", "-A", "-y", *UNWELL, "fx-service")
    assert all(unit in done.stderr for unit in units)
    booted = next(row for row in host.deployments() if row["booted"])
    assert booted["live-failed-units"] == units
    assert host.is_active("fx-service")
    host.ao("rollback", "--live")
    assert not [line for line in host.failed_units() if "fx-" in line]


@pytest.mark.extended
@pytest.mark.variants
@pytest.mark.parametrize("package", UNWELL)
def test_a_new_unit_that_does_not_run_undoes_the_change_if_the_settings_say_so(host: Host, package: str):
    before = host.look()
    with settings(host, "[Live]\nNewUnitFailure=undo\n"):
        failed = host.json("install", "-A", "-y", package, code=1)
    assert f"{package}.service" in failed["message"]
    same(before.system(), host.look().system())
    assert before.deployments == host.look().deployments
    assert not [line for line in host.failed_units() if "fx-" in line]


@pytest.mark.extended
@pytest.mark.variants
@pytest.mark.parametrize(("choice", "action"), [("skip", "skip"), ("defer", "defer")])
def test_settings_for_one_unit(host: Host, choice: str, action: str):
    newer(host, "fx-service")
    with settings(host, f"[Units]\nfx-service.service={choice}\n"):
        done = upgrade(host)
    assert unit_steps(done["plan"]) == {"fx-service.service": (action, False)}
    assert version(host, "fx-service") == "1.0"


@pytest.mark.extended
def test_policy_rc_d_is_asked(host: Host):
    newer(host, "fx-service")
    host.sh(
        "mkdir -p /run/sbin; mount -t tmpfs none /run/sbin; cp -a /usr/sbin/. /run/sbin/;"
        "printf '#!/bin/sh\\n[ $1.$2 != fx-service.service.restart ] || exit 101\\n' "
        ">/run/sbin/policy-rc.d;"
        "chmod 755 /run/sbin/policy-rc.d; mount --bind /run/sbin /usr/sbin"
    )
    try:
        done = upgrade(host)
    finally:
        host.sh("umount /usr/sbin; umount /run/sbin")
    assert unit_steps(done["plan"]) == {"fx-service.service": ("skip", False)}
    assert version(host, "fx-service") == "1.0"


# --- history and the way back


def test_rollback_to_any_generation(host: Host):
    host.suites("stable", "updates")
    host.ao("install", "-A", "-y", "fx-hello=1.0")
    looks = [host.look()]
    host.ao("install", "-A", "-y", "fx-service=1.0", "fx-conf=1.0")
    looks.append(host.look())
    host.ao("uninstall", "-A", "-y", "fx-conf", "fx-service")
    numbers = [row[0] for row in host.look().records]
    host.ao("rollback", "--live", str(numbers[1]))
    same(looks[1].system(), host.look().system())
    assert version(host, "fx-service") == "1.0"
    host.ao("rollback", "--live")
    same(looks[0].system(), host.look().system())
    host.ao("rollback", "--live", "99", code=2)
    host.ao("rollback", "--live", "0")
    listed = [entry for entry in host.json("history") if entry["outcome"] != "refused"][-6:]
    assert [entry["outcome"] for entry in listed] == ["rolled back"] * 3 + ["done"] * 3
    assert all(entry["ended"] for entry in listed)
    assert host.ao("history").stdout.splitlines()[0].split()[:3] == ["WHEN", "WHO", "WHAT"]
    shown = host.json("history", "show", str(numbers[0]))
    assert shown["plan"]["packages"]["added"][0]["name"] == "fx-hello"
    assert set(shown["steps"]) == {"detection", "preparation", "application", "verification"}
    host.ao("history", "show", "999", code=2)


@pytest.mark.extended
def test_rollback_of_one_package(host: Host):
    newer(host, "fx-hello", "fx-service")
    upgrade(host)
    one = host.look().records[0][0]
    host.ao("rollback", "--live", str(one), "--packages=fx-service", "--restart-services")
    assert version(host, "fx-service") == "1.0"
    assert host.run("fx-hello").stdout == "hello 2.0\n"
    host.ao("rollback", "--live", str(one), "--packages=fx-nothing", code=2)
    host.ao("rollback", "--live", "--packages=fx-hello", code=3)  # the booted tree has none: only all of it


@pytest.mark.extended
def test_a_unit_that_is_starting_is_in_the_way(host: Host):
    newer(host, "fx-service")
    host.ao("upgrade", "--packages-only")
    host.sh(
        "mkdir -p /run/systemd/system/fx-service.service.d;"
        "printf '[Service]\\nExecStartPre=sleep 30\\n' >/run/systemd/system/fx-service.service.d/slow.conf;"
        "systemctl daemon-reload; systemctl restart --no-block fx-service; sleep 0.5"
    )
    try:
        refused = host.json("apply-live", "--allow-replacement", "--restart-services", code=3)
        assert any("fx-service.service" in line for line in refused["details"])
    finally:
        host.sh("rm -r /run/systemd/system/fx-service.service.d; systemctl daemon-reload")
        host.sh("systemctl restart fx-service")


@pytest.mark.extended
def test_a_client_that_starts_a_service_again_does_not_keep_it_from_stopping(host: Host):
    """As the bus starts avahi-daemon for a client, just while it is stopped to be removed."""
    host.ao("install", "-A", "-y", "fx-service")
    directory = "/run/systemd/system/fx-service.service.d"
    again = "ExecStop=-systemctl start --no-block fx-service.service"
    host.sh(f"mkdir -p {directory}; printf '[Service]\\n{again}\\n' >{directory}/again.conf")
    host.sh("systemctl daemon-reload")
    host.ao("uninstall", "-A", "-y", "fx-service")
    host.sh(f"rm -r {directory}; systemctl daemon-reload")
    assert not host.is_active("fx-service.service")


@pytest.mark.extended
def test_changes_in_a_row_are_no_crashes_in_a_row(host: Host):
    newer(host, "fx-service")
    directory = "/run/systemd/system/fx-service.service.d"
    host.sh(
        f"mkdir -p {directory}; systemctl reset-failed fx-service.service;"
        f"printf '[Unit]\\nStartLimitIntervalSec=1h\\nStartLimitBurst=1\\n' >{directory}/limit.conf;"
        "systemctl daemon-reload; systemctl restart fx-service"
    )
    assert upgrade(host)["changed"]
    assert version(host, "fx-service") == "2.0"
    host.ao("rollback", "--live")
    assert version(host, "fx-service") == "1.0"
    host.sh(f"rm -r {directory}; systemctl daemon-reload")


def test_history_compares(host: Host):
    host.ao("install", "-A", "-y", "fx-hello")
    host.ao("install", "-A", "-y", "fx-conf")
    one, two = (row[0] for row in host.look().records)
    found = host.json("history", "diff", str(one), str(two))
    assert [p["name"] for p in found["packages"]["added"]] == ["fx-conf"]
    assert ["added", "/usr/share/fx-conf/version"] in found["changes"]


def test_unconfirmed_is_undone(host: Host):
    newer(host, "fx-service")
    before = host.look()
    upgrade(host, "--confirm-within=3s")
    assert version(host, "fx-service") == "2.0"
    livehost.wait_for(host, "apt-ostree history | tail -n 2 | grep -q unconfirmed")
    # What is not needed any more is removed after the record is written.
    livehost.wait_for(host, "! systemctl -q is-active 'apt-ostree-unconfirmed*.service'")
    assert version(host, "fx-service") == "1.0"
    same(before.system(), host.look().system())


def test_confirmed_stays(host: Host):
    newer(host, "fx-service")
    upgrade(host, "--confirm-within=3s")
    host.ao("confirm")
    host.sh("sleep 4; ! systemctl list-timers --all | grep apt-ostree-unconfirmed")
    assert version(host, "fx-service") == "2.0"
    host.ao("confirm", code=3)


@pytest.mark.extended
def test_units_and_programs_below_opt_are_those_of_their_package(host: Host):
    newer(host, "fx-linked")
    assert host.sh("cat /run/fx-linked") == "1.0\n"
    done = upgrade(host)
    assert unit_steps(done["plan"]) == {"fx-linked.service": ("restart", True)}
    assert host.sh("cat /run/fx-linked") == "2.0\n"
    host.ao("uninstall", "-A", "-y", "fx-linked")
    assert not host.is_active("fx-linked.service")
    host.ao("rollback", "--live", "0")
    assert not host.is_active("fx-linked.service")
