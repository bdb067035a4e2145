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
