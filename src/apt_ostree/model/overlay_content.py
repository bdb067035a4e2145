"""The content of an overlay: which paths it has below /usr, and the object that each is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Node:
    """A path of an overlay: "file" (links, too), "directory" or "whiteout", and the object that it is.

    checksum: of the file's object, or of the directory's metadata; empty for a whiteout.
    """

    kind: str
    checksum: str = ""


#: Path below /usr -> node; every directory above a node is a node, too.
Nodes = Mapping[str, Node]
GONE = Node("whiteout")


def is_directory(node: Node | None) -> bool:
    """Tell whether there is a node and it is a directory."""
    return node is not None and node.kind == "directory"
