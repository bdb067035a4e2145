"""Combines a base with overlays: which of their paths are shown, with which layers and which commit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from apt_ostree.core.state import overlay_store
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import overlay_rules
from apt_ostree.model.overlay import Applied, Definition, Goal, Overlay, in_order, shown
from apt_ostree.model.overlay_content import Node
from apt_ostree.model.overlay_rules import Item
from apt_ostree.model.overlay_stack import (
    Piece,
    etc_states,
    is_plain,
    resolve_conflicts,
    settle,
    with_base_metadata,
)
from apt_ostree.system import templates
from apt_ostree.system.ostree import diff, overlay_repo
from apt_ostree.system.ostree.repo import Repo


@dataclass(frozen=True, slots=True)
class Effective:
    """What an overlay shows on a base.

    nodes: its nodes, by path.
    base: the nodes of the base at these paths.
    notes: messages for the user.
    expected: the digest of the state that a path of /etc was made against, by path.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    base: dict[str, Node] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    expected: dict[str, str] = field(default_factory=dict)


def goal(
    repo: Repo,
    base: str,
    enabled: Iterable[Overlay],
    *,
    overlays: Mapping[str, Overlay],
    shown_now: Goal | None = None,
    allowed: Sequence[str] = (),
) -> Goal:
    """Return what the system shows with the enabled overlays on a base.

    enabled: the overlays to show.
    overlays: all overlays, because one may inherit from another.
    shown_now: what the system shows; layers of the same overlay and base are used again.
    allowed: rules that all overlays may break.

    Raises Refused for an overlay that breaks a rule or whose inheritance cannot be resolved, and UsageError
    for a template or a condition with an error.
    """
    ordered = _ordered(enabled)
    # An overlay may hide paths of the overlays below it. Then its layer depends on these.
    independent = not any(overlay.definition.hides for overlay in overlays.values())
    if not (independent and shown_now and shown_now.base == base):
        shown_now = None
    if shown_now and _shows(shown_now, ordered):
        return replace(shown_now, expected=_expected(ordered))
    reusable = _reusable(repo, shown_now) if shown_now else {}
    pieces: list[Piece] = []
    notes: list[str] = []
    expected: dict[str, str] = {}
    for overlay in ordered:
        piece = reusable.get((overlay.id, overlay.state.commit))
        if piece and is_plain(overlay.definition):
            pieces.append(piece)
            expected = etc_states(overlay.definition.against) | expected  # the topmost overlay has precedence
            continue
        effect = effective(repo, overlay, base, overlays)
        notes += effect.notes
        expected = effect.expected | expected
        if effect.nodes:
            refuse_breaches(repo, overlay.definition, effect, allowed)
            pieces.append(Piece(overlay.id, overlay.state.commit, effect.nodes, effect.base))
    pieces = settle(pieces)
    root = overlay_repo.root_metadata(repo, base)
    applied = tuple(Applied(p.id, p.commit, p.layer or _write_layer(repo, p, root)) for p in pieces)
    commit = _composed(repo, base, applied) if applied else base
    return Goal(base, commit, applied, expected, tuple(notes))


def _write_layer(repo: Repo, piece: Piece, root: str) -> str:
    return overlay_repo.write_layer(repo, piece.nodes, root, subject=_mark(piece.id, piece.commit))


def _ordered(enabled: Iterable[Overlay]) -> list[Overlay]:
    """Return overlays, the topmost first."""
    by_definition = {o.definition.id: o for o in enabled}
    return [by_definition[d.id] for d in in_order(o.definition for o in by_definition.values())]


def _shows(shown_now: Goal, ordered: Sequence[Overlay]) -> bool:
    """Return whether these overlays are shown, and are the same on every machine."""
    same = [(o.id, o.state.commit) for o in ordered] == [(a.id, a.commit) for a in shown_now.overlays]
    return same and all(is_plain(overlay.definition) for overlay in ordered)


def _expected(ordered: Sequence[Overlay]) -> dict[str, str]:
    """Return the states of /etc that plain overlays were made against; the topmost has precedence."""
    expected: dict[str, str] = {}
    for overlay in ordered:
        expected = etc_states(overlay.definition.against) | expected
    return expected


def goal_on(tx: Transaction, base: str) -> Goal:
    """Return what the system shows with all enabled overlays on a base.

    Raises UsageError for a commit without /usr, and what `goal` raises.
    """
    repo = tx.sysroot.repo
    if diff.directory_of(repo, base, "usr") is None:
        raise UsageError(f"commit {base[:12]} is not a system's tree: it has no /usr")
    states = tx.records.overlays()
    if not any(state.enabled for state in states):
        return Goal(base, base)
    return goal_with(tx, base, overlay_store.load(repo, states))


def goal_with(tx: Transaction, base: str, overlays: Mapping[str, Overlay]) -> Goal:
    """Return what the system shows with the enabled ones of these overlays on a base.

    Raises what `goal` raises.
    """
    enabled = [overlay for overlay in overlays.values() if overlay.state.enabled]
    allowed = tx.settings.overlay_allow
    return goal(tx.sysroot.repo, base, enabled, overlays=overlays, shown_now=tx.live.goal, allowed=allowed)


def notes_on(tx: Transaction, base: str) -> Iterator[str]:
    """Yield a message for each conflict of an enabled overlay with a base.

    Raises what `effective` raises.
    """
    states = tx.records.overlays()
    if not any(state.enabled for state in states):
        return
    overlays = overlay_store.load(tx.sysroot.repo, states)
    for overlay in overlays.values():
        if overlay.state.enabled:
            yield from effective(tx.sysroot.repo, overlay, base, overlays).notes


def _composed(repo: Repo, base: str, applied: Sequence[Applied]) -> str:
    """Write and return the commit of a base with overlays, the topmost first."""
    layers = [a.layer for a in reversed(applied)]
    return overlay_repo.compose(repo, base, layers, [_mark(a.id, a.commit) for a in applied])


def _mark(overlay: str, commit: str) -> str:
    return f"{overlay} {commit}"


def renew_layers(scratch: Repo, repo: Repo, shown: Goal, layers_dir: Path) -> None:
    """Write the shown layers again, from their checkouts, to a scratch repository."""
    objects = repo.objects_by_inode()
    for applied in shown.overlays:
        subject = _mark(applied.id, applied.commit)
        overlay_repo.renew_layer(scratch, layers_dir / applied.layer, objects, subject=subject)


def renew_commit(repo: Repo, shown: Goal) -> None:
    """Write the missing objects of the shown commit again."""
    _composed(repo, shown.base, shown.overlays)


def _reusable(repo: Repo, shown_now: Goal) -> dict[tuple[str, str], Piece]:
    """Return the pieces of the shown overlays, by overlay and commit."""
    return {
        (a.id, a.commit): Piece(a.id, a.commit, overlay_repo.read(repo, a.layer, "/"), layer=a.layer)
        for a in shown_now.overlays
    }


def effective(repo: Repo, overlay: Overlay, base: str, overlays: Mapping[str, Overlay]) -> Effective:
    """Return what an overlay shows on a base, after conditions, templates and conflicts.

    Raises Refused if its inheritance cannot be resolved, and UsageError for a template or a condition with an
    error.
    """
    definition = overlay.definition
    if not templates.holds(definition.when, definition.values, f"overlay {overlay.id}"):
        return Effective(notes=(f"overlay {overlay.id} is not shown: its condition is not met",))
    nodes, against = _gather(repo, overlay, overlays, definition.values, ())
    present = overlay_repo.of_base(repo, base, nodes)
    conflicts = resolve_conflicts(definition, nodes, present, against)
    if conflicts.disabled:
        return Effective(notes=conflicts.notes)
    remaining = {path: node for path, node in nodes.items() if path not in conflicts.dropped}
    remaining = with_base_metadata(remaining, present)
    return Effective(remaining, present, conflicts.notes, etc_states(against))


def _gather(
    repo: Repo,
    overlay: Overlay,
    overlays: Mapping[str, Overlay],
    values: Mapping[str, str],
    inheriting: tuple[str, ...],
) -> tuple[dict[str, Node], dict[str, tuple[str, str]]]:
    """Return the nodes of an overlay and of those it inherits from, and what they were made against.

    inheriting: the ids of the overlays that inherit from this one.
    """
    definition = overlay.definition
    if overlay.id in inheriting:
        raise Refused(f"overlays inherit in a circle: {' -> '.join((*inheriting, overlay.id))}")
    nodes: dict[str, Node] = {}
    against: dict[str, tuple[str, str]] = {}
    for name in definition.inherits:
        parent = next((o for o in overlays.values() if name == o.definition.name), None)
        if parent is None:
            raise Refused(
                f"overlay {overlay.id} inherits from {name!r}, which does not exist",
                hint=f"disable {overlay.id}, or have it inherit others (--inherit=NAME) or none (--inherit=)",
            )
        parent_values = {**parent.definition.values, **values}
        inherited = _gather(repo, parent, overlays, parent_values, (*inheriting, overlay.id))
        nodes |= inherited[0]
        against |= inherited[1]
    own = overlay_repo.read(repo, overlay.state.commit)
    own |= dict(_rendered(repo, overlay, {**definition.values, **values}))
    for path, condition in definition.conditions.items():
        if not templates.holds(condition, {**definition.values, **values}, shown(path)):
            own.pop(path, None)
    return nodes | own, against | dict(definition.against)


def _rendered(repo: Repo, overlay: Overlay, values: Mapping[str, str]) -> Iterator[tuple[str, Node]]:
    """Yield the files that are rendered from an overlay's templates."""
    nodes = overlay_repo.read(repo, overlay.state.commit, "templates")
    with repo.transaction() if nodes else nullcontext():
        for path, node in nodes.items():
            if node.kind == "directory":
                yield path, node
                continue
            state = repo.file_state(node.checksum)
            text = templates.render(state.content.decode(errors="surrogateescape"), values, shown(path))
            yield path, overlay_repo.put(repo, replace(state, content=text.encode(errors="surrogateescape")))


def refuse_breaches(repo: Repo, definition: Definition, effect: Effective, allowed: Sequence[str]) -> None:
    """Raise Refused if the content of an overlay breaks a rule."""
    breaches = overlay_rules.check(
        _items(repo, effect), scope=definition.scope, allowed=(*allowed, *definition.allow)
    )
    if breaches:
        first = {breach.rule: breach for breach in reversed(breaches)}  # every rule is listed
        ordered = [*first.values(), *(breach for breach in breaches if breach not in first.values())]
        raise Refused(
            f"overlay {definition.id} breaks {len(breaches)} rules of content and is not activated",
            details=[f"{b.path}: {b.message} ({b.rule})" for b in ordered[:20]],
            hint="change it, or allow a rule to be broken with --allow=RULE, which some rules do not permit",
        )


def _items(repo: Repo, effect: Effective) -> Iterator[Item]:
    for path, node in effect.nodes.items():
        base_node = effect.base.get(path)
        base = repo.outline(base_node.checksum, is_dir=base_node.kind == "directory") if base_node else None
        base_fields: dict[str, Any] = {}
        if base:
            base_fields = {"base": base.type, "base_mode": base.mode}
            base_fields |= {"base_uid": base.uid, "base_gid": base.gid}
        name = shown(path).lstrip("/")
        if node.kind == "whiteout":
            yield Item(name, "whiteout", **base_fields)
            continue
        state = repo.outline(node.checksum, is_dir=node.kind == "directory")
        yield Item(
            name,
            state.type,
            state.mode,
            state.uid,
            state.gid,
            state.size,
            state.target,
            state.xattrs,
            **base_fields,
        )
