"""The repository: commits, their metadata, refs, objects and checkouts.

Owns OSTree.Repo. Commits and objects are passed as checksums; paths are relative to the root of a commit.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from apt_ostree.errors import ExternalFailure, UsageError
from apt_ostree.model import layout
from apt_ostree.model.filestate import FileState
from apt_ostree.model.package import Package
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import metadata as values
from apt_ostree.system.ostree.gi_ostree import DAMAGE, Gio, GLib, OSTree, explained

#: A directory object: (file name -> checksum, directory name -> (contents checksum, metadata checksum)).
DirTree = tuple[dict[str, str], dict[str, tuple[str, str]]]
#: Of OSTree.RepoTransactionStats; `total` has those that were there already.
_COUNTS = (
    *("metadata_objects_total", "metadata_objects_written"),
    *("content_objects_total", "content_objects_written", "content_bytes_written"),
    "devino_cache_hits",
)


@dataclass(frozen=True, slots=True)
class Outline:
    """The type and metadata of an object, without its content.

    type: file, symlink or directory.
    mode: permission bits with setuid, setgid and sticky.
    size: of a file's content, in bytes.
    target: of a symlink.
    xattrs: names of the extended attributes.
    """

    type: str
    mode: int
    uid: int
    gid: int
    size: int = 0
    target: str = ""
    xattrs: tuple[str, ...] = ()


class Repo:
    """An opened repository."""

    def __init__(self, repo: OSTree.Repo, *, writable: bool = False) -> None:
        self.handle = repo
        self.writable = writable
        self.dirtrees: dict[str, DirTree] = {}  # cache of directory objects (system.ostree.diff)

    @classmethod
    def open(cls, path: Path) -> Repo:
        """Open the repository in a directory."""
        repo = OSTree.Repo.new(Gio.File.new_for_path(str(path)))
        with explained(f"open the repository {path}"):
            repo.open(None)
        return cls(repo, writable=True)

    @classmethod
    def create(cls, path: Path) -> Repo:
        """Create a bare repository in an existing directory."""
        repo = OSTree.Repo.new(Gio.File.new_for_path(str(path)))
        with explained(f"create a repository in {path}"):
            repo.create(OSTree.RepoMode.BARE, None)
        return cls(repo, writable=True)

    @property
    def is_archive(self) -> bool:
        """Return whether it is of the mode `archive`, from which machines pull."""
        return bool(self.handle.get_mode() == OSTree.RepoMode.ARCHIVE)

    @property
    def is_bare(self) -> bool:
        """Return whether it is of the mode `bare`, as a system's, in which files keep owner and mode."""
        return bool(self.handle.get_mode() == OSTree.RepoMode.BARE)

    # -- commits ----------------------------------------------------------------------------------

    def resolve(self, rev: str) -> str:
        """Return the checksum of a ref or (abbreviated) commit; UsageError if there is none."""
        try:
            _ok, checksum = self.handle.resolve_rev(rev, False)
        except GLib.Error as error:
            raise UsageError(f"no commit or ref {rev!r} in the repository: {error.message}") from error
        if not self.handle.has_object(OSTree.ObjectType.COMMIT, checksum, None)[1]:
            raise UsageError(f"no commit {rev!r} in the repository")  # libostree accepts any full checksum
        return str(checksum)

    def resolve_or_none(self, rev: str) -> str | None:
        """Return the checksum of a ref, or None if there is no such ref."""
        with explained(f"look the ref {rev!r} up"):
            _ok, checksum = self.handle.resolve_rev(rev, True)
        return checksum or None

    def local_ref(self, ref: str) -> str | None:
        """Return the commit of a local ref, or None if there is none; `resolve` looks at remotes, too."""
        with explained(f"look the ref {ref!r} up"):
            flags = OSTree.RepoResolveRevExtFlags.LOCAL_ONLY
            _ok, checksum = self.handle.resolve_rev_ext(ref, True, flags)
        return checksum or None

    def has_commit(self, checksum: str) -> bool:
        """Return whether the repository has the commit and, unless it is partial, all of its tree."""
        try:
            _ok, variant, state = self.handle.load_commit(checksum)
            return bool(
                state == OSTree.RepoCommitState.NORMAL and OSTree.validate_structureof_commit(variant)
            )
        except GLib.Error:
            return False

    def load_commit(self, checksum: str) -> Any:
        """Return the commit's variant."""
        with explained(f"read commit {checksum[:12]}", hint=DAMAGE):
            _ok, variant, _state = self.handle.load_commit(checksum)
            OSTree.validate_structureof_commit(variant)  # a power cut may leave an empty file
        return variant

    def metadata(self, checksum: str) -> dict[str, Any]:
        """Return the commit's metadata as plain values, except for the package list (see `packages`)."""
        rows = self.load_commit(checksum).get_child_value(0)
        entries = (rows.get_child_value(index) for index in range(rows.n_children()))
        return {
            key: values.unpack(entry.get_child_value(1).get_variant())
            for entry in entries
            if (key := entry.get_child_value(0).get_string()) != layout.META_PACKAGES
        }

    def _value(self, checksum: str, key: str) -> Any:
        value = self.load_commit(checksum).get_child_value(0).lookup_value(key, None)
        return None if value is None else values.unpack(value)

    def timestamp(self, checksum: str) -> int:
        """Return the commit's time, in seconds since 1970."""
        return int(OSTree.commit_get_timestamp(self.load_commit(checksum)))

    def subject(self, checksum: str) -> str:
        """Return the first line of the commit's message."""
        return str(self.load_commit(checksum).get_child_value(3).get_string())

    def parent(self, checksum: str) -> str | None:
        """Return the parent that a commit names, if any; the repository may not have it."""
        return OSTree.commit_get_parent(self.load_commit(checksum)) or None

    def content_checksum(self, checksum: str) -> str:
        """Return libostree's checksum of the tree alone, without the commit's metadata."""
        return str(OSTree.commit_get_content_checksum(self.load_commit(checksum)))

    def base_of(self, checksum: str) -> str:
        """Return the base commit of a layered commit, or the commit itself."""
        return str(self._value(checksum, layout.META_BASE) or checksum)

    def packages(self, checksum: str) -> frozenset[Package] | None:
        """Return the packages that the commit's metadata lists, or None if it has no list."""
        rows = self._value(checksum, layout.META_PACKAGES)
        return None if rows is None else frozenset(Package(*row) for row in rows)

    def is_for_deployments(self, checksum: str) -> bool:
        """Return whether a commit has a whole tree, and not one that was made for a view with overlays."""
        values = self.load_commit(checksum).get_child_value(0)
        keys = (layout.META_PACKAGES, layout.META_OVERLAID)
        has_packages, is_overlaid = (values.lookup_value(key, None) is not None for key in keys)
        return has_packages and not is_overlaid

    def ancestry(self, checksum: str) -> list[str]:
        """Return a commit and those of its ancestors that the repository has, the newest first."""
        return self._ancestry(checksum, self.has_commit)

    def history(self, checksum: str | None) -> list[str]:
        """Return a commit and those of its ancestors that are here, with or without their trees."""
        return self._ancestry(checksum, self._has_metadata)

    def _ancestry(self, checksum: str | None, has: Callable[[str], bool]) -> list[str]:
        commits = []
        while checksum and has(checksum):
            commits.append(checksum)
            checksum = self.parent(checksum)
        return commits

    def _has_metadata(self, checksum: str) -> bool:
        """Return whether the repository has a commit, if not its tree."""
        with explained(f"look commit {checksum[:12]} up"):
            return bool(self.handle.has_object(OSTree.ObjectType.COMMIT, checksum, None)[1])

    def tree_checksums(self, checksum: str) -> tuple[str, str]:
        """Return the checksums of a commit's root directory: (contents, metadata)."""
        variant = self.load_commit(checksum)
        contents, metadata = (OSTree.checksum_from_bytes_v(variant.get_child_value(n)) for n in (6, 7))
        return contents, metadata

    def file_state(self, checksum: str) -> FileState:
        """Return the state that a file object describes."""
        with explained(f"read the file object {checksum[:12]}", hint=DAMAGE):
            _ok, stream, info, xattrs = self.handle.load_file(checksum)
        owner = (info.get_attribute_uint32("unix::uid"), info.get_attribute_uint32("unix::gid"))
        if info.get_file_type() == Gio.FileType.SYMBOLIC_LINK:
            return FileState("symlink", 0o777, *owner, os.fsencode(info.get_symlink_target()))
        mode = info.get_attribute_uint32("unix::mode") & 0o7777
        content = stream.read_bytes(info.get_size(), None).get_data() if info.get_size() else b""
        return FileState("file", mode, *owner, content or b"", read_xattrs(xattrs))

    def outline(self, checksum: str, *, is_dir: bool = False) -> Outline:
        """Return the outline of a file object, or of a directory's metadata object."""
        if is_dir:
            state = self.directory_state(checksum)
            return Outline(
                "directory", state.mode, state.uid, state.gid, xattrs=tuple(n for n, _ in state.xattrs)
            )
        with explained(f"read the file object {checksum[:12]}", hint=DAMAGE):
            _ok, _stream, info, xattrs = self.handle.load_file(checksum)
        names = tuple(name for name, _value in read_xattrs(xattrs))
        owner = (info.get_attribute_uint32("unix::uid"), info.get_attribute_uint32("unix::gid"))
        if info.get_file_type() == Gio.FileType.SYMBOLIC_LINK:
            return Outline("symlink", 0o777, *owner, 0, str(info.get_symlink_target()), names)
        mode = info.get_attribute_uint32("unix::mode") & 0o7777
        return Outline("file", mode, *owner, int(info.get_size()), "", names)

    def size(self, checksum: str) -> int:
        """Return the size of a file object's content in bytes; 0 for a symlink."""
        try:
            info = os.lstat(_place(checksum), dir_fd=self.handle.get_dfd())
        except FileNotFoundError as error:
            raise ExternalFailure(f"the file object {checksum[:12]} is missing", hint=DAMAGE) from error
        return info.st_size if stat.S_ISREG(info.st_mode) else 0

    def inode(self, checksum: str) -> int:
        """Return the inode of a file object, which hardlink checkouts share, or 0 if it does not exist."""
        try:
            return os.lstat(_place(checksum), dir_fd=self.handle.get_dfd()).st_ino
        except FileNotFoundError:
            return 0

    def objects_by_inode(self) -> dict[int, str]:
        """Return inode -> checksum of all file objects in the repository."""
        checksums: dict[int, str] = {}
        with os.scandir(Path(self.handle.get_path().get_path()) / "objects") as directories:
            for directory in directories:
                with os.scandir(directory.path) as entries:
                    files = (entry for entry in entries if entry.name.endswith(".file"))
                    checksums |= {e.inode(): directory.name + e.name.removesuffix(".file") for e in files}
        return checksums

    def directory_state(self, checksum: str) -> FileState:
        """Return the state that a directory's metadata object describes."""
        with explained(f"read the metadata object {checksum[:12]}", hint=DAMAGE):
            _ok, variant = self.handle.load_variant(OSTree.ObjectType.DIR_META, checksum)
        uid, gid, mode = (
            GLib.Variant.new_uint32(variant.get_child_value(i).get_uint32()).byteswap().get_uint32()
            for i in range(3)
        )
        return FileState("directory", mode & 0o7777, uid, gid, b"", read_xattrs(variant.get_child_value(3)))

    def version(self, checksum: str) -> str | None:
        """Return the version that the commit's metadata gives, if any."""
        value = self._value(checksum, layout.META_VERSION)
        return None if value is None else str(value)

    def has_path(self, checksum: str, path: str) -> bool:
        """Return whether a commit's tree has a path, which is relative to its root."""
        with explained(f"read commit {checksum[:12]}", hint=DAMAGE):
            _ok, root, _commit = self.handle.read_commit(checksum)
        return bool(root.resolve_relative_path(path).query_exists())

    # -- changes ----------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[dict[str, int]]:
        """Write objects and refs atomically: all of them on success, none on an error.

        Yields what has libostree's counts of what was written, by their names, after the block.
        """
        counts: dict[str, int] = {}
        with explained("begin a repository transaction"):
            self.handle.prepare_transaction(None)
        try:
            yield counts
            failpoint("repo.before-commit")
            with explained("write to the repository"):
                _ok, found = self.handle.commit_transaction(None)
            counts |= {name: int(getattr(found, name)) for name in _COUNTS}
        except BaseException:
            self.handle.abort_transaction(None)
            raise

    def write_commit(
        self,
        root: OSTree.RepoFile,
        *,
        parent: str | None,
        subject: str,
        metadata: Mapping[str, Any],
        timestamp: int | None = None,
    ) -> str:
        """Write a commit of a written directory, inside a transaction; return its checksum.

        metadata: of the commit, as variants.
        timestamp: in seconds since 1970; None means now.
        """
        variant = GLib.Variant("a{sv}", dict(metadata))
        with explained(f"write the commit {subject!r}"):
            if timestamp is None:
                _ok, checksum = self.handle.write_commit(parent, subject, None, variant, root, None)
            else:
                _ok, checksum = self.handle.write_commit_with_time(
                    parent, subject, None, variant, root, timestamp, None
                )
        return str(checksum)

    def set_ref(self, ref: str, checksum: str | None) -> None:
        """Point a local ref at a commit without a transaction; None removes the ref."""
        with explained(f"write the ref {ref}"):
            self.handle.set_ref_immediate(None, ref, checksum, None)
        if checksum is None:
            self._remove_empty_parents(ref)

    def _remove_empty_parents(self, ref: str) -> None:
        """Remove the directories of a ref that are empty; libostree leaves them, one for each generation."""
        with suppress(OSError):  # there are other refs in it
            for parent in list(PurePosixPath(ref).parents)[:-1]:
                os.rmdir(f"refs/heads/{parent}", dir_fd=self.handle.get_dfd())

    def refs(self, prefix: str) -> dict[str, str]:
        """Return full name -> commit of the local refs below a prefix; of all, remotes' included, without."""
        with explained("list the refs"):
            _ok, refs = self.handle.list_refs_ext(prefix or None, OSTree.RepoListRefsExtFlags.NONE, None)
        return dict(refs)

    def sync_refs(self, prefix: str, refs: Mapping[str, str]) -> None:
        """Make `refs` (full name -> commit) the only local refs below `prefix`."""
        current = self.refs(prefix)
        for ref in current.keys() - refs.keys():
            self.set_ref(ref, None)
        for ref, checksum in refs.items():
            if current.get(ref) != checksum:
                self.set_ref(ref, checksum)

    def unreferenced_commits(self) -> frozenset[str]:
        """Return the commits that no ref points to, so that `prune` removes them."""
        return self.commits() - {*self.refs("").values()}

    def commits(self) -> frozenset[str]:
        """Return all commits that are here, with or without their trees."""
        with explained("list the commits"):
            _ok, names = self.handle.list_commit_objects_starting_with("", None)
        return frozenset(checksum for checksum, _type in map(GLib.Variant.unpack, names))

    def local_refs(self) -> dict[str, str]:
        """Return name -> commit of the local refs."""
        flags = OSTree.RepoListRefsExtFlags
        with explained("list the local refs"):
            _ok, refs = self.handle.list_refs_ext(None, flags.EXCLUDE_REMOTES | flags.EXCLUDE_MIRRORS, None)
        return dict(refs)

    def prune(self) -> None:
        """Remove the objects that no ref needs; raise ExternalFailure if one that is needed is missing."""
        with explained("remove unused objects", hint=DAMAGE):
            self.handle.prune(OSTree.RepoPruneFlags.REFS_ONLY, 0, None)

    def checkout(self, checksum: str, parent: Path, name: str, *, subpath: str = "/") -> None:
        """Check a commit out into `parent/name` by hardlinks; whiteout markers become whiteouts."""
        options = OSTree.RepoCheckoutAtOptions()
        options.no_copy_fallback = True
        options.process_passthrough_whiteouts = True
        options.subpath = subpath
        fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with explained(f"check out commit {checksum[:12]}"):
                self.handle.checkout_at(options, fd, name, checksum, None)
        finally:
            os.close(fd)


def _place(checksum: str) -> str:
    """Return where a file object lies in a bare repository."""
    return f"objects/{checksum[:2]}/{checksum[2:]}.file"


def read_xattrs(variant: Any) -> tuple[tuple[str, bytes], ...]:
    """Return (name, value) of each extended attribute of a variant a(ayay) or None, sorted."""
    pairs = variant.unpack() if variant is not None else []
    return tuple(sorted((bytes(name).rstrip(b"\0").decode(), bytes(value)) for name, value in pairs))


def package_list(packages: Iterable[Package]) -> GLib.Variant:
    """Return the variant of a package list, for a commit's metadata."""
    return GLib.Variant("a(sss)", sorted((p.name, p.version, p.architecture) for p in packages))


def text(value: str) -> GLib.Variant:
    """Return the variant of a string, for a commit's metadata."""
    return GLib.Variant("s", value)
