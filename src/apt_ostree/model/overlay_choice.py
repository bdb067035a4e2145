"""Selects an overlay by name, and computes its new definition and state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from apt_ostree.errors import UsageError
from apt_ostree.model.overlay import (
    Definition,
    Goal,
    Overlay,
    Persistence,
    Scope,
    State,
    Transition,
    checked_name,
)


def find(overlays: Mapping[str, Overlay], name: str) -> Overlay:
    """Return the overlay of an id, or of a unique name; UsageError if there is none."""
    matches = [o for o in overlays.values() if name in (o.id, o.definition.name)]
    if len(matches) == 1:
        return matches[0]
    names = ", ".join(sorted(overlays)) or "none"
    if matches:
        raise UsageError(f"several overlays are called {name!r}", hint=f"name one of them: {names}")
    raise UsageError(f"there is no overlay {name!r}", hint=f"there are: {names}")


def choose(overlays: Mapping[str, Overlay], name: str | None, last: str | None) -> Overlay:
    """Return the overlay of a name, else the one edited last, else the only one; UsageError if none."""
    if name:
        return find(overlays, name)
    if last and last in overlays:
        return overlays[last]
    if len(overlays) == 1:
        return next(iter(overlays.values()))
    raise UsageError("which overlay is meant?", hint="name it with --name, or make one with --create")


def transition(overlay: Overlay | None, state: State | None) -> Transition:
    """Return the transition of an overlay to a state; None is no overlay."""
    name = state.id if state else overlay.id if overlay else ""
    return Transition(name, overlay.state if overlay else None, state)


def transitions_to(
    overlays: Mapping[str, Overlay], overlay: Overlay | None, state: State
) -> list[Transition]:
    """Return the transitions of an overlay to a state, which may have another name."""
    if overlay and state == overlay.state:
        return [Transition(state.id, state, state)]
    if overlay and overlay.id != state.id:
        return [Transition(overlay.id, overlay.state, None), Transition(state.id, None, state)]
    return [transition(overlays.get(state.id), state)]


def after(states: Mapping[str, State], moves: Iterable[Transition]) -> dict[str, State]:
    """Return id -> state of the overlays after transitions."""
    result = dict(states)
    for move in moves:
        result.pop(move.id, None)
        if move.after:
            result[move.id] = move.after
    return result


def free_name(overlays: Mapping[str, Overlay]) -> str:
    """Return a name that no overlay has."""
    taken = {overlay.definition.name for overlay in overlays.values()}
    names = ("overlay", *(f"overlay-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def defined(
    overlays: Mapping[str, Overlay],
    overlay: Overlay | None,
    name: str | None,
    rename: str | None,
    changes: Mapping[str, Any],
) -> Definition:
    """Return the new definition of an overlay; UsageError for contradictory values.

    overlay: None for a new one.
    changes: field of `Definition` -> value; an empty string in a list clears the list.
    """
    fields = dict(changes)
    for key in ("persists", "inherits", "allow"):
        if key in fields:
            fields[key] = tuple(filter(None, fields[key]))
    if overlay is None:
        definition = Definition(checked_name(name or free_name(overlays)))
    else:
        definition = overlay.definition
        fields["values"] = {**definition.values, **fields.get("values", {})}
    definition = replace(definition, **fields)
    if rename:
        definition = replace(definition, name=checked_name(rename))
    if definition.scope is Scope.GLOBAL and overlay is None:
        raise UsageError("overlays of scope global are part of the image", hint="see docs/overlays.md")
    if definition.id in overlays and (overlay is None or definition.id != overlay.id):
        raise UsageError(f"there is an overlay {definition.id} already")
    if definition.persistence is Persistence.HYBRID and not definition.persists:
        raise UsageError(
            "a hybrid overlay needs patterns of the paths that persist",
            hint="add --persist=PATTERN, such as --persist='/etc/*'",
        )
    if (definition.scope is Scope.USER) != bool(definition.user):
        raise UsageError("an overlay of scope user, and no other, is for a named user (--user=NAME)")
    return definition


def is_shown(goal: Goal, moves: Sequence[Transition]) -> bool:
    """Return whether the goal shows one of the overlays that transitions are about."""
    shown = {applied.id for applied in goal.overlays}
    return any(move.id in shown for move in moves)
