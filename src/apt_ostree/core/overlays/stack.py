"""Lays overlays over a base: which of their paths show, as which layers, and as which commit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from apt_ostree.core.overlays.store import Overlay
from apt_ostree.errors import Refused
from apt_ostree.model import overlay_rules
from apt_ostree.model.overlay import Applied, Definition, Goal, OnConflict, in_order, parents, shown
from apt_ostree.model.overlay_rules import Item
from apt_ostree.system import templates
from apt_ostree.system.ostree import overlays as trees
from apt_ostree.system.ostree.overlays import Node
from apt_ostree.system.ostree.repo import Repo


@dataclass(frozen=True, slots=True)
class Effective:
    """What an overlay shows on a base: its nodes, what the base has there, and what is to be told."""

    nodes: dict[str, Node] = field(default_factory=dict)
    base: dict[str, Node] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


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
    again = _reusable(repo, base, shown_now) if shown_now and shown_now.base == base else {}
    pieces: list[_Piece] = []
    notes: list[str] = []
    for overlay in ordered:
        same = again.get((overlay.id, overlay.state.commit))
        if same and _is_plain(overlay.definition):
            pieces.append(same)
            continue
        found = effective(repo, overlay, base, known)
        notes += found.notes
        if found.nodes:
            refuse_breaches(repo, overlay.definition, found, allowed)
            pieces.append(_Piece(overlay.id, overlay.state.commit, found.nodes))
    pieces = _without_lost_removals(pieces, base=trees.of_base(repo, base, _removed(pieces)))
    root = trees.root_metadata(repo, base)
    layers = (p.layer or trees.write_layer(repo, p.nodes, root, subject=f"{p.id} {p.commit}") for p in pieces)
    applied = tuple(Applied(p.id, p.commit, layer) for p, layer in zip(pieces, layers, strict=True))
    commit = base
    if applied:
        marks = [f"{a.id} {a.commit}" for a in applied]
        commit = trees.compose(repo, base, [piece.nodes for piece in reversed(pieces)], marks)
    expected: dict[str, str] = {}
    for overlay in reversed(ordered):
        expected |= {path: state for path, (_object, state) in overlay.definition.against.items() if state}
    return Goal(base, commit, applied, expected, tuple(notes))


@dataclass(frozen=True, slots=True)
class _Piece:
    """An overlay's part of a stack; layer: where it is there already."""

    id: str
    commit: str
    nodes: Mapping[str, Node]
    layer: str = ""


def _reusable(repo: Repo, base: str, shown_now: Goal) -> dict[tuple[str, str], _Piece]:
    """Return the pieces that are shown, by overlay and commit; none where one depends on those below it."""
    pieces = [_Piece(a.id, a.commit, trees.read(repo, a.layer, "/"), a.layer) for a in shown_now.overlays]
    below = trees.of_base(repo, base, _removed(pieces))
    if any(below[path].kind == "directory" for path in _removed(pieces) if path in below):
        return {}
    return {(piece.id, piece.commit): piece for piece in pieces}


def _removed(pieces: Iterable[_Piece]) -> set[str]:
    return {path for piece in pieces for path, node in piece.nodes.items() if node.kind == "whiteout"}


def _without_lost_removals(pieces: Sequence[_Piece], *, base: Mapping[str, Node]) -> list[_Piece]:
    """Drop what pieces, the topmost first, remove from a directory that one below them removes whole.

    Overlayfs would list it as a file: nothing is below that directory any more to remove it from.
    """
    gone: set[str] = set()
    result: list[_Piece] = []
    for piece in reversed(pieces):
        lost = {
            path
            for path, node in piece.nodes.items()
            if node.kind == "whiteout" and gone.intersection(parents(path))
        }
        if lost:
            left = {path: node for path, node in piece.nodes.items() if path not in lost}
            result.append(replace(piece, nodes=_without_empty(left, base), layer=""))
        else:
            result.append(piece)
        gone -= {path for path, node in result[-1].nodes.items() if node.kind == "directory"}
        removed = _removed(result[-1:])
        gone |= {path for path in removed if path in base and base[path].kind == "directory"}
    return list(reversed(result))


def _is_plain(definition: Definition) -> bool:
    """Tell whether an overlay shows the same wherever and whenever it is shown on the same base."""
    return not (definition.inherits or definition.when or definition.conditions)


def effective(repo: Repo, overlay: Overlay, base: str, known: Mapping[str, Overlay]) -> Effective:
    """Return what an overlay shows on a base: conditions met, templates rendered, conflicts decided."""
    definition = overlay.definition
    if not templates.holds(definition.when, definition.values, f"overlay {overlay.id}"):
        return Effective(notes=(f"overlay {overlay.id} is not shown: its condition is not met",))
    nodes, against = _gather(repo, overlay, known, definition.values, ())
    present = trees.of_base(repo, base, nodes)
    notes: list[str] = []
    if base != definition.made_on:
        for path in sorted(against.keys() & nodes.keys()):
            was, now = against[path][0], present[path].checksum if path in present else ""
            if now in (was, nodes[path].checksum):
                continue
            if definition.on_conflict is OnConflict.DISABLE:
                note = f"overlay {overlay.id} is left out: the base has another {shown(path)} now"
                return Effective(notes=(*notes, note))
            kept = definition.on_conflict is OnConflict.KEEP
            notes.append(
                f"overlay {overlay.id}: the base has another {shown(path)} now;"
                f" the {'overlay' if kept else 'base'}'s is shown"
            )
            if not kept:
                del nodes[path]
    # Directories keep the metadata of the base.
    nodes |= {p: present[p] for p, n in nodes.items() if _is_directory(n) and _is_directory(present.get(p))}
    return Effective(_without_empty(nodes, present), present, tuple(notes))


def _is_directory(node: Node | None) -> bool:
    return node is not None and node.kind == "directory"


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
            raise Refused(f"overlay {overlay.id} inherits from {name!r}, which is not there")
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


def _without_empty(nodes: dict[str, Node], base: Mapping[str, Node]) -> dict[str, Node]:
    """Drop what leads to nothing: directories, and removals in directories that the base does not have.

    Overlayfs lists such a removal as a file (a whiteout in a directory that is not merged).
    """
    nodes = {
        path: node
        for path, node in nodes.items()
        if node.kind != "whiteout" or "/" not in path or path.rpartition("/")[0] in base
    }
    used = {above for path, node in nodes.items() if node.kind != "directory" for above in parents(path)}
    fresh = {p for p, n in nodes.items() if n.kind == "directory" and p not in base}
    used |= {above for path in fresh for above in (*parents(path), path)}
    return {path: node for path, node in nodes.items() if node.kind != "directory" or path in used}


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
