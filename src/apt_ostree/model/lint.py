"""What a check of an image's content says. Pure values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """What it means that a rule is broken, in bootc's words.

    FATAL: machines could not deploy the image, or would not work as they should.
    WARNING: something that was probably not intended.
    """

    FATAL = "fatal"
    WARNING = "warning"


class State(StrEnum):
    """How a rule came out."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule about the content of an image. description: one sentence."""

    name: str
    severity: Severity
    description: str

    def to_json(self) -> dict[str, Any]:
        """Return the rule as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a rule came out. findings: what breaks it, a line for each path or fact."""

    rule: Rule
    state: State
    findings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as a JSON object."""
        return {**self.rule.to_json(), "state": self.state, "findings": list(self.findings)}


@dataclass(frozen=True, slots=True)
class Linted:
    """How all rules came out."""

    outcomes: Sequence[Outcome]

    def count(self, state: State, severity: Severity | None = None) -> int:
        """Return how many rules have this state, and the severity, if one is given."""
        return sum(one.state is state and severity in (None, one.rule.severity) for one in self.outcomes)

    def failed(self, *, fatal_warnings: bool) -> bool:
        """Return whether the check as a whole has failed. fatal_warnings: warnings count, too."""
        return self.count(State.FAILED, None if fatal_warnings else Severity.FATAL) > 0

    def to_json(self) -> dict[str, Any]:
        """Return the outcomes as a JSON object."""
        return {
            "rules": [one.to_json() for one in self.outcomes],
            "passed": self.count(State.PASSED),
            "skipped": self.count(State.SKIPPED),
            "warnings": self.count(State.FAILED, Severity.WARNING),
            "failed": self.count(State.FAILED, Severity.FATAL),
        }
