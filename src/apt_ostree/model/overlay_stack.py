"""A stack of overlays on a base: conflicts with the base, and the nodes that each layer needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from apt_ostree.model.overlay import Definition, OnConflict, parents, shown
from apt_ostree.model.overlay_content import Node, Nodes, is_directory


@dataclass(frozen=True, slots=True)
class Piece:
    """An overlay in a stack.

    commit: of the overlay.
    nodes: that it shows.
    base: nodes of the base at the same paths.
    layer: commit of its layer, if that exists already.
    """

    id: str
    commit: str
    nodes: Nodes
    base: Nodes = field(default_factory=dict)
    layer: str = ""


@dataclass(frozen=True, slots=True)
class Conflicts:
    """The paths of an overlay that the base has changed, too, since the overlay was made.

    kept: paths of which the overlay's version is shown.
    dropped: paths of which the base's version is shown.
    disabled: the overlay is left out.
    notes: a message about each path.
    """

    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    disabled: bool = False
    notes: tuple[str, ...] = ()


def is_plain(definition: Definition) -> bool:
    """Return whether an overlay has the same nodes on every machine with the same base."""
    return not (definition.inherits or definition.when or definition.conditions)


def resolve_conflicts(
    definition: Definition, nodes: Nodes, base: Nodes, against: Mapping[str, tuple[str, str]]
) -> Conflicts:
    """Return the conflicts of an overlay with its base, resolved by its on_conflict.

    A path of which the base has the overlay's version is no conflict.

    base: nodes of the base at the overlay's paths.
    against: as in Definition, with that of inherited overlays.
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
    """Return the nodes of an overlay, with the base's metadata for directories that the base has, too."""
    return {
        path: base[path] if is_directory(node) and is_directory(base.get(path)) else node
        for path, node in nodes.items()
    }


def etc_states(against: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Return path of /etc -> digest of the state that it was made against. against: as in Definition."""
    return {path: state for path, (_object, state) in against.items() if state}


def settle(pieces: Sequence[Piece]) -> list[Piece]:
    """Return pieces, the topmost first, without whiteouts that hide nothing and their parent directories.

    overlayfs would list such a whiteout as a file in a directory that is not merged (overlayfs.rst).
    """
    below: set[str] = set()  # paths of lower pieces
    above: set[str] = set()  # their directories, and perhaps others
    hidden: set[str] = set()  # directories of the base whose content lower pieces hide, even if made again
    result: list[Piece] = []
    for unsettled in reversed(pieces):
        piece = unsettled
        if not unsettled.layer:
            ineffective = {p for p in unsettled.nodes if _removes_nothing(p, unsettled, below, hidden)}
            piece = replace(unsettled, nodes=_without(ineffective, unsettled))
        present = {path for path, node in piece.nodes.items() if node.kind != "whiteout"}
        removed = piece.nodes.keys() - present
        ends = {path for path, node in piece.nodes.items() if not is_directory(node)}
        below -= removed
        if not ends.isdisjoint(above):
            below = {p for p in below if ends.isdisjoint(parents(p))}
        below |= present
        above.update(path for path in present if is_directory(piece.nodes[path]))
        hidden |= {p for p in ends if is_directory(piece.base.get(p))}
        if piece.nodes:
            result.append(piece)
    return result[::-1]


def _removes_nothing(path: str, piece: Piece, below: set[str], hidden: set[str]) -> bool:
    if piece.nodes[path].kind != "whiteout" or path in below:
        return False
    in_base = path in piece.base or path.startswith("etc/")
    return not in_base or not hidden.isdisjoint(parents(path))


def _without(ineffective: set[str], piece: Piece) -> dict[str, Node]:
    """Return a piece's nodes without `ineffective` ones and their otherwise unused parent directories."""
    left = {path: node for path, node in piece.nodes.items() if path not in ineffective}
    ancestors = {above for path in ineffective for above in parents(path)}
    ends = {p for p, n in left.items() if not is_directory(n) or (p not in piece.base and p not in ancestors)}
    used = ends | {above for path in ends for above in parents(path)}
    return {path: node for path, node in left.items() if path in used}
