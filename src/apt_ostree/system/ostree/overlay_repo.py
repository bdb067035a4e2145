"""Overlays in the repository: their commits, the layers made of them, and a base combined with them.

An overlay's commit holds its paths below `usr` in the format of a layer (system.ostree.layers) and its
templates below `templates`. The key of a node is its path below /usr; every parent directory of a node is
a node, too.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apt_ostree.model import layout
from apt_ostree.model.filestate import FileState
from apt_ostree.model.overlay import parents
from apt_ostree.model.overlay_content import WHITEOUT, Node, Nodes
from apt_ostree.system import files, whiteouts
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.gi_ostree import GLib, OSTree, explained
from apt_ostree.system.ostree.layers import WHITEOUT_PREFIX, write_whiteout
from apt_ostree.system.ostree.metadata import numbers
from apt_ostree.system.ostree.objects import write as write_object
from apt_ostree.system.ostree.repo import DirTree, Repo, text

META_DEFINITION = "apt-ostree.overlay"
_META_EXTENT = "apt-ostree.extent"  # (tt): number of files, and bytes of the different ones
_ROOT = FileState("directory", 0o755)


def read(repo: Repo, commit: str, subpath: str = "usr") -> dict[str, Node]:
    """Return the nodes of an overlay's commit below `subpath`; for a layer, `subpath` is "/"."""
    directory = diff.directory_of(repo, commit, subpath)
    nodes: dict[str, Node] = {}
    if directory:
        _read(repo, directory[0], "", nodes)
    return nodes


def _read(repo: Repo, contents: str, prefix: str, nodes: dict[str, Node]) -> None:
    files, dirs = diff.read_dirtree(repo, contents)
    for name, checksum in files.items():
        if name.startswith(WHITEOUT_PREFIX):
            nodes[prefix + name.removeprefix(WHITEOUT_PREFIX)] = WHITEOUT
        else:
            nodes[prefix + name] = Node("file", checksum)
    for name, (below, metadata) in dirs.items():
        nodes[prefix + name] = Node("directory", metadata)
        _read(repo, below, f"{prefix}{name}/", nodes)


def has_templates(repo: Repo, commit: str) -> bool:
    """Return whether an overlay's commit has templates."""
    return bool(read(repo, commit, "templates"))


def definition_text(repo: Repo, commit: str) -> str:
    """Return the text of the definition in an overlay's commit, or an empty string."""
    return str(repo.metadata(commit).get(META_DEFINITION, ""))


def extent(repo: Repo, commit: str) -> tuple[int, int]:
    """Return the number of files of an overlay's commit, and the bytes of the different ones.

    Raises ExternalFailure if the commit is damaged, or an object of one that does not say it itself.
    """
    noted = repo.metadata(commit).get(_META_EXTENT)
    if noted is not None:
        return int(noted[0]), int(noted[1])
    return _extent(repo, [read(repo, commit, part) for part in ("usr", "templates")])


def _extent(repo: Repo, parts: Iterable[Nodes]) -> tuple[int, int]:
    nodes = [node for part in parts for node in part.values() if node.kind != "directory"]
    checksums = {node.checksum for node in nodes if node.kind == "file"}
    return len(nodes), sum(map(repo.size, checksums))


def write(
    repo: Repo, nodes: Nodes, templates: Nodes, *, parent: str | None, subject: str, definition: str
) -> str:
    """Write an overlay's commit; return its checksum."""
    with repo.transaction():
        mtree = OSTree.MutableTree.new()
        mtree.set_metadata_checksum(write_object(repo, _ROOT))
        for name, below in (("usr", nodes), ("templates", templates)):
            _ok, child = mtree.ensure_dir(name)
            child.set_metadata_checksum(write_object(repo, _ROOT))
            _fill(child, below, write_whiteout(repo))
        with explained("write an overlay"):
            _ok, root = repo.handle.write_mtree(mtree, None)
        extent = numbers(_extent(repo, (nodes, templates)))
        metadata = {META_DEFINITION: text(definition), _META_EXTENT: extent}
        return repo.write_commit(root, parent=parent, subject=subject, metadata=metadata)


def write_layer(repo: Repo, nodes: Nodes, root: str, *, subject: str) -> str:
    """Write the layer of an overlay; return its commit. root: the metadata object of the base's /usr."""
    with repo.transaction():
        mtree = OSTree.MutableTree.new()
        mtree.set_metadata_checksum(root)
        _fill(mtree, nodes, write_whiteout(repo))
        with explained("write the layer of an overlay"):
            _ok, written = repo.handle.write_mtree(mtree, None)
        return repo.write_commit(written, parent=None, subject=subject, metadata={}, timestamp=0)


def renew_layer(scratch: Repo, directory: Path, objects: Mapping[int, str], *, subject: str) -> None:
    """Write the objects of a layer that can be restored from its checkout into a scratch repository.

    These are its commit, its directories, and the files whose inodes are not in `objects`.

    objects: inode -> checksum of the file object, damaged or not.
    """
    with scratch.transaction():
        mtree = OSTree.MutableTree.new()
        _renew(scratch, mtree, directory, objects)
        with explained("write the layer of an overlay again"):
            _ok, written = scratch.handle.write_mtree(mtree, None)
        scratch.write_commit(written, parent=None, subject=subject, metadata={}, timestamp=0)


def _renew(scratch: Repo, mtree: Any, directory: Path, objects: Mapping[int, str]) -> None:
    mtree.set_metadata_checksum(write_object(scratch, files.read_state(directory)))
    for path in directory.iterdir():
        info = path.lstat()
        if stat.S_ISDIR(info.st_mode):
            _ok, child = mtree.ensure_dir(path.name)
            _renew(scratch, child, path, objects)
        elif whiteouts.is_whiteout(info):
            mtree.replace_file(WHITEOUT_PREFIX + path.name, write_whiteout(scratch))
        else:
            checksum = objects.get(info.st_ino) or put(scratch, files.read_state(path)).checksum
            mtree.replace_file(path.name, checksum)


def _fill(mtree: Any, nodes: Nodes, whiteout: str) -> None:
    mtrees = {"": mtree}
    for path in sorted(nodes, key=lambda p: p.count("/")):
        node = nodes[path]
        parent, _, name = path.rpartition("/")
        with explained(f"add {path} to an overlay"):
            if node.kind == "directory":
                _ok, mtrees[path] = mtrees[parent].ensure_dir(name)
                mtrees[path].set_metadata_checksum(node.checksum)
            elif node.kind == "file":
                mtrees[parent].replace_file(name, node.checksum)
            else:
                mtrees[parent].replace_file(WHITEOUT_PREFIX + name, whiteout)


def compose(repo: Repo, base: str, layers: Sequence[str], marks: Sequence[str]) -> str:
    """Write the commit of a base combined with layers; return its checksum.

    It has the base's metadata and time, so that the same arguments yield the same commit.

    layers: their commits, the lowest first.
    marks: lines that identify the overlays, for the commit's message.
    """
    rows = repo.load_commit(base).get_child_value(0)
    metadata = {row.get_child_value(0).get_string(): row.get_child_value(1).get_variant()
                for row in (rows.get_child_value(i) for i in range(rows.n_children()))}  # fmt: skip
    metadata[layout.META_OVERLAID] = GLib.Variant("b", True)
    with repo.transaction():
        with explained(f"read the tree of commit {base[:12]}"):
            mtree = OSTree.MutableTree.new_from_commit(repo.handle, base)
            _ok, usr = mtree.ensure_dir("usr")
        _merge(repo, usr, [repo.tree_checksums(layer) for layer in layers], "usr")
        with explained("write the tree with its overlays"):
            _ok, root = repo.handle.write_mtree(mtree, None)
        subject = "\n".join(("overlays", *marks))
        return repo.write_commit(
            root, parent=None, subject=subject, metadata=metadata, timestamp=repo.timestamp(base)
        )


def _merge(repo: Repo, mtree: Any, directories: Sequence[tuple[str, str]], path: str) -> None:
    """Merge directories of layers, the lowest first, into one of a base, as overlayfs would show them."""
    entries = _Entries.of(repo, directories)
    with explained(f"apply {path} of an overlay to the tree"):
        mtree.set_metadata_checksum(directories[-1][1])
        for name in entries.covering:
            mtree.remove(name, True)
        for name, checksum in entries.files.items():
            if _has_directory(mtree, name):
                mtree.remove(name, True)
            mtree.replace_file(name, checksum)
    for name, merged in entries.dirs.items():
        _put_directory(repo, mtree, merged, f"{path}/{name}")


def _put_directory(repo: Repo, mtree: Any, directories: Sequence[tuple[str, str]], path: str) -> None:
    """Merge directories of layers into the one of the same name in `mtree`, or add it."""
    name = path.rpartition("/")[2]
    with explained(f"apply {path} of an overlay to the tree"):
        is_merged = _has_directory(mtree, name)
        if not is_merged:
            mtree.remove(name, True)  # a file
        _ok, child = mtree.ensure_dir(name)
        # Most overlays bring directories of their own. libostree takes these as they are, unread.
        if not is_merged and len(directories) == 1 and not _has_whiteouts(repo, directories[0][0]):
            child.fill_empty_from_dirtree(repo.handle, *directories[0])
            return
    _merge(repo, child, directories, path)


@dataclass(frozen=True, slots=True)
class _Entries:
    """What directories of the same path in several layers show together.

    files: name -> file object.
    dirs: name -> the directories (contents, metadata) that are merged, the lowest first.
    covering: the names of which nothing of the base is shown: whiteouts, and directories above a file or
        a whiteout.
    """

    files: dict[str, str] = field(default_factory=dict)
    dirs: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    covering: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, repo: Repo, directories: Sequence[tuple[str, str]]) -> _Entries:
        entries = cls()
        for contents, _metadata in directories:
            files, dirs = diff.read_dirtree(repo, contents)
            for name, checksum in files.items():
                entries._cover(name, checksum)
            for name, directory in dirs.items():
                if entries.files.pop(name, None):
                    entries.covering.add(name)
                entries.dirs.setdefault(name, []).append(directory)
        return entries

    def _cover(self, name: str, checksum: str) -> None:
        shown = name.removeprefix(WHITEOUT_PREFIX)
        self.dirs.pop(shown, None)
        self.files.pop(shown, None)
        if name == shown:
            self.files[name] = checksum
        else:
            self.covering.add(shown)


def _has_whiteouts(repo: Repo, contents: str) -> bool:
    files, dirs = diff.read_dirtree(repo, contents)
    return any(name.startswith(WHITEOUT_PREFIX) for name in files) or any(
        _has_whiteouts(repo, below) for below, _metadata in dirs.values()
    )


def _has_directory(mtree: Any, name: str) -> bool:
    try:
        _ok, _file, child = mtree.lookup(name)
    except GLib.Error:
        return False  # no entry of that name
    return child is not None


def of_base(repo: Repo, base: str, paths: Iterable[str]) -> dict[str, Node]:
    """Return the nodes that a commit's /usr has at these paths and at their parent directories."""
    root = diff.directory_of(repo, base, "usr")
    assert root is not None  # every tree has it
    dirtrees: dict[str, DirTree | None] = {"": diff.read_dirtree(repo, root[0])}
    nodes: dict[str, Node] = {}

    def dirtree(path: str) -> DirTree | None:
        if path not in dirtrees:
            parent, _, name = path.rpartition("/")
            above = dirtree(parent)
            below = above[1].get(name) if above else None
            dirtrees[path] = diff.read_dirtree(repo, below[0]) if below else None
        return dirtrees[path]

    names = tuple(paths)
    for path in {*names, *(above for name in names for above in parents(name))}:
        parent, _, name = path.rpartition("/")
        here = dirtree(parent)
        if here and name in here[0]:
            nodes[path] = Node("file", here[0][name])
        elif here and name in here[1]:
            nodes[path] = Node("directory", here[1][name][1])
    return nodes


def children(repo: Repo, base: str, path: str) -> list[str]:
    """Return the paths in a directory of a commit's /usr, relative to /usr; none if it does not exist."""
    directory = diff.directory_of(repo, base, f"usr/{path}")
    if directory is None:
        return []
    return [f"{path}/{name}" for entries in diff.read_dirtree(repo, directory[0]) for name in entries]


def root_metadata(repo: Repo, base: str) -> str:
    """Return the checksum of the metadata object of a commit's /usr."""
    root = diff.directory_of(repo, base, "usr")
    assert root is not None
    return root[1]


def put(repo: Repo, state: FileState) -> Node:
    """Write a file, link or directory to the repository, inside a transaction; return its node."""
    return Node("directory" if state.type == "directory" else "file", write_object(repo, state))
