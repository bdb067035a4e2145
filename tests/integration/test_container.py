"""Images that are derived from a composed one with buildah: apt in containers, `container commit`, `lint`.

The base is made once. It has a kernel and an initramfs, and this checkout's apt-ostree.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from apt_ostree.model import identities, layout, seeds, spdx

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

CHECKOUT = Path(__file__).resolve().parents[2]
TREEFILE = """
ref: test/container
version: "1"
suite: trixie
archives: [{suite: trixie}]
packages:
  - systemd
  - udev
  - kmod
  - linux-image-cloud-amd64
  - dracut
  - ostree
  - ostree-boot
  - zstd
  - apt
  - bubblewrap
  - gir1.2-ostree-1.0
  - libseccomp2
  - python3-apt
  - python3-click
  - python3-gi
  - python3-systemd
  - python3-yaml
  - python3-zstandard
documentation: false
add-files:
  - {src: installed/usr, dest: /usr}
  - {src: installed/etc, dest: /etc}
  - {src: prepare-root.conf, dest: /usr/lib/ostree/prepare-root.conf}
"""
PREPARE_ROOT = "[sysroot]\nreadonly=true\n[composefs]\nenabled=maybe\n"
POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'
#: Where limits cannot be raised, buildah needs to be told so.
LIMITS = '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
KEY = "-----BEGIN PRIVATE KEY-----"
BASE = "localhost/base:1"


@dataclass(frozen=True)
class Builder:
    """buildah with a storage of its own."""

    place: Path

    def run(self, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        storage = [
            f"--root={self.place}/storage",
            f"--runroot={self.place}/run",
            f"--storage-driver={driver()}",
        ]
        environment = {**os.environ, "CONTAINERS_CONF": str(self.place / "containers.conf")}
        done = subprocess.run(
            ["buildah", *storage, *map(str, words)],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
        )
        assert (done.returncode == 0) == (code == 0), f"{done.stdout}\n{done.stderr}"
        return done

    def derive(self, name: str, *steps: str, base: str = BASE, code: int = 0) -> str:
        """Build an image of RUN steps; return what it printed."""
        text = f"FROM {base}\n" + "".join(f"RUN {step}\n" for step in steps)
        (self.place / "Containerfile").write_text(text)
        words = [
            "bud",
            "--isolation=chroot",
            "--layers=false",
            f"--signature-policy={self.place}/policy.json",
        ]
        done = self.run(*words, f"--tag={name}", f"--file={self.place}/Containerfile", self.place, code=code)
        return done.stdout + done.stderr

    @contextlib.contextmanager
    def mounted(self, name: str) -> Iterator[Path]:
        """Yield the root directory of an image."""
        words = ["from", f"--signature-policy={self.place}/policy.json", "--pull=never"]
        container = self.run(*words, name).stdout.strip()
        try:
            yield Path(self.run("mount", container).stdout.strip())
        finally:
            self.run("rm", container)


def driver() -> str:
    kind = subprocess.run(
        ["stat", "--file-system", "--format=%T", "/var/tmp"], check=True, capture_output=True, text=True
    )
    return "vfs" if "overlay" in kind.stdout else "overlay"


def apt_ostree(*words: object, code: int = 0) -> str:
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT / "src"), "SOURCE_DATE_EPOCH": "1763900000"}
    command = [sys.executable, "-m", "apt_ostree", *map(str, words)]
    done = subprocess.run(command, check=False, env=env, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def broken(root: Path) -> dict[str, list[str]]:
    """Return the findings of each rule that an image breaks."""
    command = [sys.executable, "-m", "apt_ostree", "container", "lint", f"--rootfs={root}", "--json"]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT / "src")}
    done = subprocess.run(command, check=False, env=env, capture_output=True, text=True)
    rules = json.loads(done.stdout)["rules"]
    return {rule["name"]: rule["findings"] for rule in rules if rule["state"] == "failed"}


def digest(root: Path, name: str) -> str:
    (path,) = (root / layout.KERNEL_MODULES).glob(f"*/{name}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """buildah with the base image."""
    place = tmp_path_factory.mktemp("container")
    subprocess.run([CHECKOUT / "tools/install-files", place / "installed"], check=True, capture_output=True)
    for name, text in (
        ("os.yaml", TREEFILE), ("prepare-root.conf", PREPARE_ROOT), ("policy.json", POLICY),
        ("containers.conf", LIMITS),
    ):  # fmt: skip
        (place / name).write_text(text)
    apt_ostree("compose", "image", place / "os.yaml", "-o", place / "image", "--max-layers=16")
    made = Builder(place)
    policy = f"--signature-policy={place}/policy.json"
    image = made.run("pull", policy, f"oci:{place}/image").stdout.split()[-1]
    made.run("tag", image, BASE)
    return made


def test_the_base_keeps_all_rules(builder: Builder):
    with builder.mounted(BASE) as root:
        assert broken(root) == {}


def test_a_plain_apt_get_makes_an_image_for_machines(builder: Builder):
    builder.derive(
        "web",
        "apt-get update && apt-get install -y nginx-light ssl-cert",
        "test ! -e /usr/sbin/policy-rc.d",
        "test -e /var/lib/shells.state",  # a seed of the base, for the packages' scripts
        "apt-ostree container commit",
        "apt-ostree container lint --fatal-warnings",
    )
    with builder.mounted(BASE) as base, builder.mounted("web") as root:
        found = broken(root)
        # buildah leaves them, and so do all that are derived with it; an import drops them.
        assert set(found) <= {"buildah-injected"}, found
        assert digest(root, layout.INITRAMFS) == digest(base, layout.INITRAMFS)
        assert "ssl-cert" in identities.parse((root / layout.DEFERRED).read_text())
        assert not (root / "etc/ssl/private/ssl-cert-snakeoil.key").exists()
        assert "/var/lib/nginx" in (root / layout.TMPFILES_VAR).read_text()
        given, before = (seeds.parse((top / layout.SEEDS).read_text()) for top in (root, base))
        assert before.keys() <= given.keys()
        assert not [path for path in (root / "var").rglob("*") if path.is_file() and not path.is_symlink()]
        assert (root / "var/lib/dpkg").is_symlink()
        assert (root / "etc/systemd/system/multi-user.target.wants/nginx.service").is_symlink()
        bill = json.loads((root / spdx.PATH).read_text())
        assert {"nginx-light", "ssl-cert"} <= {package["name"] for package in bill["packages"]}
    again = builder.derive(
        "more",
        "apt-get update && apt-get install -y tree && apt-ostree container commit && tree --version",
        base="web",
    )
    assert "initramfs" not in again
    with builder.mounted("more") as root:
        assert (root / "usr/bin/tree").exists() and (root / "usr/sbin/nginx").exists()
        assert set(broken(root)) <= {"buildah-injected"}
        assert "ssl-cert" in identities.parse((root / layout.DEFERRED).read_text())


@pytest.mark.extended
def test_the_initramfs_follows_what_it_is_made_of(builder: Builder):
    said = builder.derive(
        "boot",
        "echo 'options loop max_loop=8' >/etc/modprobe.d/loop.conf && apt-ostree container commit",
    )
    assert "is made anew" in said
    with builder.mounted(BASE) as base, builder.mounted("boot") as root:
        assert digest(root, layout.INITRAMFS) != digest(base, layout.INITRAMFS)
        assert digest(root, layout.INITRAMFS_INPUTS) != digest(base, layout.INITRAMFS_INPUTS)
        assert set(broken(root)) <= {"buildah-injected"}


@pytest.mark.extended
def test_a_second_kernel_is_refused(builder: Builder):
    said = builder.derive(
        "kernels",
        "apt-get update && apt-get install -y linux-image-amd64 && apt-ostree container commit",
        code=1,
    )
    assert "2 kernels" in said


def test_what_belongs_to_one_machine_is_told(builder: Builder):
    make = f"mkdir /etc/app && echo '{KEY}' >/etc/app/key"
    said = builder.derive("key", f"{make} && apt-ostree container commit", code=1)
    assert "/etc/app/key: a private key" in said
    builder.derive("key", f"{make} && apt-ostree container commit --shared /etc/app/key")
    with builder.mounted("key") as root:
        assert (root / "etc/app/key").exists()
        assert set(broken(root)) <= {"buildah-injected"}


def test_what_was_not_finished_breaks_rules(builder: Builder):
    builder.derive(
        "raw", "apt-get update && apt-get install -y ssl-cert && mkdir /data && touch /data/x /tmp/x"
    )
    with builder.mounted("raw") as root:
        found = broken(root)
    assert {"machine-state", "nonempty-run-tmp", "top-level", "var-log", "var-tmpfiles"} <= set(found)
    said = builder.derive("raw", "mkdir /data && touch /data/x && apt-ostree container commit", code=1)
    assert "a tree cannot have /data" in said


def test_it_is_refused_outside_of_a_container():
    apt_ostree("container", "commit", code=3)
    apt_ostree("container", "prepare", code=3)
