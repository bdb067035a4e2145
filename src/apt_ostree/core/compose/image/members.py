"""What a layer is going to hold, member by member, and what of it no import would take.

The rules are those of the import (model.image_screen): what is made here can be had again everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from apt_ostree.core.compose.image.reading import Tree
from apt_ostree.model import image_layers
from apt_ostree.model.filestate import FileState
from apt_ostree.model.image_layers import Layer
from apt_ostree.model.image_screen import Header, Kind, Screen, Unfit
from apt_ostree.system.ostree import contents
from apt_ostree.system.tarstream import Member

_KINDS: Mapping[str, Kind] = {"file": "file", "directory": "directory", "symlink": "symlink"}


def members(tree: Tree, added: Mapping[str, FileState], layer: Layer) -> Iterator[Member]:
    """Yield the members of a layer, in their order.

    What has the same content and metadata is one file in a deployment, and in a layer, too.

    added: path -> what the tree does not have.
    """
    seen = dict[str, str]()  # file object -> its path in this layer
    for path in image_layers.with_parents(layer.paths):
        if own := added.get(path):
            yield Member(path, own, len(own.content) if own.type == "file" else 0)
            continue
        entry = tree.entries[path]
        if entry.is_directory:
            yield Member(path, tree.repo.directory_state(entry.checksum))
            continue
        with contents.opened(tree.repo, entry.checksum) as file:
            link = seen.setdefault(entry.checksum, path) if file.size else path
            yield Member(path, file.state, file.size, "" if link == path else link)


def unfit(layers: Iterable[Iterable[Member]]) -> list[str]:
    """Return why an import would refuse members of layers; each text names a path."""
    found: list[str] = []
    for layer in layers:
        screen = Screen()
        for member in layer:
            try:
                screen.take(_header(member))
            except Unfit as error:
                found.append(str(error))
    return list(dict.fromkeys(found))  # a directory may be in several layers


def _header(member: Member) -> Header:
    """Return what an import reads of a member."""
    state = member.state
    kind = "hard link" if member.link else _KINDS.get(state.type, "other")
    target = state.content.decode("utf-8", "surrogateescape") if state.type == "symlink" else member.link
    size = member.size if kind == "file" else 0
    return Header(member.path, kind, size, state.mode, state.uid, state.gid, target, state.xattrs)
