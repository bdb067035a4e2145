"""Test boots: what of one counts against the tree that was booted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: systemctl's words for a boot that has come to an end (systemctl(1), is-system-running).
ENDED = ("running", "degraded", "maintenance")


@dataclass(frozen=True, slots=True)
class Boot:
    """How a tree booted in a container.

    state: the state of the system manager, see ENDED; another one if time ran out.
    units: the units that failed or did not get ready, and how.
    checks: the required health checks that failed, and the last line of their output.
    """

    state: str
    units: Mapping[str, str] = field(default_factory=dict)
    checks: Mapping[str, str] = field(default_factory=dict)

    @property
    def problems(self) -> dict[str, str]:
        """What is wrong, by the name of a unit or a check."""
        late = {} if self.state in ENDED else {"the boot": f"it did not end in time ({self.state})"}
        return {**late, **self.units, **self.checks}


def troubled(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the units that failed, or end and are restarted, from systemctl's list of units as JSON."""
    return {
        str(row["unit"]): "it failed" if row["active"] == "failed" else "it ends and is restarted repeatedly"
        for row in rows
        if row["active"] == "failed" or row["sub"] == "auto-restart"
    }


def unready(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the units that are starting, from systemctl's list of units as JSON."""
    return {str(row["unit"]): "it is still starting" for row in rows if row["active"] == "activating"}


def regressions(target: Boot, present: Boot) -> dict[str, str]:
    """Return the problems of a tree that the present tree, booted in the same way, does not have."""
    return {name: text for name, text in target.problems.items() if name not in present.problems}
