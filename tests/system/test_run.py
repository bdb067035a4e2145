"""Programs that `apt-ostree run` runs in the next deployment."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.system.livehost import WRITABLE_SYSROOT, Host, program

ADD = ("dpkg", "--add-architecture", "i386")


def commands(host: Host) -> list[list[str]]:
    return host.json("status")["deployments"][0]["commands"]


def run_json(host: Host, *words: str, code: int = 0) -> dict[str, Any]:
    """Return the result or the error; what follows the program are its own arguments."""
    result: dict[str, Any] = json.loads(host.ao("run", "--json", *words, code=code).stdout)
    return result


def test_what_programs_did_is_there_at_once_and_after_a_reboot(own: Host):
    own.ao("install", "-A", "-y", "fx-hello")
    own.ao("run", "-A", "-y", *ADD)
    own.ao("run", "-A", "-y", "apt-mark", "hold", "fx-hello")
    own.ao("run", "-A", "-y", "sh", "-c", "echo mine >/etc/of-a-program; echo tree >/usr/share/of-a-program")
    shown = (
        "dpkg --print-foreign-architectures; apt-mark showhold; cat /etc/of-a-program /usr/share/of-a-program"
    )
    for reboot in (False, True):
        if reboot:
            own.reboot()
        assert own.sh(shown) == "i386\nfx-hello\nmine\ntree\n"
        assert commands(own)[:2] == [list(ADD), ["apt-mark", "hold", "fx-hello"]]
    own.suites("stable", "updates")
    own.ao("upgrade", "--packages-only", "--check", code=77)
    own.ao("run", "-A", "-y", "apt-mark", "unhold", "fx-hello")
    own.ao("upgrade", "-A", "-y", "--packages-only")
    assert own.sh("fx-hello") == "hello 2.0\n"
    own.ao("apply-live", "--reset")
    assert own.sh("apt-mark showhold; fx-hello") == "fx-hello\nhello 1.0\n"


@pytest.mark.extended
def test_programs_are_run_again_on_a_new_base(own: Host):
    own.ao("run", *ADD)
    own.ao("run", "sh", "-c", "ls /usr/share/new-base >/usr/share/of-a-program || true")
    own.ao("install", "fx-hello")
    own.ao("run", "apt-mark", "hold", "fx-hello")
    own.suites("stable", "updates")
    own.run(*WRITABLE_SYSROOT, *program("newer_base.sh", "--no-gpg-verify"))
    own.ao("upgrade")
    own.reboot()
    shown = "dpkg --print-foreign-architectures; cat /usr/share/of-a-program; apt-mark showhold; fx-hello"
    assert own.sh(shown) == "i386\n/usr/share/new-base\nfx-hello\nhello 1.0\n"
    own.ao("run", "--forget", "-A", "-y", *ADD)
    assert own.sh("dpkg --print-foreign-architectures; fx-hello") == "hello 1.0\n"
    assert [words[0] for words in commands(own)] == ["sh", "apt-mark"]


def test_a_program_that_fails_or_does_nothing_changes_nothing(host: Host):
    host.ao("install", "fx-conf")
    before = host.look().everything()
    failure = run_json(host, "sh", "-c", "echo the reason; exit 3", code=1)
    assert "the reason" in failure["details"]
    assert "ended with exit code 3" in failure["message"]
    host.ao("run", "no-such-program", code=1)
    host.ao("run", "--forget", "true", code=2)
    host.ao("run", "--unchanged-exit-77", "true", code=77)
    tried = run_json(host, "-n", *ADD)
    assert (tried["changed"], tried["commit"]) == (True, None)
    assert host.look().everything() == before
    host.ao("cleanup", "--pending")


def test_usr_local_is_the_machines(own: Host):
    own.sh("printf '#!/bin/sh\necho mine\n' >/usr/local/bin/mine; chmod 755 /usr/local/bin/mine")
    own.ao("install", "-A", "-y", "fx-hello")
    assert own.sh("mine; ls -d /usr/local/lib /usr/local/sbin /usr/local/man") != ""
    own.reboot()
    assert own.sh("mine") == "mine\n"
