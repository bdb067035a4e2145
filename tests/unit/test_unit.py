"""What systemd knows of a unit, as a value."""

from __future__ import annotations

import pytest

from apt_ostree.model.unit import Process, Unit, is_unit_name


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("a.service", True),
        ("a@b.service", True),
        ("systemd-cryptsetup@dm\\x2dcrypt.service", True),
        ("a@.service", False),
        ("a*.service", False),
        ("a", False),
        ("--force.service", True),
        ("a.service/b", False),
        ("", False),
    ],
)
def test_names(name: str, is_one: bool):
    assert is_unit_name(name) is is_one


def test_what_is_not_known_is_empty():
    unit = Unit("a.service", {})
    assert (unit["Type"], unit.main_pid, unit.started, unit.fragment, unit.drop_ins) == ("", 0, 0.0, "", ())
    assert not (unit.is_active or unit.has_job or unit.keeps_connections)


@pytest.mark.parametrize(
    ("state", "active"),
    [("active", True), ("activating", True), ("reloading", True), ("refreshing", True), ("inactive", False),
     ("failed", False), ("deactivating", False)],
)  # fmt: skip
def test_active(state: str, active: bool):
    assert Unit("a.service", {"ActiveState": state}).is_active is active


def test_properties():
    unit = Unit(
        "a.service",
        {
            "MainPID": "42",
            "ExecMainStartTimestampMonotonic": "1500000",
            "FragmentPath": "/lib/systemd/system/a.service",
            "DropInPaths": "/lib/systemd/system/a.service.d/1.conf /etc/systemd/system/a.service.d/2.conf",
            "FileDescriptorStoreMax": "8",
            "Job": "7",
            "LoadState": "loaded",
        },
    )
    assert (unit.main_pid, unit.started) == (42, 1.5)
    assert unit.fragment == "/usr/lib/systemd/system/a.service"
    assert unit.drop_ins == (
        "/usr/lib/systemd/system/a.service.d/1.conf",
        "/etc/systemd/system/a.service.d/2.conf",
    )
    assert unit.has_job and unit.keeps_connections


def test_dependents_of_a_socket_are_its_service_where_it_is_restarted():
    properties = {"Triggers": "a.service", "RequiredBy": "b.service", "BoundBy": "c.service"}
    socket, timer = Unit("a.socket", properties), Unit("a.timer", properties)
    assert socket.dependents(restarting=True) == {"a.service", "b.service", "c.service"}
    assert socket.dependents(restarting=False) == timer.dependents(restarting=True) == {
        "b.service", "c.service"
    }  # fmt: skip


def test_a_process_is_called_by_its_number_and_name():
    assert Process(7, "sshd", "ssh.service", frozenset()).label == "7 sshd"
