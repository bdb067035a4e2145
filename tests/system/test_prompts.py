"""A question to the user holds nothing up, and its answer is about what is there when it is given."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.system.livehost import Host, same

#: Until the change that nobody confirmed is undone; it must not wait for the prompt.
UNCONFIRMED = (
    "for _ in $(seq 300); do apt-ostree history | tail -n 3 | grep -q unconfirmed && exit; sleep 0.1; done;"
    " exit 1"
)


def ask(host: Host, meanwhile: str, *command: str) -> dict[str, Any]:
    """Leave a command's question open while a script runs, then say yes; return exit code and output."""
    done = host.run_program("leave_prompt_open.py", meanwhile, "apt-ostree", *command)
    answer: dict[str, Any] = json.loads(done.stdout)
    assert "Proceed? [y/N]" in answer["output"]
    return answer


def test_a_prompt_does_not_hold_up_what_is_undone_unless_confirmed(host: Host):
    before = host.look()
    host.ao("install", "-A", "-y", "--confirm-within=4s", "fx-service")
    answer = ask(host, UNCONFIRMED, "install", "-A", "fx-hello")
    assert answer["code"] == 3
    assert "the system was changed while the question was open" in answer["output"]
    assert not host.exists("/usr/bin/fx-hello")
    same(before.system(), host.look().system())
    host.ao("install", "-A", "-y", "fx-hello")
    assert host.exists("/usr/bin/fx-hello")


def test_the_answer_to_a_live_plan_is_about_the_plan(host: Host):
    host.ao("install", "fx-hello")
    answer = ask(host, "apt-ostree install -y fx-conf", "apply-live")
    assert answer["code"] == 3
    assert host.deployments()[0]["requested-packages"] == ["fx-conf", "fx-hello"]
    assert not host.exists("/usr/bin/fx-hello")


@pytest.mark.extended
def test_what_does_not_change_the_system_leaves_the_answer_alone(host: Host):
    host.ao("install", "-A", "-y", "--confirm-within=1h", "fx-service")
    host.ao("install", "fx-hello")
    answer = ask(host, "apt-ostree confirm; apt-ostree status", "apply-live")
    assert answer["code"] == 0, answer["output"]
    assert host.exists("/usr/bin/fx-hello")
