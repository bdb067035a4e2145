"""The policy on a booted machine: each kind allows and refuses, and what is refused touches nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.system.livehost import Host, same

FILE = "/etc/apt-ostree/apt-ostree.conf.d/test.conf"
#: A window that is open now for some hours, and one that is open for an hour in half a day.
OPEN = "$(date -d '-1 hour' +%H:%M) for 8h"
CLOSED = "$(date -d '+12 hours' +%H:%M) for 1h"
#: A scanner that accepts what has no program fx-hello, if the list of packages has fx-conf.
SCANNER = "Scanner=sh -c 'grep -q ^fx-conf.1 && test ! -e \\$0/bin/fx-hello'"


@pytest.fixture
def policy(host: Host) -> Iterator[Callable[..., None]]:
    """Give the shared machine a policy; afterwards it has none."""

    def set_policy(*lines: str) -> None:
        text = "\\n".join(("[Policy]", *lines))
        host.sh(f'mkdir -p {FILE.rpartition("/")[0]}; printf "{text}\\n" >{FILE}')

    yield set_policy
    host.sh("rm -rf /etc/apt-ostree/apt-ostree.conf.d /var/lib/apt-ostree/approvals")


def refusals(host: Host, *argv: str) -> Mapping[str, Any]:
    """Run a command that is refused and touches nothing; return its reasons by their rules."""
    before = host.look()
    error = host.json(*argv, code=3)
    same(before.everything(), host.look().everything())
    assert all(reason["setting"]["file"] == FILE for reason in error["reasons"])
    assert error["reasons"], error
    return {reason["rule"]: reason for reason in error["reasons"]}


def test_packages(host: Host, policy: Callable[..., None]):
    policy("NeverPackages=fx-hello fx-many-*", "OnlyPackages=fx-*")
    assert refusals(host, "install", "fx-hello")["never-packages"]["subject"] == "fx-hello"
    assert {r["rule"] for r in host.json("install", "-A", "-y", "fx-set-40", code=3)["reasons"]} == {
        "never-packages"
    }
    told = host.json("policy", "install", "fx-set-40", code=3)
    assert not told["allowed"] and "a dependency" in told["reasons"][-1]["text"]
    assert host.json("policy", "install", "fx-conf")["allowed"]
    host.ao("apply-live", "--packages=fx-hello", code=3)
    # Root overrides, the journal keeps why, and the way back is open, whatever the settings are.
    done = host.json("install", "-A", "-y", "--override-policy=incident 4711", "fx-hello", "fx-conf")
    assert done["policy"]["override"] and host.sh("fx-hello") == "hello 1.0\n"
    kept = host.sh("journalctl -t apt-ostree -o cat -g 'overrides the policy'")
    assert "incident 4711" in kept and "NeverPackages" in kept
    policy("Nothing=1", "ApplyWindow=Sot for 1h")
    assert FILE in host.failure("install", "fx-user", code=2)
    host.ao("rollback", "--live")
    assert not host.exists("/usr/bin/fx-hello")
    host.ao("cleanup", "--pending")


@pytest.mark.extended
def test_archives(host: Host, policy: Callable[..., None]):
    host.ao("install", "fx-hello", "fx-service", "fx-conf")
    host.suites("stable", "security", "updates")
    policy("SecurityOnly=yes")
    done = host.json("upgrade", "--packages-only")
    assert {step["name"]: step["new"] for step in done["transaction"]["upgrade"]} == {
        "fx-hello": "1.1", "fx-service": "1.1",
    }  # fmt: skip
    kept = {reason["subject"]: reason for reason in done["policy"]["reasons"]}
    assert {"fx-hello", "fx-service", "fx-conf"} <= set(kept) and "2.0" in kept["fx-conf"]["text"]
    policy("[Holds]", "fx-conf=2999-12-24")
    done = host.json("upgrade", "--packages-only", "--dry-run")
    assert {step["name"] for step in done["transaction"]["upgrade"]} == {"fx-hello", "fx-service"}
    assert [(r["rule"], r["subject"]) for r in done["policy"]["reasons"]] == [("hold", "fx-conf")]
    assert set(refusals(host, "install", "fx-conf=2.0")) == {"hold"}
    policy("Origins=suite=stable suite=security")
    assert host.json("upgrade", "--packages-only", "--check", code=77)["policy"]["allowed"]
    assert [r["rule"] for r in host.json("install", "fx-conf=2.0", code=3)["reasons"]] == ["origins"]
    assert host.json("policy", "install", "fx-opt")["allowed"]
    host.sh("cp /var/lib/testbed/repo/pool/fx-var_1.0_all.deb /var/tmp/given.deb")
    assert [r["rule"] for r in host.json("install", "/var/tmp/given.deb", code=3)["reasons"]] == ["origins"]
    policy("Origins=suite=stable file")
    assert host.json("policy", "install", "/var/tmp/given.deb")["allowed"]


@pytest.mark.extended
def test_windows(host: Host, policy: Callable[..., None]):
    policy(f"ApplyWindow={CLOSED}", f"RebootWindow={CLOSED}")
    for argv in (("usroverlay", "--create", "--name=x"), ("apply-live", "--packages=fx-hello")):
        (reason,) = host.json(*argv, code=3)["reasons"]
        assert (reason["rule"], reason["setting"]["key"]) == ("apply-window", "ApplyWindow")
    told = refusals(host, "upgrade", "-r")
    assert set(told) == {"apply-window", "reboot-window"}
    assert 11 < (told["apply-window"]["opens"] - float(host.sh("date +%s"))) / 3600 < 13
    settings = host.json("policy")
    assert settings["windows"]["apply-window"]["until"] is None
    # What waits for an open window may be prepared; then it needs one.
    host.ao("install", "--lock-finalization", "fx-hello")
    assert set(refusals(host, "finalize-deployment", "--allow-missing-checksum")) == {
        "apply-window", "reboot-window",
    }  # fmt: skip
    host.ao("cleanup", "--pending")
    policy(f"ApplyWindow={CLOSED}; {OPEN}", f"RebootWindow={CLOSED}")
    assert [reason["rule"] for reason in host.json("upgrade", "-r", code=3)["reasons"]] == ["reboot-window"]
    host.ao("install", "-A", "-y", "fx-hello")
    policy(f"ApplyWindow={CLOSED}")
    host.ao("rollback", "--live")
    assert not host.exists("/usr/bin/fx-hello")


def test_approvals_and_scanner(host: Host, policy: Callable[..., None]):
    policy("Approval=install", "ApprovalBy=other", SCANNER)
    reason = refusals(host, "install", "-A", "-y", "fx-conf")["approval"]
    plan = reason["subject"]
    assert host.json("policy", "install", "-A", "fx-conf", code=3)["reasons"][0]["subject"] == plan
    host.ao("approve", plan)  # by the one who asks for it
    assert host.json("install", "-A", "-y", "fx-conf", code=3)["reasons"][0]["setting"]["key"] == "ApprovalBy"
    # By somebody who has logged in, and has root's rights by sudo.
    approved = host.sh(f"echo 65534 >/proc/self/loginuid; apt-ostree approve {plan} --json")
    assert '"user": "nobody"' in approved
    assert host.json("install", "-A", "-y", "fx-user", code=3)["reasons"][0]["subject"] != plan
    done = host.json("install", "-A", "-y", "fx-conf")
    assert [reason["rule"] for reason in done["policy"]["reasons"]] == ["approval", "scanner"]
    policy(SCANNER)
    assert set(refusals(host, "install", "-A", "-y", "fx-hello")) == {"scanner"}
