"""Which overlays a cleanup removes: of those that nothing needs, what a limit condemns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from apt_ostree.model.overlay import Definition, State


@dataclass(frozen=True, slots=True)
class Idle:
    """An overlay that nothing needs: changed: when it was last, in seconds since 1970; size: in bytes."""

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


def condemned(
    idle: Iterable[Idle],
    *,
    now: float,
    older_than: float | None = None,
    keep: int | None = None,
    larger_than: int | None = None,
) -> tuple[str, ...]:
    """Return the ids of the overlays that go, the newest first.

    now: seconds since 1970; older_than: seconds since the last change; keep: how many may stay, the newest;
    larger_than: bytes that all that stay may have. Without a limit all stay.
    """
    going: list[str] = []
    room = larger_than
    for index, overlay in enumerate(sorted(idle, key=lambda one: one.changed, reverse=True)):
        too_old = older_than is not None and now - overlay.changed > older_than
        too_many = keep is not None and index >= keep
        if too_old or too_many or (room is not None and overlay.size > room):
            going.append(overlay.id)
        elif room is not None:
            room -= overlay.size
    return tuple(going)
