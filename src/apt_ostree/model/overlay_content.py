"""The content of an overlay: its paths below /usr, each with its object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Node:
    """A path of an overlay.

    kind: "file" (also for symlinks), "directory" or "whiteout".
    checksum: of the file object, or of the directory's metadata object; empty for a whiteout.
    """

    kind: str
    checksum: str = ""


#: Path below /usr -> node; every parent directory of a node is a node, too.
Nodes = Mapping[str, Node]
WHITEOUT = Node("whiteout")


def is_directory(node: Node | None) -> bool:
    """Return whether a node exists and is a directory."""
    return node is not None and node.kind == "directory"
