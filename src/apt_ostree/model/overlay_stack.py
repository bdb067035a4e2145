"""A stack of overlays on a base: who wins where both changed a path, and what of each layer is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from apt_ostree.model.overlay import Definition, OnConflict, parents, shown
from apt_ostree.model.overlay_content import Node, Nodes, is_directory


@dataclass(frozen=True, slots=True)
class Piece:
    """An overlay's part of a stack, and what the base has of it; layer: where it is there already."""

    id: str
    commit: str
    nodes: Nodes
    base: Nodes = field(default_factory=dict)
    layer: str = ""


@dataclass(frozen=True, slots=True)
class Conflicts:
    """What becomes of the paths of an overlay that the base has changed since, too.

    kept: the overlay's version is shown; dropped: the base's is; disabled: the whole overlay is left out;
    notes: a sentence about each.
    """

    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    disabled: bool = False
    notes: tuple[str, ...] = ()


def is_plain(definition: Definition) -> bool:
    """Tell whether an overlay shows the same wherever and whenever it is shown on the same base."""
    return not (definition.inherits or definition.when or definition.conditions)


def resolve_conflicts(
    definition: Definition, nodes: Nodes, base: Nodes, against: Mapping[str, tuple[str, str]]
) -> Conflicts:
    """Decide, by the overlay's on_conflict, about each path that the base has changed, too.

    base: what the base has of the overlay's paths now; against: as in Definition, with what was inherited.
    A path that the base has in the overlay's version by now is no conflict.
    """
    paths = tuple(path for path in sorted(against.keys() & nodes.keys())
                  if _object(base, path) not in (against[path][0], nodes[path].checksum))  # fmt: skip
    if not paths:
        return Conflicts()
    if definition.on_conflict is OnConflict.DISABLE:
        note = f"overlay {definition.id} is left out: the base has another {shown(paths[0])} now"
        return Conflicts(disabled=True, notes=(note,))
    kept = definition.on_conflict is OnConflict.KEEP
    winner = "overlay" if kept else "base"
    notes = tuple(
        f"overlay {definition.id}: the base has another {shown(path)} now; the {winner}'s is shown"
        for path in paths
    )
    return Conflicts(kept=paths, notes=notes) if kept else Conflicts(dropped=paths, notes=notes)


def _object(nodes: Nodes, path: str) -> str:
    return nodes[path].checksum if path in nodes else ""


def with_base_metadata(nodes: Nodes, base: Nodes) -> dict[str, Node]:
    """Return the nodes of an overlay; directories that the base has, too, keep its metadata."""
    return {
        path: base[path] if is_directory(node) and is_directory(base.get(path)) else node
        for path, node in nodes.items()
    }


def etc_states(against: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Return path of /etc -> digest of the state that it was made against."""
    return {path: state for path, (_object, state) in against.items() if state}


def settle(pieces: Sequence[Piece]) -> list[Piece]:
    """Drop what leads to nothing from pieces, the topmost first: removals of nothing, and ways to it.

    Overlayfs would list a removal as a file where no directory is below it to remove from (overlayfs.rst: a
    directory that is not merged).
    """
    below: set[str] = set()  # what lower pieces have
    gone: set[str] = set()  # directories of the base that lower pieces remove whole
    result: list[Piece] = []
    for whole in reversed(pieces):
        piece = whole
        if not whole.layer:
            lost = {path for path in whole.nodes if _removes_nothing(path, whole, below, gone)}
            piece = replace(whole, nodes=_without_ways_to(lost, whole))
        present = {path for path, node in piece.nodes.items() if node.kind != "whiteout"}
        removed = piece.nodes.keys() - present
        ends = {path for path, node in piece.nodes.items() if not is_directory(node)}  # nothing lies below
        below = {p for p in below if p not in removed and not ends.intersection(parents(p))} | present
        gone -= present
        gone |= {p for p in removed if is_directory(piece.base.get(p))}
        if piece.nodes:
            result.append(piece)
    return result[::-1]


def _removes_nothing(path: str, piece: Piece, below: set[str], gone: set[str]) -> bool:
    if piece.nodes[path].kind != "whiteout":
        return False
    there = path in piece.base or path in below or path.startswith("etc/")
    return not there or not gone.isdisjoint(parents(path))


def _without_ways_to(lost: set[str], piece: Piece) -> dict[str, Node]:
    """Return a piece's nodes without `lost`, and without directories that lead to nothing else."""
    left = {path: node for path, node in piece.nodes.items() if path not in lost}
    led = {above for path in lost for above in parents(path)}
    ends = {p for p, n in left.items() if not is_directory(n) or (p not in piece.base and p not in led)}
    used = ends | {above for path in ends for above in parents(path)}
    return {path: node for path, node in left.items() if path in used}
