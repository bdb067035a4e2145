"""Debian's tools with the package for them: they read as ever, explain changes, and are in nobody's way."""

from __future__ import annotations

import base64
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import livehost
from tests.system.livehost import NOBODY, Host, same

ROOT = Path(__file__).resolve().parents[2]
NAME = "apt-ostree-wrappers"
PACKAGE = "/var/tmp/wrappers.deb"
HELLO = "/var/lib/testbed/repo/pool/fx-hello_1.0_all.deb"
DO = {"APT_OSTREE_WRAP": "do"}

READING = [
    "dpkg -l no-such-package",
    "dpkg -L dpkg",
    "dpkg -V dpkg",
    "dpkg --print-architecture",
    "dpkg --compare-versions 1 gt 2",
    f"dpkg -c {HELLO}",
    f"dpkg -c - <{HELLO}",
    "dpkg-divert --list",
    "dpkg-statoverride --list",
    "update-alternatives --query pager",
    "apt-mark showmanual",
    "apt policy fx-hello",
    "apt list no-such-package",
    "apt-get -s install fx-hello",
    "apt-get -q update",
    "apt-get frobnicate --version",
]
CHANGES = [
    "apt install fx-hello",
    "apt-get -y remove curl",
    "apt-get upgrade",
    "apt-mark hold curl",
    f"dpkg -i {HELLO}",
    "dpkg --add-architecture i386",
    "dpkg-divert --divert /usr/share/x --add /usr/share/y",
    "dpkg-statoverride --add root root 0700 /usr/bin/xz",
    "update-alternatives --set pager /bin/more",
]


def install(host: Host) -> None:
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([ROOT / "tools/build-deb", place], check=True, capture_output=True)
        (package,) = Path(place).glob(f"{NAME}_*.deb")
        text = base64.b64encode(package.read_bytes()).decode()
    host.run("sh", "-euc", f"base64 --decode >{PACKAGE}", input=text)
    host.ao("install", PACKAGE)


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    with livehost.disk_after(install, livehost.prepared_disk()) as made:
        yield made


def test_what_only_reads_is_as_ever(host: Host):
    assert host.sh("command -v dpkg") == "/usr/sbin/dpkg\n"
    for line in READING:
        done = [host.run("sh", "-c", place + line, check=False) for place in ("", "/usr/bin/")]
        assert done[0].returncode == done[1].returncode, line
        assert (done[0].stdout, done[0].stderr) == (done[1].stdout, done[1].stderr), line
    host.sh("dpkg-reconfigure --frontend=noninteractive tzdata")
    assert host.run(*NOBODY, "dpkg", "--print-architecture").stdout == "amd64\n"


def test_changes_are_explained_and_nothing_is_touched(host: Host):
    before = host.look().everything()
    for line in CHANGES:
        done = host.run(*line.split(), check=False)
        assert (done.returncode, done.stdout) == (3, ""), line
        assert "With apt-ostree: apt-ostree " in done.stderr
    assert "apt-ostree run dpkg --add-architecture i386\n" in host.sh(
        "dpkg --add-architecture i386 2>&1 || true"
    )
    assert host.run("dpkg", "--configure", "-a", check=False).returncode == 3
    host.sh("apt autoremove")
    same(before, host.look().everything())


def test_they_make_deployments(own: Host):
    own.run("apt", "install", "-y", "fx-divert", env=DO)
    own.run("apt-get", "install", "-qy", "fx-divert", "curl", env=DO)  # they are there
    assert own.deployments()[0]["requested-packages"] == ["fx-divert"]
    own.ao("apply-live", "-y")
    assert own.sh("cat /usr/share/fx-hello/greeting; fx-editor") == "diverted\ntwo\n"
    own.run("update-alternatives", "--set", "fx-editor", "/usr/bin/fx-editor-one", env=DO)
    own.ao("apply-live", "-y")
    assert own.sh("fx-editor") == "one\n"
    done = own.run("dpkg-reconfigure", "fx-divert", check=False)  # its script makes alternatives
    assert done.returncode not in {0, 3} and "apt-ostree run dpkg-reconfigure fx-divert\n" in done.stderr
    assert "not done" not in done.stderr
    own.run("dpkg", "-i", HELLO, env=DO)
    own.run("apt-get", "remove", "-y", "fx-divert", env=DO)
    assert own.run("apt-get", "remove", "-y", "curl", env=DO, check=False).returncode == 2  # is of the base
    own.ao("apply-live", "-y", "--allow-replacement")
    assert own.sh("fx-hello") == "hello 1.0\n"
    assert not own.exists("/usr/bin/fx-editor-one")


def test_they_are_in_nobodys_way(own: Host):
    # In a build, for programs and for scripts.
    own.ao("install", "-A", "-y", "fx-divert")
    own.ao("run", "-A", "-y", "sh", "-euc", "command -v dpkg >/etc/found; dpkg --add-architecture i386")
    assert own.sh("cat /etc/found; dpkg --print-foreign-architectures") == "/usr/sbin/dpkg\ni386\n"
    own.ao("uninstall", "-A", "-y", "fx-divert")
    # For a script on the machine, in a container, on request, and for libapt.
    line = ("dpkg", "--force-all", "--remove", "no-such-package")
    code = own.run("/usr/bin/dpkg", *line[1:], check=False).returncode
    assert code != 3
    alone = ("unshare", "-m", "sh", "-euc", 'mount -t tmpfs tmpfs /run; exec "$@"', "sh")
    for words in (
        ("env", "DPKG_MAINTSCRIPT_NAME=postinst", *line),
        ("env", "APT_OSTREE_WRAP=off", *line),
        (*alone, *line),
    ):
        assert own.run(*words, check=False).returncode == code, words
    ask = "import apt_pkg; apt_pkg.init(); print(apt_pkg.config.find_file('Dir::Bin::dpkg'))"
    assert own.run("/usr/bin/python3", "-c", ask).stdout == "/usr/bin/dpkg\n"
    # Where /usr can be written to.
    own.sh("mkdir -p /run/writable/upper /run/writable/work")
    layers = "lowerdir=/usr,upperdir=/run/writable/upper,workdir=/run/writable/work"
    script = f"mount -t overlay -o {layers} overlay /usr; dpkg -i {HELLO}; fx-hello"
    assert own.run("unshare", "-m", "sh", "-euc", script).stdout.endswith("hello 1.0\n")


def test_without_the_package_there_are_the_tools_alone(own: Host):
    own.run("apt-get", "remove", "-y", NAME, env=DO)
    own.ao("apply-live", "-y", "--allow-replacement")
    for reboot in (False, True):
        if reboot:
            own.reboot()
        found = own.sh("for name in apt dpkg update-alternatives; do command -v $name; done").split()
        assert found == ["/usr/bin/apt", "/usr/bin/dpkg", "/usr/bin/update-alternatives"]
        assert own.sh("dpkg -S /usr/sbin/dpkg-reconfigure; dpkg-divert --list '*reconfigure*'") == (
            "debconf: /usr/sbin/dpkg-reconfigure\n"
        )
        own.sh("dpkg-reconfigure --frontend=noninteractive tzdata")
