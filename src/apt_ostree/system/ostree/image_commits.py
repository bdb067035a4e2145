"""Images in the repository: their layers as commits, the trees of these merged, and the commit to deploy.

A layer is a commit of its own with a ref of its name, so that the next image with it need not have it
written again. What it takes away from the layers below, and which directories it has only because something
is in them, is in its metadata.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apt_ostree.model import layout
from apt_ostree.model.filestate import FileState
from apt_ostree.model.image_merge import Directory, LayerTree
from apt_ostree.model.image_screen import ROOT, Kept
from apt_ostree.model.oci_image import OwnCommit
from apt_ostree.system.ostree import image_refs, objects
from apt_ostree.system.ostree.gi_ostree import GLib, OSTree, explained
from apt_ostree.system.ostree.repo import Repo, text

_IMPLIED, _REMOVED, _EMPTIED = "apt-ostree.implied", "apt-ostree.removed", "apt-ostree.emptied"
_PLAIN = FileState("directory", 0o755)
_COMMIT_TYPE, _METADATA_TYPE = "(a{sv}aya(say)sstayay)", "a{sv}"
_SMALL = 1 << 20
_SIGNATURES, _SIGNATURES_TYPE = "ostree.gpgsigs", "aay"  # of libostree, beside a commit
_MOST_SIGNATURES = 32


# --- layers


def known(repo: Repo, diff_id: str) -> LayerTree | None:
    """Return the tree of a layer that is here; None if it is not."""
    commit = repo.local_ref(image_refs.of_layer(diff_id))
    if commit is None or not repo.has_commit(commit):
        return None
    metadata = repo.metadata(commit)
    lists = (tuple(metadata.get(key, ())) for key in (_IMPLIED, _REMOVED, _EMPTIED))
    implied, removed, emptied = lists
    return LayerTree(*repo.tree_checksums(commit), frozenset(implied), removed, emptied)


class LayerWriter:
    """Writes one layer, inside a transaction."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._directories = {ROOT: OSTree.MutableTree.new()}
        self._plain = objects.write(repo, _PLAIN)
        self._directories[ROOT].set_metadata_checksum(self._plain)
        self._files: dict[str, str] = {}

    def add(self, kept: Kept, size: int, chunks: Iterator[bytes]) -> None:
        """Write a member. size, chunks: of the content of a file."""
        if kept.state.type == "directory":
            self._directory(kept.path).set_metadata_checksum(objects.write(self._repo, kept.state))
            return
        checksum = self._files[kept.link] if kept.link else self._write(kept, size, chunks)
        self._files[kept.path] = checksum
        above, _, name = kept.path.rpartition("/")
        with explained(f"write /{kept.path}"):
            self._directory(above or ROOT).replace_file(name, checksum)

    def commit(
        self, diff_id: str, implied: Collection[str], removed: Collection[str], emptied: Collection[str]
    ) -> LayerTree:
        """Write the commit and the ref of the layer; return its tree. For the lists see LayerTree."""
        with explained(f"write the layer {diff_id[7:19]}"):
            _ok, root = self._repo.handle.write_mtree(self._directories[ROOT], None)
        lists = {_IMPLIED: sorted(implied), _REMOVED: sorted(removed), _EMPTIED: sorted(emptied)}
        metadata = {key: GLib.Variant("as", names) for key, names in lists.items()}
        commit = self._repo.write_commit(root, parent=None, subject="", metadata=metadata, timestamp=0)
        self._repo.handle.transaction_set_ref(None, image_refs.of_layer(diff_id), commit)
        return LayerTree(
            *_checksums(root), frozenset(implied), tuple(lists[_REMOVED]), tuple(lists[_EMPTIED])
        )

    def _directory(self, path: str) -> OSTree.MutableTree:
        """Return a directory, which is made with those above it if it is not there yet."""
        if path not in self._directories:
            above, _, name = path.rpartition("/")
            with explained(f"write /{path}"):
                _ok, made = self._directory(above or ROOT).ensure_dir(name)
            made.set_metadata_checksum(self._plain)
            self._directories[path] = made
        return self._directories[path]

    def _write(self, kept: Kept, size: int, chunks: Iterator[bytes]) -> str:
        state, handle = kept.state, self._repo.handle
        owner, xattrs = (state.uid, state.gid), objects.xattrs_of(state)
        with explained(f"write /{kept.path}"):
            if state.type == "symlink":
                return str(handle.write_symlink(None, *owner, xattrs, state.content.decode(), None))
            mode = 0o100000 | state.mode
            if size <= _SMALL:
                return str(handle.write_regfile_inline(None, *owner, mode, xattrs, b"".join(chunks), None))
            writer = handle.write_regfile(None, *owner, mode, size, xattrs)
            for chunk in chunks:
                writer.write_all(chunk, None)
            return str(writer.finish(None))


# --- the tree


@dataclass(frozen=True, slots=True)
class WrittenTree:
    """A tree in the repository, of which there is no commit yet.

    handle: the root, for this module.
    checksums: of the root directory: (contents, metadata).
    """

    handle: OSTree.RepoFile
    checksums: tuple[str, str]


def plain_directory(repo: Repo) -> str:
    """Write the metadata of a directory that is root's, inside a transaction; return its checksum."""
    return objects.write(repo, _PLAIN)


def write_merged(repo: Repo, merged: Directory) -> WrittenTree:
    """Write a merged tree, inside a transaction."""
    mtree = OSTree.MutableTree.new()
    _fill(repo, mtree, merged)
    with explained("write the tree of an image"):
        _ok, root = repo.handle.write_mtree(mtree, None)
    return WrittenTree(root, _checksums(root))


def _fill(repo: Repo, mtree: OSTree.MutableTree, directory: Directory) -> None:
    mtree.set_metadata_checksum(directory.metadata)
    for name, checksum in directory.files.items():
        mtree.replace_file(name, checksum)
    for name, below in directory.directories.items():
        _ok, child = mtree.ensure_dir(name)
        if not below.contents:
            _fill(repo, child, below)
        elif not child.fill_empty_from_dirtree(repo.handle, below.contents, below.metadata):
            raise RuntimeError(f"directory {name!r} of an image was not empty")


def _checksums(root: OSTree.RepoFile) -> tuple[str, str]:
    return root.tree_get_contents_checksum(), root.tree_get_metadata_checksum()


# --- commits


def restore(repo: Repo, own: OwnCommit, tree: WrittenTree) -> bool:
    """Write the commit that an image was made of, inside a transaction, if it has this very tree.

    What was kept beside the commit stays; only signatures are added.

    Returns False for one that has another tree, or that is layered: the machine that it is of has its base.
    """
    variant = _read(_COMMIT_TYPE, own.object)
    if not variant.is_normal_form():  # libostree would write another object
        return False
    try:
        OSTree.validate_structureof_commit(variant)
    except GLib.Error:
        return False
    metadata = variant.get_child_value(0)
    keys = (layout.META_BASE, layout.META_OVERLAID)
    named = tuple(OSTree.checksum_from_bytes_v(variant.get_child_value(n)) for n in (6, 7))
    if any(metadata.lookup_value(key, None) for key in keys) or named != tree.checksums:
        return False
    with explained(f"write commit {own.checksum[:12]}"):
        repo.handle.write_metadata(OSTree.ObjectType.COMMIT, own.checksum, variant, None)
        detached = _read(_METADATA_TYPE, own.detached)
        _ok, present = repo.handle.read_commit_detached_metadata(own.checksum, None)
        if own.detached and detached.is_normal_form():
            beside = _with_signatures(present, detached) if present else detached
            repo.handle.write_commit_detached_metadata(own.checksum, beside, None)
    return True


def _with_signatures(present: GLib.Variant, further: GLib.Variant) -> GLib.Variant:
    """Return what is kept beside a commit, with the signatures of another one before its own.

    Otherwise the first image of a commit, which nobody may have signed, would decide for all others. So many
    are kept that they cannot grow without end.
    """
    kind = GLib.VariantType.new(_SIGNATURES_TYPE)
    lists = [one.lookup_value(_SIGNATURES, kind) for one in (further, present)]
    signatures = [bytes(one) for found in lists if found is not None for one in found.unpack()]
    made = GLib.VariantDict.new(present)
    if signatures:
        kept = list(dict.fromkeys(signatures))[:_MOST_SIGNATURES]
        made.insert_value(_SIGNATURES, GLib.Variant(_SIGNATURES_TYPE, kept))
    return made.end()


def mark_whole(repo: Repo, commit: str) -> None:
    """Have a commit count as one with its tree, after the transaction that has written that.

    A commit that was pulled without its tree, such as one of a branch's history, is marked otherwise.
    """
    with explained(f"mark commit {commit[:12]} as whole"):
        repo.handle.mark_commit_partial(commit, False)


def write(repo: Repo, tree: WrittenTree, *, created: int, metadata: Mapping[str, Any]) -> str:
    """Write a new commit of an image's tree, inside a transaction; return its checksum.

    created: its time, in seconds since 1970.
    """
    return repo.write_commit(tree.handle, parent=None, subject="", metadata=metadata, timestamp=created)


def _read(kind: str, data: bytes) -> GLib.Variant:
    return GLib.Variant.new_from_bytes(GLib.VariantType.new(kind), GLib.Bytes.new(data), False)


def remember(repo: Repo, digest: str, diff_ids: Sequence[str], blobs: Sequence[str]) -> None:
    """Note which layers an image has, and the blobs that they came in, inside a transaction."""
    mtree = OSTree.MutableTree.new()
    mtree.set_metadata_checksum(objects.write(repo, _PLAIN))
    with explained("note the layers of an image"):
        _ok, root = repo.handle.write_mtree(mtree, None)
    metadata = {
        image_refs.DIFF_IDS: GLib.Variant("as", list(diff_ids)),
        image_refs.BLOBS: GLib.Variant("as", list(blobs)),
        "apt-ostree.digest": text(digest),
    }
    commit = repo.write_commit(root, parent=None, subject="", metadata=metadata, timestamp=0)
    repo.handle.transaction_set_ref(None, image_refs.of_image(digest), commit)
