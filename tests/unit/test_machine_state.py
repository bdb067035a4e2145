"""A compose keeps what belongs to one machine out of the tree."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from apt_ostree.core.compose import machine_state
from apt_ostree.errors import Refused
from apt_ostree.model import identities, layout
from apt_ostree.model.treefile import MachineState
from tests.unit import repos

SAMPLE = "-----BEGIN PRIVATE KEY-----\nof an example\n"
SAMPLE_DIGEST = hashlib.md5(SAMPLE.encode()).hexdigest()
KEY = "-----BEGIN PRIVATE KEY-----\nMIIE\n"
SNAKEOIL = "etc/ssl/certs/ssl-cert-snakeoil.pem"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root in which packages' scripts have run."""
    made = {
        SNAKEOIL: "certificate",
        "etc/ssl/private/ssl-cert-snakeoil.key": KEY,
        "etc/ssh/ssh_host_rsa_key": KEY,
        "etc/ssh/ssh_host_rsa_key.pub": "public",
        "etc/machine-id": "8f14e45fceea167a5a36dedd4bea2543\n",
        "var/lib/mysql/ibdata1": "data",
        "usr/share/doc/example.key": KEY,
        f"{layout.DPKG_ADMINDIR}/info/example.list": "/.\n/usr/share/doc/example.key\n/lib/shipped.key\n",
        f"{layout.DPKG_ADMINDIR}/info/example.md5sums": f"{SAMPLE_DIGEST}  usr/share/x\n",
        "usr/lib/shipped.key": KEY,
        "etc/sample.key": SAMPLE,
        "var/cache/app/key": KEY,
        "var/log/app/key": KEY,
    }
    repos.write_files(tmp_path, made)
    (tmp_path / "etc/ssl/certs/0123abcd.0").symlink_to("ssl-cert-snakeoil.pem")
    (tmp_path / "etc/ssl/private/service.key").symlink_to("/etc/ssl/private/ssl-cert-snakeoil.key")
    return tmp_path


PACKAGES = ("mariadb-server", "openssh-server", "ssl-cert")


def leave(root: Path, *own: MachineState, packages: tuple[str, ...] = PACKAGES) -> dict[str, list[str]]:
    """Run the step; return the manifest of the tree."""
    names = machine_state.leave_to_machines(root, packages, own)
    deferred = identities.parse((root / layout.DEFERRED).read_text())
    assert names == sorted(deferred)
    return deferred


def test_what_is_known_is_left_to_machines(root):
    assert leave(root) == {
        "mariadb-server": ["/var/lib/mysql/*"],
        "ssl-cert": ["/etc/ssl/certs/ssl-cert-snakeoil.pem", "/etc/ssl/private/ssl-cert-snakeoil.key"],
    }
    assert not list((root / "etc/ssh").iterdir())
    assert not list((root / "etc/ssl/certs").iterdir())  # nor the name that openssl has for it
    assert (root / "etc/ssl/private/service.key").is_symlink()
    assert (root / "var/lib/mysql").is_dir()


def test_what_a_tree_says_already_stays_true(root):
    leave(root, MachineState("/etc/app/key", package="app"), MachineState("/etc/kept", shared=True))
    write_files = {"etc/app/key": KEY, "etc/kept/key": KEY, SNAKEOIL: "made again"}
    assert "app" not in leave(root)
    repos.write_files(root, {**write_files, layout.DEFERRED: '{"app": ["/etc/app/key"], "gone": ["/x"]}'})
    packages = (*PACKAGES, "app")
    assert sorted(machine_state.known(root, packages)) == [("etc/app/key", "app"), (SNAKEOIL, "ssl-cert")]
    assert machine_state.unknown(root) == ["/etc/app/key: a private key"]
    assert leave(root, packages=packages) == {
        "app": ["/etc/app/key"],
        "ssl-cert": [f"/{SNAKEOIL}"],
    }
    assert not (root / "etc/app/key").exists() and (root / "etc/kept/key").exists()


def test_what_a_package_did_not_make_is_not_left(root):
    (root / SNAKEOIL).unlink()
    (root / "etc/ssl/private/ssl-cert-snakeoil.key").unlink()
    assert "ssl-cert" not in leave(root)


def test_what_is_not_known_is_refused_by_name(root):
    repos.write_files(
        root, {"etc/app/app.key": KEY, "var/lib/app/app.key": KEY, "usr/lib/app.key": KEY, "root/.key": KEY}
    )
    with pytest.raises(Refused) as caught:
        leave(root)
    assert caught.value.details == tuple(
        f"/{path}: a private key"
        for path in ("etc/app/app.key", "usr/lib/app.key", "var/lib/app/app.key", "root/.key")
    )
    assert "machine-state" in str(caught.value.hint)


def test_an_author_says_what_it_is(root):
    repos.write_files(root, {"etc/app/app.key": KEY, "var/lib/app/app.key": KEY})
    own = (MachineState("/etc/app/app.key", "app"), MachineState("/var/lib/a*", shared=True))
    assert leave(root, *own, packages=(*PACKAGES, "app"))["app"] == ["/etc/app/app.key"]
    assert not (root / "etc/app/app.key").exists()
    assert (root / "var/lib/app/app.key").exists()


def test_an_author_shares_what_is_known(root):
    own = (MachineState("/etc/ssl/*", shared=True), MachineState("/etc/ssh/*", shared=True))
    assert set(leave(root, *own)) == {"mariadb-server"}
    assert (root / SNAKEOIL).exists()
    assert (root / "etc/ssh/ssh_host_rsa_key").exists()


def test_a_package_that_is_not_installed_makes_nothing(root):
    own = (MachineState("/etc/ss*", shared=True), MachineState("/etc/app", "app"))
    assert leave(root, *own, packages=()) == {}
    assert (root / "var/lib/mysql/ibdata1").exists()
