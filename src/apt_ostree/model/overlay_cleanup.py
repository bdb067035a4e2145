"""Selects the overlays that a cleanup removes: unneeded ones beyond a limit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from apt_ostree.model.overlay import Definition, State


@dataclass(frozen=True, slots=True)
class Idle:
    """An unneeded overlay.

    changed: time of the last change, in seconds since 1970.
    size: in bytes.
    """

    id: str
    changed: float
    size: int = 0


def unneeded(overlays: Iterable[tuple[Definition, State]]) -> tuple[str, ...]:
    """Return the ids of overlays that are not enabled and that no other inherits from."""
    rows = tuple(overlays)
    inherited = {name for definition, _state in rows for name in definition.inherits}
    return tuple(
        state.id for definition, state in rows if not (state.enabled or definition.name in inherited)
    )


def over_limits(
    idle: Iterable[Idle],
    *,
    now: float,
    older_than: float | None = None,
    keep: int | None = None,
    larger_than: int | None = None,
) -> tuple[str, ...]:
    """Return the ids of the overlays to remove, the newest first; none without a limit.

    now: seconds since 1970.
    older_than: maximum time since the last change, in seconds.
    keep: maximum number of overlays; the newest are kept.
    larger_than: maximum total size, in bytes.
    """
    removed: list[str] = []
    room = larger_than
    for index, overlay in enumerate(sorted(idle, key=lambda one: one.changed, reverse=True)):
        too_old = older_than is not None and now - overlay.changed > older_than
        too_many = keep is not None and index >= keep
        if too_old or too_many or (room is not None and overlay.size > room):
            removed.append(overlay.id)
        elif room is not None:
            room -= overlay.size
    return tuple(removed)
