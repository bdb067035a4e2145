"""A generation: the numbered record of one live switch, and what it takes to undo it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.filestate import FileState
from apt_ostree.model.overlay import Applied


class Phase(StrEnum):
    """How far a generation has come. Everything but LIVE is unfinished business."""

    ACTING = "acting"
    LIVE = "live"
    UNDOING = "undoing"


@dataclass(frozen=True, slots=True)
class Generation:
    """One switch.

    deployment: the booted deployment it was made on; source, target: commits before and after, overlays
    included; base: the target without them; overlays: the topmost first; layers: commits of the view's
    layers, the topmost first; uppers: frozen writable layers of an unlocked system, the newest first;
    created: seconds since 1970; confirm_by: when it is undone unless it is
    confirmed, in seconds of the boot's clock (CLOCK_MONOTONIC), which is also systemd's for timers.
    """

    id: int
    boot_id: str
    deployment: str
    source: str
    target: str
    base: str
    overlays: tuple[Applied, ...]
    layers: tuple[str, ...]
    uppers: tuple[str, ...]
    phase: Phase
    created: float
    confirm_by: float | None = None


def target_generation(first: int, numbers: Iterable[int], asked: int | None) -> int:
    """Return the generation to go back to: as asked, or the one before the present.

    first: the one that the boot began with, or 0; numbers: those of this boot, in order. 0 is how the boot
    began: the booted tree, with the overlays that persist. Refused where there is nothing to go back from,
    UsageError where there is no such generation.
    """
    reachable = [first, *(number for number in numbers if number > first)]
    if len(reachable) == 1:
        raise Refused("nothing was changed live since boot", hint="see 'apt-ostree history'")
    target = reachable[-2] if asked is None else asked or first
    if target not in reachable:
        hint = f"there are {', '.join(map(str, reachable))}; 0 is how the boot began"
        raise UsageError(f"generation {target} is not live", hint=hint)
    return target


@dataclass(frozen=True, slots=True)
class EtcRecord:
    """One path of /etc that a generation changed. after is None until an outside program has changed it."""

    path: str
    before: FileState
    after: FileState | None


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """One unit that a generation acts on; begun: whether it came to that."""

    unit: str
    action: str
    begun: bool = False


@dataclass(frozen=True, slots=True)
class ViewRecord:
    """What a view is made of, for its record; see Generation."""

    base: str
    overlays: tuple[Applied, ...]
    layers: tuple[str, ...]
    uppers: tuple[str, ...]
