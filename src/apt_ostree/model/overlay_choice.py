"""Which overlay is meant, and what it is to become: choices among those of a machine."""

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
    """Return the overlay of a name, with its scope or, where that is clear, without."""
    found = [o for o in overlays.values() if name in (o.id, o.definition.name)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(sorted(overlays)) or "none"
    if found:
        raise UsageError(f"several overlays are called {name!r}", hint=f"say which: {known}")
    raise UsageError(f"there is no overlay {name!r}", hint=f"there are: {known}")


def choose(overlays: Mapping[str, Overlay], name: str | None, last: str | None) -> Overlay:
    """Return the overlay of a name, else the one last worked on, else the only one."""
    if name:
        return find(overlays, name)
    if last and last in overlays:
        return overlays[last]
    if len(overlays) == 1:
        return next(iter(overlays.values()))
    raise UsageError("which overlay is meant?", hint="name it with --name, or make one with --create")


def transition(overlay: Overlay | None, state: State | None) -> Transition:
    """Return what makes an overlay what `state` says."""
    name = state.id if state else overlay.id if overlay else ""
    return Transition(name, overlay.state if overlay else None, state)


def transitions_to(known: Mapping[str, Overlay], overlay: Overlay | None, state: State) -> list[Transition]:
    """Return what makes of an overlay what `state` says, under another name, too."""
    if overlay and state == overlay.state:
        return [Transition(state.id, state, state)]
    if overlay and overlay.id != state.id:
        return [Transition(overlay.id, overlay.state, None), Transition(state.id, None, state)]
    return [transition(known.get(state.id), state)]


def after(states: Mapping[str, State], moves: Iterable[Transition]) -> dict[str, State]:
    """Return the overlays that there are when they have become what the moves say."""
    result = dict(states)
    for move in moves:
        result.pop(move.id, None)
        if move.after:
            result[move.id] = move.after
    return result


def free_name(known: Mapping[str, Overlay]) -> str:
    """Return a name that no overlay has."""
    taken = {overlay.definition.name for overlay in known.values()}
    names = ("overlay", *(f"overlay-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def defined(
    known: Mapping[str, Overlay],
    overlay: Overlay | None,
    name: str | None,
    rename: str | None,
    changes: Mapping[str, Any],
) -> Definition:
    """Return the definition that an overlay, or a new one, is to have.

    changes: values of fields of `Definition`; of lists, an empty one takes all away. UsageError says what
    does not go together.
    """
    given = dict(changes)
    for key in ("persists", "inherits", "allow"):
        if key in given:
            given[key] = tuple(filter(None, given[key]))  # an empty one takes all away
    if overlay is None:
        definition = Definition(checked_name(name or free_name(known)))
    else:
        definition = overlay.definition
        given["values"] = {**definition.values, **given.get("values", {})}
    definition = replace(definition, **given)
    if rename:
        definition = replace(definition, name=checked_name(rename))
    if definition.scope is Scope.GLOBAL and overlay is None:
        raise UsageError("overlays of scope global ship with the image", hint="see docs/overlays.md")
    if definition.id in known and (overlay is None or definition.id != overlay.id):
        raise UsageError(f"there is an overlay {definition.id} already")
    if definition.persistence is Persistence.HYBRID and not definition.persists:
        raise UsageError(
            "a hybrid overlay needs to know which of its paths persist",
            hint="say it with --persist=PATTERN, such as --persist='/etc/*'",
        )
    if (definition.scope is Scope.USER) != bool(definition.user):
        raise UsageError("an overlay of scope user, and no other, is for a named user (--user=NAME)")
    return definition


def is_shown(goal: Goal, moves: Sequence[Transition]) -> bool:
    """Tell whether the system shows, before or after, what an overlay has."""
    shown = {applied.id for applied in goal.overlays}
    return any(move.id in shown for move in moves)
