"""Takes a security update of nginx live from a registry, by reboot from there, and by apt-get: on the host.

Each of the three has a machine of its own, which boots the base without the update.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testbed_lib.machine import Machine

from bench_lib import machine, registry
from bench_lib.images import Update
from bench_lib.measure import BenchError, interleaved, say
from bench_lib.registry import Registry


class Sides:
    """Three machines: live, reboot, apt."""

    def __init__(self, update: Update, served: Registry, machines: Mapping[str, Machine]) -> None:
        self._update, self._registry, self._machines = update, served, machines
        self._old, self._new = update.versions
        self._found: dict[str, list[Any]] = {side: [] for side in machines} | {"pulled": []}

    def measure(self, rounds: int, reboots: int) -> dict[str, Any]:
        """Return the seconds of each side in every round, and all bytes; fewer rounds have a reboot."""
        self._prepare()
        for number in interleaved(reboots, self._live, self._reboot, self._apt):
            say(f"update from a registry: round {number + 1} of {rounds}")
        for number in interleaved(rounds - reboots, self._live, self._apt):
            say(f"update from a registry: round {number + reboots + 1} of {rounds}")
        return {**self._found, "bytes": self._update.bytes}

    def _prepare(self) -> None:
        """Have two machines follow the image, of which there is a new one then; make the third one plain."""
        self._registry.push(self._update.images[0])
        image = f"{self._registry.address}/{registry.NAME}"
        for side in ("live", "reboot"):
            self._ask(side, "follow", image=image, port=registry.free_port())
            self._machines[side].reboot()
            self._ask(side, "keep")
        self._ask("apt", "plain-prepare", old=self._old, port=registry.free_port())
        self._registry.push(self._update.images[1])

    def _live(self) -> None:
        sent = self._registry.sent()
        self._found["live"].append(self._ask("live", "live", old=self._old, new=self._new))
        self._note_pulled(sent)

    def _reboot(self) -> None:
        sent, rebooted = self._registry.sent(), self._machines["reboot"]
        began = self._ask("reboot", "upgrade", old=self._old)
        self._note_pulled(sent)
        rebooted.reboot()
        self._found["reboot"].append(self._ask("reboot", "verify", version=self._new) - began)
        self._ask("reboot", "roll-back")
        rebooted.reboot()
        self._ask("reboot", "forget")

    def _apt(self) -> None:
        self._found["apt"].append(self._ask("apt", "plain", old=self._old, new=self._new))

    def _note_pulled(self, before: int) -> None:
        pulled = self._registry.sent() - before
        if not pulled:
            raise BenchError("the registry has sent nothing of the new image")
        self._found["pulled"].append(pulled)

    def _ask(self, side: str, topic: str, **arguments: Any) -> Any:
        return machine.measure(self._machines[side], f"image-{topic}", **arguments)
