"""The service manager, with its programs replaced."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from apt_ostree.model import unitfile
from apt_ostree.system import mounts, process, systemd
from tests.unit.repos import Programs


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    made = Programs()
    monkeypatch.setattr(process, "run", made.run)
    monkeypatch.setattr(mounts, "in_namespace_of", lambda _pid: nullcontext())
    monkeypatch.setattr(unitfile, "DIRECTORIES", (str(tmp_path / "etc"), str(tmp_path / "usr")))
    monkeypatch.setattr(systemd, "_RUNTIME_DIRECTORY", tmp_path / "run")
    (tmp_path / "usr").mkdir()
    return made


@pytest.mark.parametrize(
    ("files", "names", "linked"),
    [
        (("dbus.service",), "new-bus.service dbus.service", True),
        (("dbus.service", "new-bus.service"), "new-bus.service dbus.service", False),
        ((), "new-bus.service dbus.service", False),
        (("dbus.service",), "new-bus.service", False),
    ],
)
def test_a_running_unit_without_a_file_goes_on_as_its_alias(
    programs: Programs, tmp_path: Path, files, names: str, linked: bool
):
    link = tmp_path / "run/new-bus.service"
    seen = []

    def systemctl(words: list[str]) -> tuple[int, str]:
        if "daemon-reload" in words:
            seen.append(str(link.readlink()) if link.is_symlink() else "")
        return programs._systemctl(words)

    for name in files:
        (tmp_path / "usr" / name).touch()
    programs.add_unit("new-bus.service", Names=names)
    programs.results["systemctl"] = systemctl
    systemd.daemon_reload()
    assert seen == [str(tmp_path / "usr/dbus.service") if linked else ""]
    assert not link.is_symlink()


@pytest.mark.parametrize("function", [systemd.reload_bus, systemd.reload_udev, systemd.reload_polkit])
def test_a_daemon_that_hangs_costs_a_second(programs: Programs, monkeypatch: pytest.MonkeyPatch, function):
    limits = []

    def run(argv, *, timeout: float, **how):
        limits.append(timeout)
        return programs.run(argv, **how)

    for unit in ("dbus.service", "polkit.service", "systemd-udevd.service"):
        programs.add_unit(unit)
    monkeypatch.setattr(process, "run", run)
    function()
    assert limits[-1] == 1


@pytest.mark.parametrize("function", [systemd.reload_bus, systemd.reload_udev, systemd.reload_polkit])
def test_a_daemon_that_does_not_run_is_not_asked(programs: Programs, function):
    function()
    assert [call[0] for call in programs.calls] == ["systemctl"]
