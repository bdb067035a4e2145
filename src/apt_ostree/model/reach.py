"""How far a request goes, which the policy and the audit ask of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a request goes (model.request.Request.reach).

    preview: it only shows what would be done, so that a decision is told and holds nothing up.
    applies: it changes the running system, or what the next boot starts.
    reboots: it ends with a reboot.
    override: why the policy is to be overridden, or empty.
    verb: its name.
    live: the options of its live change, if it makes one.
    layers: it layers packages, as `install` does.
    """

    preview: bool = False
    applies: bool = True
    reboots: bool = False
    override: str = ""
    verb: str = ""
    live: Mapping[str, Any] | None = None
    layers: bool = False
