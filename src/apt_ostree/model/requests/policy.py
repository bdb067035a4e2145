"""The request that is about the policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from apt_ostree.model.request import LONGEST_TITLE, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve(Request):
    """Agree to a plan. plan: its name."""

    verb: ClassVar[str] = "approve"
    plan: str

    @property
    def title(self) -> str:
        """Return the command as the history shows it."""
        return f"{self.verb} {self.plan}"[:LONGEST_TITLE]
