"""A system in a directory, for tests of core, and how much Hypothesis tries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from apt_ostree.system import failpoints
from tests.unit import repos
from tests.unit import vendor as vendors
from tests.unit.repos import System

# The unit tests take less than 30 seconds together. Limits of time would fail on a machine that is busy, and
# those of size by bad luck where there are few examples.
settings.register_profile(
    "unit",
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def passed_failpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the passings of failpoints anew: an entry fires once a process."""
    monkeypatch.setattr(failpoints, "_passed", {})


@pytest.fixture(scope="session")
def template() -> Iterator[tuple[Path, dict[str, str]]]:
    """Make the system that each test gets a copy of."""
    with repos.memory_directory() as place:
        yield place, repos.make_template(place)


@pytest.fixture
def system(template: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """A system that runs its only deployment, `system.one`; the commit `system.two` is in its repository."""
    with repos.running_system(*template, monkeypatch) as running:
        yield running


@pytest.fixture
def vendor(system: System, tmp_path: Path) -> vendors.Vendor:
    """A remote whose branch the system follows."""
    return vendors.followed_by(system, tmp_path / "vendor")
