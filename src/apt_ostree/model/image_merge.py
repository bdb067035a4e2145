"""Lays the trees of an image's layers on one another, by the checksums of directories and files.

What a layer does not touch is not looked at: a directory that only one layer has stays one checksum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from apt_ostree.model.image_screen import Unfit

#: Files of a directory (name -> object), and its directories (name -> (contents, metadata)).
Listing = tuple[dict[str, str], dict[str, tuple[str, str]]]
#: Returns what is in a directory object.
Read = Callable[[str], Listing]


@dataclass(frozen=True, slots=True)
class LayerTree:
    """The tree of a layer.

    contents, metadata: of its root.
    implied: directories whose metadata the layer does not have; "." is the root.
    removed: paths that it takes away from the layers below.
    emptied: directories of which it shows nothing that is below.
    """

    contents: str
    metadata: str
    implied: frozenset[str] = frozenset()
    removed: tuple[str, ...] = ()
    emptied: tuple[str, ...] = ()


@dataclass(slots=True)
class Directory:
    """A directory of the merged tree.

    metadata: its metadata object.
    contents: its object, if it is as a layer has it; else "", and files and directories are what is in it.
    """

    metadata: str
    contents: str = ""
    files: dict[str, str] = field(default_factory=dict)
    directories: dict[str, Directory] = field(default_factory=dict)


class Merge:
    """The merged tree. root: has the tree of all layers so far."""

    def __init__(self, read: Read, metadata: str) -> None:
        """Begin with an empty tree. metadata: of a root that no layer has."""
        self.root = Directory(metadata)
        self._read = read

    def lay(self, layer: LayerTree) -> None:
        """Lay a layer on what is there.

        Raises Unfit for what is in a directory that the layer does not have, where a file or a link is below:
        others would follow the link.
        """
        for path in layer.emptied:
            if (found := self._find(path)) is not None:
                found.files.clear()
                found.directories.clear()
        for path in layer.removed:
            above, _, name = path.rpartition("/")
            if (found := self._find(above)) is not None:
                found.files.pop(name, None)
                found.directories.pop(name, None)
        self._lay(self.root, (layer.contents, layer.metadata), ".", layer.implied)

    def _lay(self, on: Directory, upper: tuple[str, str], path: str, implied: frozenset[str]) -> None:
        self._open(on)
        contents, metadata = upper
        if path not in implied:
            on.metadata = metadata
        files, directories = self._read(contents)
        for name, checksum in files.items():
            on.directories.pop(name, None)
            on.files[name] = checksum
        for name, below in directories.items():
            inner = name if path == "." else f"{path}/{name}"
            if on.files.pop(name, None) and inner in implied:
                raise Unfit(inner, "has something below it, and is no directory in the layers before")
            if name in on.directories:
                self._lay(on.directories[name], below, inner, implied)
            else:
                on.directories[name] = Directory(below[1], below[0])

    def _find(self, path: str) -> Directory | None:
        """Return a directory that is open for changes, as is all above it; None if there is none."""
        found: Directory | None = self.root
        for name in filter(None, path.split("/")):
            if found is not None:
                self._open(found)
                found = found.directories.get(name)
        if found is not None:
            self._open(found)
        return found

    def _open(self, directory: Directory) -> None:
        """Have what is in a directory at hand."""
        if directory.contents:
            files, directories = self._read(directory.contents)
            directory.contents, directory.files = "", dict(files)
            directory.directories = {
                name: Directory(meta, tree) for name, (tree, meta) in directories.items()
            }
