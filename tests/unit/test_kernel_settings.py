"""The settings of the running kernel, in directories that stand for /proc/sys and securityfs."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from apt_ostree.errors import ExternalFailure
from apt_ostree.model.triggers import Trigger
from apt_ostree.system import kernel_settings, mounts, process
from tests.unit.repos import Programs


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, directory in (
        ("_SYSCTL", "sys"),
        ("_FORMATS", "sys/fs/binfmt_misc"),
        ("_APPARMOR", "apparmor"),
    ):
        monkeypatch.setattr(kernel_settings, name, tmp_path / directory)
        (tmp_path / directory).mkdir(parents=True)
    monkeypatch.setattr(mounts, "in_namespace_of", lambda _pid: nullcontext())
    return tmp_path


@pytest.fixture
def programs(place: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    made = Programs()
    monkeypatch.setattr(process, "run", made.run)
    return made


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_keys_are_files_and_patterns_stand_for_many(place: Path):
    for key in ("net/a/x", "net/b.1/x", "vm/y"):
        write(place / "sys" / key, "1\t2\n")
    assert kernel_settings.expand(["vm/y", "net/*/x", "net/a/x", "none", "net"]) == (
        "vm/y",
        "net/a/x",
        "net/b.1/x",
    )
    assert kernel_settings.value("net/a/x") == "1\t2"
    assert kernel_settings.value("none") is None
    kernel_settings.set_value("vm/y", "3")
    assert kernel_settings.value("vm/y") == "3"


def test_a_value_that_the_kernel_refuses_is_a_failure(place: Path):
    with pytest.raises(ExternalFailure, match="cannot set net/none"):
        kernel_settings.set_value("net/none", "1")


def test_systemd_sets_keys_by_its_own_order_of_files(programs: Programs):
    kernel_settings.apply_sysctl(["vm/y", "net/b.1/x"])
    kernel_settings.apply_sysctl([])
    assert programs.calls == [
        ["/usr/lib/systemd/systemd-sysctl", "--prefix=vm/y", "--prefix=net/b.1/x"]
    ]  # fmt: skip


def test_formats_are_the_files_but_two(place: Path):
    for name in ("register", "status", "python3.13"):
        write(place / "sys/fs/binfmt_misc" / name, "")
    assert kernel_settings.formats() == {"python3.13"}
    kernel_settings.remove_format("python3.13")
    assert (place / "sys/fs/binfmt_misc/python3.13").read_text() == "-1"


def test_profiles_that_are_part_of_others_go_with_them(place: Path):
    text = "named (enforce)\n/usr/bin/man (complain)\n/usr/bin/man//filter (enforce)\nwith blank (kill)\n"
    write(place / "apparmor/profiles", text)
    assert kernel_settings.profiles() == {"named", "/usr/bin/man", "with blank"}
    kernel_settings.remove_profile("named")
    assert (place / "apparmor/.remove").read_text() == "named"


def test_a_file_of_profiles_is_compiled_and_a_directory_taken_from_the_cache(
    programs: Programs, tmp_path: Path
):
    kernel_settings.load_profiles(["/etc/apparmor.d/named"])
    kernel_settings.load_profiles([str(tmp_path)])
    assert ["--skip-read-cache" in call for call in programs.calls] == [True, False]


def test_the_profiles_in_a_file(programs: Programs):
    programs.results["apparmor_parser"] = lambda _words: (0, "man\nman//filter\n")
    assert kernel_settings.profiles_in("/etc/apparmor.d/man") == ("man",)


def test_what_a_kernel_allows(place: Path, monkeypatch: pytest.MonkeyPatch):
    write(place / "sys/net/x", "")
    assert Trigger.APPARMOR not in kernel_settings.possible()
    write(place / "apparmor/.load", "")
    assert {Trigger.SYSCTL, Trigger.BINFMT, Trigger.APPARMOR, Trigger.DBUS} <= kernel_settings.possible()
    monkeypatch.setattr(kernel_settings, "_is_writable", lambda _path: False)
    monkeypatch.setattr(kernel_settings, "_status", lambda _field: "00")
    assert kernel_settings.possible().isdisjoint({Trigger.SYSCTL, Trigger.BINFMT, Trigger.MODULES})
