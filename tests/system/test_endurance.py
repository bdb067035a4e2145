"""Many live changes in one boot: afterwards space, mounts, refs and memory are what they were before.

`make check` makes a few. With APT_OSTREE_TORTURE=1 there are 300, which takes half an hour.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.system import livehost
from tests.system.livehost import Host, same
from tests.system.sweep import COUNT, SEED, TORTURE

pytestmark = pytest.mark.extended

CHANGES = (COUNT or 300) if TORTURE else 12
KEPT = 3
PACKAGES = ("fx-service", "fx-sandboxed", "fx-conf", "fx-user", "fx-state")
OVERLAYS = ("one", "two")
#: Bytes, or a number, by which these may be more; what is not named must be the same.
GROWTH = {
    "bytes": 2_000_000,
    "database": 4_000_000,  # the history has up to 500 entries with their plans
    "inodes": 20,
    "memory of systemd": 6_000_000,
    "memory of dbus": 2_000_000,
}


def footprint(host: Host) -> dict[str, int]:
    numbers: dict[str, int] = json.loads(host.run_program("footprint.py").stdout)
    return numbers


class Changes:
    """A machine that is changed at random; each change is one that its present state allows."""

    def __init__(self, host: Host, dice: random.Random) -> None:
        self._host, self._dice = host, dice
        self._installed: set[str] = set()
        self._shown: set[str] = set()

    def one(self) -> str:
        """Make one change, restart what it may concern, and return its command."""
        words = self._dice.choice([self._install, self._uninstall, self._overlay, self._step_back])()
        if words:
            self._host.ao(*words)
            # As if there were time between: systemd takes many starts in a row for a service that crashes.
            self._host.sh("systemctl reset-failed; systemctl try-restart 'fx-*'; systemctl restart private")
        return " ".join(words)

    def _install(self) -> tuple[str, ...]:
        missing = sorted(set(PACKAGES) - self._installed)
        if not missing:
            return ()
        chosen = self._dice.sample(missing, self._dice.randint(1, min(2, len(missing))))
        self._installed.update(chosen)
        return ("install", "-A", "-y", "--allow-replacement", *chosen)

    def _uninstall(self) -> tuple[str, ...]:
        if not self._installed:
            return ()
        chosen = self._dice.choice(sorted(self._installed))
        self._installed.discard(chosen)
        return ("uninstall", "-A", "-y", chosen)

    def _overlay(self) -> tuple[str, ...]:
        name = self._dice.choice(OVERLAYS)
        if name in self._shown:
            self._shown.discard(name)
            return ("usroverlay", "--remove", f"--name={name}")
        self._shown.add(name)
        paths = ("--add=/etc/fx-conf/main.conf", f"--add=/usr/share/{name}")
        sources = ("--from=/etc/debian_version", "--from=/usr/lib/os-release")
        return ("usroverlay", "--create", f"--name={name}", *paths, *sources)

    def _step_back(self) -> tuple[str, ...]:
        """Drop the pending deployment, and go back to the booted system."""
        if not self._installed or self._shown or self._dice.random() < 0.7:
            return ()
        self._installed.clear()
        self._host.ao("cleanup", "-p")
        return ("apply-live", "--reset")

    def end(self) -> None:
        for name in sorted(self._shown):
            self._host.ao("usroverlay", "--remove", f"--name={name}")
        self._host.ao("usroverlay", "--cleanup")
        self._host.ao("apply-live", "--reset")
        self._host.sh("systemctl restart private")
        self._host.ao("cleanup", "-b", "-p")
        self._installed.clear()
        self._shown.clear()


def test_many_changes_leave_nothing(disk: Path):
    with livehost.booted(disk) as host:
        directory = "/etc/apt-ostree/apt-ostree.conf.d"
        settings = f"[Live]\nSettleSeconds=0.2\nKeepGenerations={KEPT}\n"
        host.sh(f"mkdir -p {directory}; printf '{settings}' >{directory}/endurance.conf")
        # A service with a mount namespace of its own, which shows the /usr that it was started with.
        host.sh("systemd-run --unit=private -p PrivateMounts=yes -p MountFlags=private sleep infinity")
        changes = Changes(host, random.Random(SEED))
        list(_made(changes, 4))
        changes.end()  # the first changes make files that stay
        shown, before = host.look(), footprint(host)
        for line in _made(changes, CHANGES):
            between = footprint(host)
            print(f"{line}: {json.dumps(between)}", flush=True)
            assert between["rows of generation"] <= KEPT
            assert between["layers"] <= 3 * (KEPT + 1)
        changes.end()
        after = footprint(host)
        print(f"before: {json.dumps(before)}\nafter: {json.dumps(after)}", flush=True)
        same(shown.system(), host.look().system())
        print(f"new in the state directory: {sorted({*host.look().state} - {*shown.state})}")
        _compare(before, after)
        host.check_clean()


def _made(changes: Changes, count: int) -> Iterator[str]:
    """Make so many changes; yield the command of each."""
    while count:
        if line := changes.one():
            count -= 1
            yield line


def _compare(before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """Fail with what has become more."""
    grown = {
        name: after[name] - before[name]
        for name in before
        if after[name] - before[name] > GROWTH.get(name, 0)
    }
    assert not grown
