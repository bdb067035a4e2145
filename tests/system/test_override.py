"""Packages of the base are removed, replaced and given back on a booted machine."""

from __future__ import annotations

from tests.system import livehost
from tests.system.livehost import Host

#: What ca-certificates' scripts make of /etc, and polkitd's account.
STATE = "find /etc/ssl/certs | sort | sha256sum; cat /etc/ca-certificates.conf; getent passwd polkitd"
POOL = "/var/lib/testbed/repo/pool"


def test_removed_live_kept_through_reboots_and_given_back(own: Host):
    state, everything = own.sh(STATE), own.installed()
    result = own.json("override", "remove", "-A", "-y", "ca-certificates", "polkitd", "--install=fx-hello")
    assert {step["name"] for step in result["transaction"]["remove"]} == {"ca-certificates", "polkitd"}
    assert not (own.exists("/etc/ssl/certs/ISRG_Root_X1.pem") or own.exists("/usr/bin/pkaction"))
    assert own.run("fx-hello").stdout == "hello 1.0\n"
    local = f"--install={POOL}/fx-user_1.0_all.deb"
    own.ao("override", "remove", "ca-certificates", local, "--unchanged-exit-77")
    own.reboot()
    entry = own.deployments()[0]
    assert entry["requested-base-removals"] == ["ca-certificates", "polkitd"]
    assert own.installed() == {
        **{
            name: version
            for name, version in everything.items()
            if name not in entry["requested-base-removals"]
        },
        "fx-hello": "1.0",
        "fx-user": "1.0",
    }
    assert entry["requested-local-packages"] == ["fx-user=1.0"]
    assert "RemovedBasePackages: ca-certificates" in own.ao("status").stdout
    own.check_clean()

    own.ao("uninstall", "--all")
    pending = own.deployments()[0]
    assert pending["requested-base-removals"] == entry["requested-base-removals"]
    assert pending["requested-packages"] == pending["requested-local-packages"] == []
    own.ao("cleanup", "-p")
    own.ao("override", "reset", "--all", "-A", "-y")
    assert own.sh(STATE) == state and own.exists("/usr/bin/pkaction")
    own.ao("uninstall", "--all", "-A", "-y")
    own.reboot()
    assert own.sh(STATE) == state and own.installed() == everything
    assert own.deployments()[0].get("base-checksum") is None  # nothing is layered any more
    own.check_clean()


def test_refusals_touch_nothing(own: Host):
    before = own.look()
    for words, code in (
        (("remove", "bash"), 3),  # essential
        (("remove", "libc6"), 3),  # others need it
        (("remove", "fx-hello"), 2),
        (("replace", "fx-hello=1.0"), 2),
        (("reset", "bash"), 2),
        (("reset",), 2),
    ):
        error = own.json("override", *words, code=code)
        assert error["message"], error
    livehost.same(before.everything(), own.look().everything())
