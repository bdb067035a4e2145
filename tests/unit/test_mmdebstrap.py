"""What apt's simulation says, and what a lockfile leaves in the root directory."""

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from apt_ostree.model.package import Package
from apt_ostree.system import mmdebstrap, process
from apt_ostree.system.mmdebstrap import Bootstrap

OUTPUT = """\
I: simulate installing remaining packages inside the chroot...
Inst jq (1.7.1-3 Debian:13.8/stable [amd64])
Inst apt [3.0.3] (3.0.4 Debian:13.8/stable, Debian-Security:13/stable-security [amd64])
Inst tzdata (2026f-0+deb13u1 Debian:13.8/stable [all]) []
Conf jq (1.7.1-3 Debian:13.8/stable [amd64])
Remv old [1.0]
"""


def test_packages_that_a_simulation_names():
    assert mmdebstrap.parse_simulation(OUTPUT.splitlines()) == (
        Package("apt", "3.0.4", "amd64"),
        Package("jq", "1.7.1-3", "amd64"),
        Package("tzdata", "2026f-0+deb13u1", "all"),
    )


@pytest.mark.parametrize("recommends", [False, True])
def test_a_lockfile_leaves_nothing_in_the_configuration_of_apt(tmp_path: Path, monkeypatch, recommends: bool):
    conf = tmp_path / "etc/apt/apt.conf.d/99mmdebstrap"
    conf.parent.mkdir(parents=True)

    def values(command: Sequence[object], option: str) -> list[str]:
        return [word.removeprefix(option) for word in map(str, command) if word.startswith(option)]

    def play_mmdebstrap(command: Sequence[object], **_options: object) -> None:
        if settings := values(command, "--aptopt="):
            conf.write_text("".join(f"{setting};\n" for setting in settings))
        for hook in values(command, "--customize-hook="):
            subprocess.run(["sh", "-c", hook, "exec", tmp_path], check=True)

    monkeypatch.setattr(process, "run", play_mmdebstrap)
    plain = Bootstrap("trixie", "minbase", (), (), recommends=recommends)
    made = []
    for bootstrap in (plain, replace(plain, locked={"jq": "1.7.1-3"})):
        mmdebstrap.make_root(bootstrap, tmp_path, tmp_path / "lists", log=tmp_path / "log")
        made.append(conf.read_text() if conf.exists() else None)
        conf.unlink(missing_ok=True)
    assert made[0] == made[1] and bool(made[0]) == recommends
