"""Machines for system tests: real boots of the test bed (docs/testbed.md)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TESTBED = Path(__file__).resolve().parents[2] / "tools/testbed"
sys.path.insert(0, str(TESTBED.parent))

from testbed_lib.images import Wanted, image  # noqa: E402
from testbed_lib.machine import Machine, throw_away_name  # noqa: E402

from tests.system import livehost  # noqa: E402
from tests.system.livehost import Host  # noqa: E402
from tests.system.overlayhost import Overlays  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def _needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("booting machines needs root")


@pytest.fixture
def new_machine() -> Iterator[Callable[..., Machine]]:
    """Make machines that have a fresh disk and are not booted yet; all are removed after the test."""
    made: list[Machine] = []

    def make(wanted: Wanted | None = None) -> Machine:
        machine = Machine(throw_away_name())
        made.append(machine)
        machine.create_disk(image(wanted or Wanted()))
        return machine

    yield make
    for machine in made:
        machine.remove()


@pytest.fixture
def machine(new_machine: Callable[..., Machine]) -> Machine:
    """A freshly booted machine of the test's own."""
    made = new_machine()
    made.boot()
    return made


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    """The disk of a machine that has its package lists, and the fixture packages in them."""
    with livehost.prepared_disk() as path:
        yield path


@pytest.fixture(scope="module")
def shared(disk: Path) -> Iterator[livehost.Shared]:
    """A machine for all tests of a module, each of which has to leave it as it was."""
    with livehost.Shared(disk) as machine:
        yield machine


@pytest.fixture
def own(disk: Path) -> Iterator[Host]:
    """A machine of the test's own, with that disk."""
    with livehost.booted(disk) as machine:
        yield machine
        if machine.machine.is_running():
            machine.check_clean()


@pytest.fixture
def overlays(host: Host) -> Overlays:
    """The overlays of the module's machine."""
    return Overlays(host)
