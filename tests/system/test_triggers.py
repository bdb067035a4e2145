"""What a boot and dpkg's triggers do for changed files is done live, and taken back by the undo."""

from __future__ import annotations

import json
from pathlib import Path

from tests.system import livehost
from tests.system.livehost import Host

#: A network namespace, whose keys of sysctl are not those of the machine that the tests run on.
_NETWORK = ("nsenter", "--net=/run/fx-net")
#: Has a worker of the command itself do it, in the command's namespaces. The service's are those of PID 1.
_DIRECTLY = {"APT_OSTREE_FAILPOINT": ""}
TTL, MSF = "/proc/sys/net/ipv4/ip_default_ttl", "/proc/sys/net/ipv4/igmp_max_msf"
REPLACE = ("apply-live", "--allow-replacement")


def triggers(host: Host, *words: str) -> dict[str, dict]:
    """Run apt-ostree in the network namespace; return the triggers of its plan."""
    done = host.run(*_NETWORK, "apt-ostree", *words, "--json", env=_DIRECTLY)
    return {step["trigger"]: step for step in json.loads(done.stdout)["plan"]["triggers"]}


def values(host: Host) -> list[str]:
    return host.run(*_NETWORK, "cat", TTL, MSF).stdout.split()


def test_keys_of_sysctl_are_set_and_given_back(own: Host):
    # A container may not write to /proc/sys; in a namespace of its own, that concerns nobody else.
    own.sh("touch /run/fx-net; unshare --net=/run/fx-net true; mount -o remount,bind,rw /proc/sys")
    before = values(own)
    own.ao("install", "fx-kernel")
    assert triggers(own, "apply-live")["sysctl"]["names"] == [
        "net/ipv4/ip_default_ttl", "net/ipv4/igmp_max_msf"
    ]  # fmt: skip
    assert values(own) == ["77", "21"]

    # A file of the administrator overrides the package's; what no file sets any more is as it was.
    own.sh("echo net.ipv4.ip_default_ttl=99 >/etc/sysctl.d/99-own.conf")
    own.suites("stable", "updates")
    own.ao("upgrade", "--packages-only")
    assert triggers(own, *REPLACE)["sysctl"]["gone"] == ["net/ipv4/igmp_max_msf"]
    assert values(own) == ["99", before[1]]

    own.run(*_NETWORK, "sh", "-c", f"echo 42 >{TTL}")
    triggers(own, "rollback", "--live")
    assert values(own) == ["42", "21"]  # somebody has set the first one since
    triggers(own, *("apply-live", "--reset"))
    assert values(own) == ["42", before[1]]


def test_what_a_container_does_not_allow_is_neither_planned_nor_tried(own: Host):
    result = own.json("install", "-A", "-y", "fx-kernel")
    planned = {step["trigger"] for step in result["plan"]["triggers"]}
    assert planned.isdisjoint({"sysctl", "binfmt", "apparmor"})
    assert own.is_active("fx-kernel.service")


def test_the_index_of_manual_pages_follows_the_tree(own: Host):
    index, pages = "/var/cache/man/index", "usr/share/man/man1"
    mandb = f'#!/bin/sh\necho "$*" $(cd /{pages} && echo fx-*) >{index}\n'
    own.sh(f"install -d -o man -g man {Path(index).parent}; mkdir -p /run/fx-tree/{pages}")
    own.run("install", "-D", "-m", "755", "/dev/stdin", "/run/fx-tree/usr/bin/mandb", input=mandb)

    def wait_for_index(found: str) -> None:
        livehost.wait_for(own, f"grep -qx -- '--create --quiet {found}' {index}")
        own.sh(f"rm {index}")

    for name, base in (("fx-a", ""), ("fx-b", "fx-a.1 ")):
        own.sh(f"touch /run/fx-tree/{pages}/{name}.1")
        own.commit("test/man", "/run/fx-tree")
        own.ao("apply-live", "--target=test/man", "--allow-replacement")
        wait_for_index(f"{base}{name}.1")
    own.ao("rollback", "--live")
    wait_for_index("fx-a.1")
    own.sh("systemctl mask apt-ostree-man-db.service")
    own.ao("apply-live", "--target=test/man", "--allow-replacement")
    assert not own.exists(index)
    own.sh("systemctl unmask apt-ostree-man-db.service")
    # Nothing says at a boot which pages differ.
    own.ao("rollback", "--live", "0")
    own.sh("ostree admin deploy --stage test/man")
    own.reboot()
    wait_for_index("fx-a.1 fx-b.1")
