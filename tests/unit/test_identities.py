"""What belongs to one machine: the known, what the machine configures itself, and what is not known."""

from __future__ import annotations

import random

import pytest

from apt_ostree.errors import AptOstreeError
from apt_ostree.model import identities
from apt_ostree.model.identities import KNOWN


def test_paths_of_a_package_follow_its_name():
    (found,) = identities.of_package("postgresql-17", KNOWN)
    assert found.paths == ("etc/postgresql/17/*", "var/lib/postgresql/17/*")
    assert identities.of_package("postgresql-17-postgis-3", KNOWN) == []
    assert identities.of_package("munged", KNOWN) == []


def test_a_service_makes_host_keys():
    (found,) = identities.of_package("openssh-server", KNOWN)
    assert not found.configure


@pytest.mark.parametrize(
    ("path", "pattern", "matches"),
    [
        ("/etc/a/key", "/etc/a/key", True),
        ("/etc/a/key", "/etc/a", True),
        ("/etc/a/key", "/etc/*/key", True),
        ("/etc/a/keys", "/etc/a/key", False),
        ("/etc/a", "/etc/a/key", False),
    ],
)
def test_patterns_name_paths_and_what_is_below(path, pattern, matches):
    assert identities.matches_any(path, [pattern]) is matches


# --- on the machine

DEFERRED = {"munge": ["/etc/munge/munge.key"], "nvme-cli": ["/etc/nvme/hostid", "/etc/nvme/hostnqn"]}


@pytest.mark.parametrize(
    ("present", "done", "expected"),
    [
        ([], [], ["munge", "nvme-cli"]),
        (["/etc/munge/munge.key"], [], ["nvme-cli"]),  # the author's own key, or an earlier deployment's
        (["/etc/nvme/hostid"], [], ["munge", "nvme-cli"]),
        ([], ["munge"], ["nvme-cli"]),  # its owner removed the key
        ([], ["munge", "nvme-cli"], []),
    ],
)
def test_a_package_is_configured_once_where_something_is_missing(present, done, expected):
    assert identities.due(DEFERRED, done, present.__contains__) == expected


def test_the_manifest_is_read_as_it_was_written():
    assert identities.parse(identities.format_deferred(DEFERRED)) == DEFERRED
    assert identities.parse("") == {}
    for text in ("[]", "{", '{"a": 1}'):
        with pytest.raises(AptOstreeError):
            identities.parse(text)


def test_dpkg_is_to_configure_only_the_named_packages():
    status = "".join(
        f"Package: {name}\nStatus: install ok {state}\nVersion: 1\n\n"
        for name, state in (("munge", "installed"), ("libmunge2", "installed"), ("old", "config-files"))
    )
    changed = identities.half_configured(status, {"munge": "", "old": ""})
    assert changed == status.replace("installed", "half-configured", 1)
    held = status.replace("Status: install", "Status: hold")
    once = identities.half_configured(status, {"munge": "0.9"})
    assert once == status.replace("installed", "half-configured\nConfig-Version: 0.9", 1)
    assert identities.half_configured(held, {"munge": ""}) == held.replace("installed", "half-configured", 1)


# --- what is not in the table

RANDOM = random.Random(1)
KEY = RANDOM.randbytes(128)
PEM = b"-----BEGIN PRIVATE KEY-----\nMIIE\n"
SHADOW = b"root:*:19000:0:99999:7:::\nsystemd-timesync:!*:20000::::::\npostgres:!:20000::::::\n"


@pytest.mark.parametrize(
    ("path", "mode", "content"),
    [
        ("etc/x/key.pem", 0o640, PEM),
        ("usr/lib/x/key.pem", 0o644, PEM),
        ("etc/x/key", 0o644, b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n"),
        ("etc/munge/munge.key", 0o400, KEY),
        ("var/lib/rabbitmq/.erlang.cookie", 0o400, b"WMZQXKJHTRPLVNBSADFG"),
        ("etc/bind/rndc.key", 0o640, b'secret "q9UY7r3mWv0d1Z8pXk2nTe5sLh4=";\n'),
        ("etc/dbconfig/x.conf", 0o600, b"dbc_dbpass='Xk2nTe5sLh4q9UY7'\n"),
        ("etc/x/secret", 0o600, b"8f14e45fceea167a5a36dedd4bea2543\n"),
        (
            "etc/xrdp/rsakeys.ini",
            0o640,
            b"pub_exp=0x01,0x00\npub_mod=" + b"0x3a,0x5e,0x01,0xf9," * 4 + b"0x00\n",
        ),
        ("etc/shadow", 0o640, SHADOW + b"app:$y$j9T$Xk2nTe5sLh4q9UY7$abc:20000::::::\n"),
        (
            "etc/nvme/hostnqn",
            0o644,
            b"nqn.2014-08.org.nvmexpress:uuid:6f1c3f0e-8a4b-4d3c-9a2b-0c1d2e3f4a5b\n",
        ),
        ("var/lib/x/id", 0o644, b"8f14e45fceea167a5a36dedd4bea2543\n"),
    ],
)
def test_what_seems_to_belong_to_one_machine(path, mode, content):
    assert identities.suspicion(path, mode, content)


@pytest.mark.parametrize(
    ("path", "mode", "content"),
    [
        ("etc/ssl/certs/ca.pem", 0o644, b"-----BEGIN CERTIFICATE-----\nMIID\n"),
        ("etc/shadow", 0o640, SHADOW),
        ("etc/x/empty", 0o600, b""),
        ("usr/lib/x/__pycache__/x.pyc", 0o644, b"\xa7\r\r\n\x00\n-----BEGIN OPENSSH PRIVATE KEY-----\n"),
        ("etc/x/pattern", 0o644, b"keys begin with -----BEGIN PRIVATE KEY-----\n"),
        ("etc/tomcat/server.xml", 0o640, b'<Listener className="org.apache.catalina.Http11NioProtocol" />\n'),
        ("var/lib/x/table.h", 0o644, b"6f1c3f0e-8a4b-4d3c-9a2b-0c1d2e3f4a5b\n" * 200),
        ("etc/exim4/passwd.client", 0o640, b"# password file used when the local exim is authenticating\n"),
        ("etc/sudoers.d/x", 0o440, b"Defaults secure_path=/usr/local/sbin:/usr/sbin\n"),
        ("var/cache/debconf/passwords.dat", 0o600, b"Name: x/password\nTemplate: x/password\n\n"),
        ("var/lib/x/table.db", 0o600, bytes(4096) + b"header" + bytes(4096)),
        ("etc/ssl/certs/java/cacerts", 0o644, KEY),
        ("usr/share/x/cache", 0o644, b"6f1c3f0e-8a4b-4d3c-9a2b-0c1d2e3f4a5b\n"),
        ("etc/x/text", 0o644, b"the digest 8f14e45fceea167a5a36dedd4bea2543 of a file\n"),
        ("etc/x/words", 0o600, "Größe".encode()[:-2]),
    ],
)
def test_what_all_machines_may_have(path, mode, content):
    assert identities.suspicion(path, mode, content) is None
