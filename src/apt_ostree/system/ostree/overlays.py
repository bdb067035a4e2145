"""Trees of overlays: read and written as commits, and laid over a base as a commit and as layers.

An overlay's commit holds its paths below `usr` in the format of a layer (system.ostree.layers) and its
templates below `templates`. Nodes are named by their paths below /usr; every directory above one is a node,
too.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from apt_ostree.model.filestate import FileState
from apt_ostree.model.overlay import parents
from apt_ostree.model.overlay_content import GONE, Node, Nodes
from apt_ostree.system import files, whiteouts
from apt_ostree.system.ostree import damage, diff
from apt_ostree.system.ostree.gi_ostree import Gio, GLib, OSTree, explained
from apt_ostree.system.ostree.layers import WHITEOUT, write_whiteout
from apt_ostree.system.ostree.repo import Repo, Tree, text

META_DEFINITION = "apt-ostree.overlay"
_ROOT = FileState("directory", 0o755)


def read(repo: Repo, commit: str, subpath: str = "usr") -> dict[str, Node]:
    """Return the nodes of an overlay's commit below a directory; of a layer, below "/"."""
    found = diff.directory_of(repo, commit, subpath)
    nodes: dict[str, Node] = {}
    if found:
        _read(repo, found[0], "", nodes)
    return nodes


def _read(repo: Repo, contents: str, prefix: str, nodes: dict[str, Node]) -> None:
    files, dirs = diff.read_tree(repo, contents)
    for name, checksum in files.items():
        if name.startswith(WHITEOUT):
            nodes[prefix + name.removeprefix(WHITEOUT)] = GONE
        else:
            nodes[prefix + name] = Node("file", checksum)
    for name, (below, metadata) in dirs.items():
        nodes[prefix + name] = Node("directory", metadata)
        _read(repo, below, f"{prefix}{name}/", nodes)


def definition_text(repo: Repo, commit: str) -> str:
    """Return the definition that an overlay's commit carries, or an empty text."""
    return str(repo.metadata(commit).get(META_DEFINITION, ""))


def write(
    repo: Repo, nodes: Nodes, templates: Nodes, *, parent: str | None, subject: str, definition: str
) -> str:
    """Write an overlay's commit."""
    with repo.transaction():
        tree = OSTree.MutableTree.new()
        tree.set_metadata_checksum(_put_directory(repo, _ROOT))
        for name, below in (("usr", nodes), ("templates", templates)):
            _ok, child = tree.ensure_dir(name)
            child.set_metadata_checksum(_put_directory(repo, _ROOT))
            _fill(child, below, write_whiteout(repo))
        with explained("write an overlay"):
            _ok, root = repo.handle.write_mtree(tree, None)
        metadata = {META_DEFINITION: text(definition)}
        return repo.write_commit(root, parent=parent, subject=subject, metadata=metadata)


def write_layer(repo: Repo, nodes: Nodes, root: str, *, subject: str) -> str:
    """Write the layer of an overlay; root: the metadata object of the base's /usr."""
    with repo.transaction():
        tree = OSTree.MutableTree.new()
        tree.set_metadata_checksum(root)
        _fill(tree, nodes, write_whiteout(repo))
        with explained("write the layer of an overlay"):
            _ok, written = repo.handle.write_mtree(tree, None)
        return repo.write_commit(written, parent=None, subject=subject, metadata={}, timestamp=0)


def renew_layer(scratch: Repo, directory: Path, objects: Mapping[int, str], *, subject: str) -> None:
    """Write what the checkout of an overlay's layer can say of it into a scratch repository.

    That is its commit, its directories, and the files of which no repository has the inode. objects: inode ->
    file object that it is, damaged or not.
    """
    with scratch.transaction():
        tree = OSTree.MutableTree.new()
        _renew(scratch, tree, directory, objects)
        with explained("write the layer of an overlay again"):
            _ok, written = scratch.handle.write_mtree(tree, None)
        scratch.write_commit(written, parent=None, subject=subject, metadata={}, timestamp=0)


def _renew(scratch: Repo, tree: Any, directory: Path, objects: Mapping[int, str]) -> None:
    tree.set_metadata_checksum(_put_directory(scratch, files.read_state(directory)))
    for path in directory.iterdir():
        info = path.lstat()
        if stat.S_ISDIR(info.st_mode):
            _ok, child = tree.ensure_dir(path.name)
            _renew(scratch, child, path, objects)
        elif whiteouts.is_whiteout(info):
            tree.replace_file(WHITEOUT + path.name, write_whiteout(scratch))
        else:
            known = objects.get(info.st_ino) or put(scratch, files.read_state(path)).checksum
            tree.replace_file(path.name, known)


def _fill(tree: Any, nodes: Nodes, whiteout: str) -> None:
    trees = {"": tree}
    for path in sorted(nodes, key=lambda p: p.count("/")):
        node = nodes[path]
        parent, _, name = path.rpartition("/")
        with explained(f"add {path} to an overlay"):
            if node.kind == "directory":
                _ok, trees[path] = trees[parent].ensure_dir(name)
                trees[path].set_metadata_checksum(node.checksum)
            elif node.kind == "file":
                trees[parent].replace_file(name, node.checksum)
            else:
                trees[parent].replace_file(WHITEOUT + name, whiteout)


def compose(repo: Repo, base: str, overlays: Sequence[Nodes], marks: Sequence[str]) -> str:
    """Return the commit that shows overlays, the lowest first, over a base; it carries the base's metadata.

    marks: what tells the overlays apart, for the commit's message. The same gives the same commit again.
    """
    rows = repo.load_commit(base).get_child_value(0)
    metadata = {row.get_child_value(0).get_string(): row.get_child_value(1).get_variant()
                for row in (rows.get_child_value(i) for i in range(rows.n_children()))}  # fmt: skip
    with repo.transaction():
        with explained(f"read the tree of commit {base[:12]}"):
            tree = OSTree.MutableTree.new_from_commit(repo.handle, base)
            _ok, usr = tree.ensure_dir("usr")
        for nodes in overlays:
            _lay(usr, nodes)
        with explained("write the tree with its overlays"):
            _ok, root = repo.handle.write_mtree(tree, None)
        subject = "\n".join(("overlays", *marks))
        return repo.write_commit(
            root, parent=None, subject=subject, metadata=metadata, timestamp=repo.timestamp(base)
        )


def _lay(usr: Any, nodes: Nodes) -> None:
    """Lay one overlay over a tree, as overlayfs shows it."""
    trees = {"": usr}
    for path in sorted(nodes, key=lambda p: p.count("/")):
        node = nodes[path]
        parent, _, name = path.rpartition("/")
        below = _lookup(trees[parent], name)
        with explained(f"lay {path} over the tree"):
            if node.kind == "directory":
                if below and below[1] is None:
                    trees[parent].remove(name, True)
                _ok, trees[path] = trees[parent].ensure_dir(name)
                trees[path].set_metadata_checksum(node.checksum)
            else:
                if node.kind == "whiteout" or (below and below[1] is not None):
                    trees[parent].remove(name, True)
                if node.kind == "file":
                    trees[parent].replace_file(name, node.checksum)


def _lookup(tree: Any, name: str) -> tuple[str, Any] | None:
    try:
        _ok, file, child = tree.lookup(name)
    except GLib.Error:
        return None  # libostree's way to say that there is none
    return file, child


def of_base(repo: Repo, base: str, paths: Iterable[str]) -> dict[str, Node]:
    """Return what a commit's /usr has of these paths, and of the directories above them."""
    root = diff.directory_of(repo, base, "usr")
    assert root is not None  # a system's tree has it
    trees: dict[str, Tree | None] = {"": diff.read_tree(repo, root[0])}
    found: dict[str, Node] = {}

    def tree(path: str) -> Tree | None:
        if path not in trees:
            parent, _, name = path.rpartition("/")
            above = tree(parent)
            below = above[1].get(name) if above else None
            trees[path] = diff.read_tree(repo, below[0]) if below else None
        return trees[path]

    wanted = tuple(paths)
    for path in {*wanted, *(above for name in wanted for above in parents(name))}:
        parent, _, name = path.rpartition("/")
        here = tree(parent)
        if here and name in here[0]:
            found[path] = Node("file", here[0][name])
        elif here and name in here[1]:
            found[path] = Node("directory", here[1][name][1])
    return found


def children(repo: Repo, base: str, path: str) -> list[str]:
    """Return the paths in a directory of a commit's /usr; none where there is no such directory."""
    found = diff.directory_of(repo, base, f"usr/{path}")
    return [f"{path}/{name}" for part in diff.read_tree(repo, found[0]) for name in part] if found else []


def root_metadata(repo: Repo, base: str) -> str:
    """Return the metadata object of a commit's /usr."""
    root = diff.directory_of(repo, base, "usr")
    assert root is not None
    return root[1]


def put(repo: Repo, state: FileState) -> Node:
    """Write a file, link or directory to the repository, inside a transaction; return its node."""
    if state.type == "directory":
        return Node("directory", _put_directory(repo, state))
    checksum = _put_file(repo, state)
    if repo.inode(checksum) and not damage.is_sound(repo, f"{checksum}.file"):
        # It was here before the transaction, and would be used again, whatever has become of it.
        damage.discard(repo, [f"{checksum}.file"])
        _put_file(repo, state)
    return Node("file", checksum)


def _put_file(repo: Repo, state: FileState) -> str:
    info = _info(state)
    content = b"" if state.type == "symlink" else state.content
    stream = Gio.MemoryInputStream.new_from_bytes(GLib.Bytes.new(content))
    with explained("write a file of an overlay"):
        _ok, raw, length = OSTree.raw_file_to_content_stream(stream, info, _xattrs(state), None)
        _ok, checksum = repo.handle.write_content(None, raw, length, None)
    return str(OSTree.checksum_from_bytes(checksum))


def _put_directory(repo: Repo, state: FileState) -> str:
    with explained("write a directory of an overlay"):
        variant = OSTree.create_directory_metadata(_info(state), _xattrs(state))
        _ok, checksum = repo.handle.write_metadata(OSTree.ObjectType.DIR_META, None, variant, None)
    return str(OSTree.checksum_from_bytes(checksum))


def _info(state: FileState) -> Any:
    kinds = {"file": (Gio.FileType.REGULAR, 0o100000), "directory": (Gio.FileType.DIRECTORY, 0o040000),
             "symlink": (Gio.FileType.SYMBOLIC_LINK, 0o120000)}  # fmt: skip
    kind, bits = kinds[state.type]
    info = Gio.FileInfo.new()
    info.set_file_type(kind)
    info.set_size(len(state.content) if state.type == "file" else 0)
    if state.type == "symlink":
        info.set_symlink_target(state.content.decode(errors="surrogateescape"))
    for key, value in (("uid", state.uid), ("gid", state.gid), ("mode", bits | state.mode)):
        info.set_attribute_uint32(f"unix::{key}", value)
    return info


def _xattrs(state: FileState) -> Any:
    rows = [(name.encode() + b"\0", value) for name, value in state.xattrs]
    return GLib.Variant("a(ayay)", rows) if rows else None
