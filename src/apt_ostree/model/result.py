"""The result of a verb."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a request.

    changed: whether the system was changed (or would be, for a dry run).
    live: whether the running system shows the change; None for verbs that never change it.
    next_boot: whether the change takes effect with the next boot.
    details: further keys of the JSON object.
    """

    changed: bool
    live: bool | None = None
    next_boot: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object, without `live` if that is None."""
        live = {} if self.live is None else {"live": self.live}
        return {**self.details, "changed": self.changed, **live}
