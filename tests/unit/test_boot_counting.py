"""Boot counting by the menu of a composed disk: on real deployments, the menu played by the tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apt_ostree.core import deployments
from apt_ostree.core.boot import moments
from apt_ostree.core.deploy import Target, deploy
from apt_ostree.core.status import status
from apt_ostree.model import grubenv
from apt_ostree.model.deployment import Deployments
from apt_ostree.model.origin import Origin
from apt_ostree.model.queries import Status
from apt_ostree.model.requests.deployments import Rollback
from apt_ostree.model.requests.live import Moment, Recover
from apt_ostree.model.requests.options import DeployOptions
from apt_ostree.system import boot_counter, motd, verdicts
from tests.unit import repos
from tests.unit.repos import System

COMPLETE = "boot-complete.target"
ATTEMPTS = 2


class Menu:
    """The boot menu: what it reads and writes, and what it tells the kernel."""

    def __init__(self, system: System, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.system, self.monkeypatch = system, monkeypatch
        self.block = system.place / "boot/grub/grubenv"
        self.block.parent.mkdir(parents=True)
        self.write({grubenv.ATTEMPTS: str(ATTEMPTS), "saved_entry": "x"})
        self.command_line = directory / "cmdline"
        self.command_line.write_text("rw quiet\n")
        monkeypatch.setattr(boot_counter, "_COMMAND_LINE", self.command_line)
        monkeypatch.setattr(motd, "_DIRECTORY", directory / "motd.d")
        self.finalized: frozenset[str] = frozenset()
        read = repos.Machine.deployments
        monkeypatch.setattr(repos.Machine, "deployments", lambda machine: self._as_after_boot(read(machine)))

    def _as_after_boot(self, found: Deployments) -> Deployments:
        """Return the deployments; what was there at the boot is not staged any more."""
        rows = (replace(d, staged=d.staged and d.id not in self.finalized) for d in found.all)
        return Deployments(tuple(rows))

    def write(self, variables: dict[str, str]) -> None:
        self.block.write_text(grubenv.format_block(variables))

    @property
    def counter(self) -> int | None:
        variables = grubenv.parse(self.block.read_text())
        assert variables["saved_entry"] == "x"  # others' variables stay
        return int(variables[grubenv.COUNTER]) if grubenv.COUNTER in variables else None

    def boot(self) -> str:
        """Boot as the menu does; return the commit."""
        left, note, chosen = self.counter, "", self.system.order()[0]
        if left == 0:
            note, chosen = f" {grubenv.ARGUMENT}={grubenv.GAVE_UP}", self.system.order()[1]
        elif left:
            note = f" {grubenv.ARGUMENT}={grubenv.COUNTED}"
            self.write(grubenv.parse(self.block.read_text()) | {grubenv.COUNTER: str(left - 1)})
        self.start(chosen, note)
        return chosen

    def start(self, chosen: str, note: str = "") -> None:
        """Start a commit; what was staged is finalized."""
        self.command_line.write_text(f"rw quiet{note}\n")
        self.system.booted = chosen
        with self.system.open() as machine:
            self.finalized = frozenset(d.id for d in machine.deployments().all)
        self.system.reboot(self.monkeypatch)
        self.system.events.clear()


@pytest.fixture
def menu(system: System, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Menu:
    return Menu(system, monkeypatch, tmp_path)


def deploy_second(system: System) -> None:
    def verb(tx, _request):
        with tx.changing("deploy"):
            return deploy(tx, Target(Origin("two"), system.two), DeployOptions())

    assert system.run(verb, Rollback()).changed


def judge(system: System) -> Any:
    return system.run(moments.recover, Recover(at=Moment.VERDICT))


def test_a_good_boot_ends_the_counting(system: System, menu: Menu):
    assert menu.counter is None
    deploy_second(system)
    assert menu.counter == ATTEMPTS
    assert menu.boot() == system.two
    assert menu.counter == ATTEMPTS - 1
    judge(system)  # before the boot is complete
    assert menu.counter == ATTEMPTS - 1
    system.programs.add_unit(COMPLETE)
    judge(system)
    assert menu.counter is None
    assert menu.boot() == system.two
    assert not judge(system).changed


def test_a_deployment_that_never_gets_there_gives_way_to_the_one_before(system: System, menu: Menu):
    deploy_second(system)
    for _ in range(ATTEMPTS):
        assert menu.boot() == system.two  # and nothing of ours is started
    assert menu.boot() == system.one
    system.programs.add_unit(COMPLETE)

    assert judge(system).changed

    assert system.order() == [system.one, system.two]
    assert menu.counter is None
    assert [mark.reason for mark in verdicts.read().marks] == ["the boot loader gave it up after 2 attempts"]
    shown = status(Status()).deployments
    assert [len(one.failed) for one in shown] == [0, 1]
    assert shown[0].back and shown[0].back.reason == "the boot loader gave it up after 2 attempts"
    assert any("booted again" in text for text in system.told("warning"))
    assert menu.boot() == system.one
    assert not judge(system).changed
    assert system.order() == [system.one, system.two]


@pytest.mark.parametrize(
    "name", ["counting.remembered", "deployments.before-write", "deployments.after-write"]
)
def test_a_power_cut_on_the_way_back_leads_back_again(system: System, menu: Menu, monkeypatch, name: str):
    class PowerCut(BaseException):
        pass

    deploy_second(system)
    for _ in range(ATTEMPTS):
        menu.boot()
    assert menu.boot() == system.one
    with monkeypatch.context() as patch:
        repos.fail_at(patch, name, PowerCut())
        with pytest.raises(PowerCut):
            judge(system)

    booted = next(n for n in range(ATTEMPTS + 1) if menu.boot() == system.one)
    assert booted in (0, ATTEMPTS)  # at most, the other one has had its attempts again
    system.programs.add_unit(COMPLETE)
    judge(system)
    assert system.order() == [system.one, system.two]
    assert menu.boot() == system.one
    judge(system)
    assert menu.counter is None


def test_a_rollback_is_not_counted(system: System, menu: Menu):
    deploy_second(system)
    menu.boot()
    system.programs.add_unit(COMPLETE)
    judge(system)
    system.run(deployments.boot_previous, Rollback())
    assert system.order() == [system.one, system.two]
    assert menu.counter is None


def test_another_order_before_the_verdict_stops_the_counting(system: System, menu: Menu):
    """Else the menu would take the second entry, which was the first when it began to count."""
    deploy_second(system)
    for _ in range(ATTEMPTS):
        menu.boot()
    assert menu.counter == 0
    system.run(deployments.boot_previous, Rollback())
    assert (menu.counter, system.order()) == (None, [system.one, system.two])
    assert menu.boot() == system.one


OTHERS = "# GRUB Environment Block\n" + "#" * 999


@pytest.mark.parametrize("block", [None, "", OTHERS, {grubenv.ATTEMPTS: "0"}])
def test_where_nothing_is_counted_nothing_is_written(system: System, menu: Menu, block):
    if block is None:
        menu.block.unlink()
    elif isinstance(block, dict):
        menu.write(block)
    else:
        menu.block.write_text(block)
    before = menu.block.read_text() if menu.block.exists() else None
    deploy_second(system)
    menu.start(system.two)
    assert system.run(deployments.boot_previous, Rollback()).changed
    assert (menu.block.read_text() if menu.block.exists() else None) == before
