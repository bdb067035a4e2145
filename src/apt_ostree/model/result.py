"""What a verb did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a request.

    changed: whether anything was (or, of a dry run, would be) changed; live: the running system shows it;
    next_boot: it takes effect with the next boot; details: further keys of the JSON object.
    """

    changed: bool
    live: bool | None = None
    next_boot: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object; `live` is there for verbs on the running system alone."""
        live = {} if self.live is None else {"live": self.live}
        return {**self.details, "changed": self.changed, **live}
