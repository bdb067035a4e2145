"""Lays overlays over a base: which of their paths show, as which layers, and as which commit."""

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
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree import overlays as trees
from apt_ostree.system.ostree.repo import Repo


@dataclass(frozen=True, slots=True)
class Effective:
    """What an overlay shows on a base: its nodes, what the base has there, and what is to be told.

    expected: path of /etc -> digest of the state that it was made against.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    base: dict[str, Node] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    expected: dict[str, str] = field(default_factory=dict)


def goal(
    repo: Repo,
    base: str,
    overlays: Iterable[Overlay],
    *,
    known: Mapping[str, Overlay],
    shown_now: Goal | None = None,
    allowed: Sequence[str] = (),
) -> Goal:
    """Return what the system shows with these overlays on a base.

    known: all overlays, since one may inherit from another; shown_now: whose layers are used again where
    they are of the same overlay and base.
    """
    by_definition = {o.definition.id: o for o in overlays}
    ordered = [by_definition[d.id] for d in in_order(o.definition for o in by_definition.values())]
    # What one removes may belong to another below it, so that its layer depends on the others.
    alone = not any(overlay.definition.hides for overlay in known.values())
    again = _reusable(repo, shown_now) if alone and shown_now and shown_now.base == base else {}
    pieces: list[Piece] = []
    notes: list[str] = []
    expected: dict[str, str] = {}
    for overlay in ordered:
        same = again.get((overlay.id, overlay.state.commit))
        if same and is_plain(overlay.definition):
            pieces.append(same)
            expected = etc_states(overlay.definition.against) | expected  # the topmost's counts
            continue
        found = effective(repo, overlay, base, known)
        notes += found.notes
        expected = found.expected | expected
        if found.nodes:
            refuse_breaches(repo, overlay.definition, found, allowed)
            pieces.append(Piece(overlay.id, overlay.state.commit, found.nodes, found.base))
    pieces = settle(pieces)
    root = trees.root_metadata(repo, base)
    layers = (
        p.layer or trees.write_layer(repo, p.nodes, root, subject=_mark(p.id, p.commit)) for p in pieces
    )
    applied = tuple(Applied(p.id, p.commit, layer) for p, layer in zip(pieces, layers, strict=True))
    commit = _composed(repo, base, applied, [piece.nodes for piece in pieces]) if applied else base
    return Goal(base, commit, applied, expected, tuple(notes))


def goal_on(tx: Transaction, base: str) -> Goal:
    """Return what the system shows with the overlays that are enabled on a base.

    UsageError is raised for a commit that is not a system's tree.
    """
    repo = tx.sysroot.repo
    if diff.directory_of(repo, base, "usr") is None:
        raise UsageError(f"commit {base[:12]} is not a system's tree: it has no /usr")
    states = tx.records.overlays()
    if not any(state.enabled for state in states):
        return Goal(base, base)
    return goal_with(tx, base, overlay_store.load(repo, states))


def goal_with(tx: Transaction, base: str, overlays: Mapping[str, Overlay]) -> Goal:
    """Return what the system shows with those of these overlays that are enabled on a base."""
    enabled = [overlay for overlay in overlays.values() if overlay.state.enabled]
    allowed = tx.settings.overlay_allow
    return goal(tx.sysroot.repo, base, enabled, known=overlays, shown_now=tx.live.goal, allowed=allowed)


def notes_on(tx: Transaction, base: str) -> Iterator[str]:
    """Yield where enabled overlays get in the way of a base, or it in theirs."""
    states = tx.records.overlays()
    if not any(state.enabled for state in states):
        return
    overlays = overlay_store.load(tx.sysroot.repo, states)
    for overlay in overlays.values():
        if overlay.state.enabled:
            yield from effective(tx.sysroot.repo, overlay, base, overlays).notes


def _composed(repo: Repo, base: str, applied: Sequence[Applied], nodes: Sequence[Mapping[str, Node]]) -> str:
    """Return the commit of a base with overlays, the topmost first."""
    return trees.compose(repo, base, nodes[::-1], [_mark(a.id, a.commit) for a in applied])


def _mark(overlay: str, commit: str) -> str:
    return f"{overlay} {commit}"


def renew_layers(scratch: Repo, repo: Repo, shown: Goal, layers_dir: Path) -> None:
    """Write what the checkouts of the layers that are shown can say of them into a scratch repository."""
    objects = repo.objects_by_inode()
    for applied in shown.overlays:
        subject = _mark(applied.id, applied.commit)
        trees.renew_layer(scratch, layers_dir / applied.layer, objects, subject=subject)


def renew_commit(repo: Repo, shown: Goal) -> None:
    """Write the commit of what is shown again, as far as it is missing."""
    nodes = [trees.read(repo, applied.layer, "/") for applied in shown.overlays]
    _composed(repo, shown.base, shown.overlays, nodes)


def _reusable(repo: Repo, shown_now: Goal) -> dict[tuple[str, str], Piece]:
    """Return the pieces that are shown, by overlay and commit."""
    return {
        (a.id, a.commit): Piece(a.id, a.commit, trees.read(repo, a.layer, "/"), layer=a.layer)
        for a in shown_now.overlays
    }


def effective(repo: Repo, overlay: Overlay, base: str, known: Mapping[str, Overlay]) -> Effective:
    """Return what an overlay shows on a base: conditions met, templates rendered, conflicts decided."""
    definition = overlay.definition
    if not templates.holds(definition.when, definition.values, f"overlay {overlay.id}"):
        return Effective(notes=(f"overlay {overlay.id} is not shown: its condition is not met",))
    nodes, against = _gather(repo, overlay, known, definition.values, ())
    present = trees.of_base(repo, base, nodes)
    conflicts = resolve_conflicts(definition, nodes, present, against)
    if conflicts.disabled:
        return Effective(notes=conflicts.notes)
    left = {path: node for path, node in nodes.items() if path not in conflicts.dropped}
    left = with_base_metadata(left, present)
    return Effective(left, present, conflicts.notes, etc_states(against))


def _gather(
    repo: Repo,
    overlay: Overlay,
    known: Mapping[str, Overlay],
    values: Mapping[str, str],
    above: tuple[str, ...],
) -> tuple[dict[str, Node], dict[str, tuple[str, str]]]:
    """Return an overlay's nodes with those it inherits, and what they were made against."""
    definition = overlay.definition
    if overlay.id in above:
        raise Refused(f"overlays inherit in a circle: {' -> '.join((*above, overlay.id))}")
    nodes: dict[str, Node] = {}
    against: dict[str, tuple[str, str]] = {}
    for name in definition.inherits:
        parent = next((o for o in known.values() if name == o.definition.name), None)
        if parent is None:
            raise Refused(
                f"overlay {overlay.id} inherits from {name!r}, which is not there",
                hint=f"disable {overlay.id}, or have it inherit others (--inherit=NAME) or none (--inherit=)",
            )
        more = _gather(repo, parent, known, {**parent.definition.values, **values}, (*above, overlay.id))
        nodes |= more[0]
        against |= more[1]
    own = trees.read(repo, overlay.state.commit)
    own |= dict(_rendered(repo, overlay, {**definition.values, **values}))
    for path, condition in definition.conditions.items():
        if not templates.holds(condition, {**definition.values, **values}, shown(path)):
            own.pop(path, None)
    return nodes | own, against | dict(definition.against)


def _rendered(repo: Repo, overlay: Overlay, values: Mapping[str, str]) -> Iterator[tuple[str, Node]]:
    """Yield the files that an overlay's templates give."""
    found = trees.read(repo, overlay.state.commit, "templates")
    with repo.transaction() if found else nullcontext():
        for path, node in found.items():
            if node.kind == "directory":
                yield path, node
                continue
            state = repo.file_state(node.checksum)
            text = templates.render(state.content.decode(errors="surrogateescape"), values, shown(path))
            yield path, trees.put(repo, replace(state, content=text.encode(errors="surrogateescape")))


def refuse_breaches(repo: Repo, definition: Definition, found: Effective, allowed: Sequence[str]) -> None:
    """Refuse an overlay whose content breaks a rule."""
    breaches = overlay_rules.check(
        _items(repo, found), scope=definition.scope, allowed=(*allowed, *definition.allow)
    )
    if breaches:
        first = {breach.rule: breach for breach in reversed(breaches)}  # every rule is named
        told = [*first.values(), *(breach for breach in breaches if breach not in first.values())]
        raise Refused(
            f"overlay {definition.id} breaks {len(breaches)} rules of content and is not activated",
            details=[f"{b.path}: {b.message} ({b.rule})" for b in told[:20]],
            hint="change it, or allow a rule to be broken with --allow=RULE; some never may be",
        )


def _items(repo: Repo, found: Effective) -> Iterator[Item]:
    for path, node in found.nodes.items():
        below = found.base.get(path)
        under = repo.outline(below.checksum, is_dir=below.kind == "directory") if below else None
        kinds: dict[str, Any] = {}
        if under:
            kinds = {"base": under.type, "base_mode": under.mode}
            kinds |= {"base_uid": under.uid, "base_gid": under.gid}
        name = shown(path).lstrip("/")
        if node.kind == "whiteout":
            yield Item(name, "whiteout", **kinds)
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
            **kinds,
        )
