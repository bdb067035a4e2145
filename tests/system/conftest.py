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


@pytest.fixture
def new_vm(new_machine: Callable[..., Machine]) -> Callable[..., Host]:
    """Boot virtual machines, each from a disk that a container prepared: there, a command takes no time."""

    def boot(prepare: Callable[[Host], None], wanted: Wanted | None = None) -> Host:
        machine = new_machine(wanted)
        machine.boot()
        host = Host(machine)
        prepare(host)
        machine.stop()
        machine.boot(vm=True)
        return host

    return boot


@pytest.fixture(scope="module")
def disk() -> Path:
    """The disk that the module's machines begin with: it has the package lists, with the fixture packages.

    A module whose machines need more overrides this, with livehost.disk_after().
    """
    return livehost.prepared_disk()


@pytest.fixture(scope="module")
def shared(disk: Path) -> Iterator[livehost.Shared]:
    """A machine for all tests of a module, each of which has to leave it as it was."""
    with livehost.Shared(disk) as machine:
        yield machine


@pytest.fixture
def host(shared: livehost.Shared) -> Iterator[Host]:
    """The module's machine; after the test a reset must give back exactly what it showed at first.

    A module whose tests leave something overrides this with a fixture that takes it, and tidies up.
    """
    yield from shared.lend()


@pytest.fixture
def own(disk: Path) -> Iterator[Host]:
    """A machine of the test's own, with that disk."""
    with livehost.booted(disk) as machine:
        yield machine
        if machine.machine.is_running():
            machine.check_clean()


@pytest.fixture
def overlays(host: Host) -> Iterator[Overlays]:
    """The overlays of the module's machine; after the test there are none."""
    found = Overlays(host)
    yield found
    found.clear()
