"""The requests of `compose`, which makes trees from the packages of archives. All are for root alone.

Paths are those of the caller: a treefile refers to other files, so that it cannot be passed as a descriptor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from apt_ostree.model.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeRequest(Request):
    """A request that needs no deployment, and changes nothing of the running system."""

    @property
    def is_for_users(self) -> bool:
        """It is for root alone, because it names files by their paths."""
        return False

    @property
    def is_recorded(self) -> bool:
        """It changes nothing of the running system."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class OfPackages(ComposeRequest):
    """A request that takes packages from archives.

    cachedir: directory for what the next compose can use again.
    cache_only: use the package lists and archives that are in it, and no network.
    lockfiles, write_lockfile: see model.lockfile. lock_strictly: refuse what is not locked.
    """

    treefile: str
    cachedir: str | None = None
    cache_only: bool = False
    lockfiles: tuple[str, ...] = ()
    write_lockfile: str | None = None
    lock_strictly: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OfCommit(ComposeRequest):
    """A request that makes a commit.

    metadata: strings for the commit. metadata_files: with JSON objects for it, see model.commit_metadata.
    parent: a ref or commit that becomes the parent in place of the ref's commit; it need not be in the
        repository if it is a full checksum.
    write_composejson: the file that tells what was made, see core.compose.composejson.
    sign: keys of the GnuPG keyring in `gpg_homedir`, or the caller's own, that sign the commit.
    static_delta: make one from the commit that the ref had before.
    """

    repo: str | None = None
    ref: str | None = None
    version: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    metadata_files: tuple[str, ...] = ()
    keep_parent: bool = True
    parent: str | None = None
    write_composejson: str | None = None
    sign: tuple[str, ...] = ()
    gpg_homedir: str | None = None
    static_delta: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeTree(OfCommit):
    """Compose a tree from a treefile and commit it; see OfPackages for what that has as well.

    previous_commit: a ref or commit that the tree is compared with, and whose accounts keep their ids, in
        place of the ref's commit.
    previous_inputs: a digest of inputs that those of the tree are compared with, in place of a commit's.
    download_only: download the archives of the packages into the cache.
    verify: compose it a second time, and commit it only if both are the same.
    """

    verb: ClassVar[str] = "compose-tree"
    treefile: str
    cachedir: str | None = None
    cache_only: bool = False
    lockfiles: tuple[str, ...] = ()
    write_lockfile: str | None = None
    lock_strictly: bool = False
    workdir: str | None = None
    previous_commit: str | None = None
    previous_inputs: str | None = None
    print_only: bool = False
    dry_run: bool = False
    download_only: bool = False
    force: bool = False
    verify: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeInstall(OfPackages):
    """Install the packages of a treefile in DESTDIR/rootfs.

    repo: has the ref whose accounts keep their ids.
    ids: a file with the ids that accounts keep, in place of those, see model.account_ids.format_ids.
    postprocess: give it the form of a tree, too.
    download_only: download the archives of the packages into the cache.
    """

    verb: ClassVar[str] = "compose-install"
    destdir: str
    repo: str | None = None
    ids: str | None = None
    postprocess: bool = False
    print_only: bool = False
    dry_run: bool = False
    download_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposePostprocess(ComposeRequest):
    """Give a root filesystem the form of a tree. treefile: its settings are applied before."""

    verb: ClassVar[str] = "compose-postprocess"
    rootfs: str
    treefile: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeCommit(OfCommit):
    """Commit a root filesystem in the form of a tree."""

    verb: ClassVar[str] = "compose-commit"
    treefile: str
    rootfs: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeRootfs(OfPackages):
    """Make a root filesystem in the form of a tree, for other tools. repo: as for ComposeInstall."""

    verb: ClassVar[str] = "compose-rootfs"
    dest: str
    repo: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeExtensions(ComposeRequest):
    """Download packages that can be layered on a base.

    extensions: the file that describes them.
    repo, base_rev: the base; by default the last commit of the treefile's ref.
    rootfs: the base is this root filesystem.
    """

    verb: ClassVar[str] = "compose-extensions"
    treefile: str
    extensions: str
    output_dir: str
    repo: str | None = None
    base_rev: str | None = None
    rootfs: str | None = None
    cachedir: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeSign(ComposeRequest):
    """Sign commits of a repository.

    revs: refs or commits.
    keys, gpg_homedir: as `sign` of a request that makes a commit.
    """

    verb: ClassVar[str] = "compose-sign"
    repo: str
    revs: tuple[str, ...]
    keys: tuple[str, ...]
    gpg_homedir: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposePublish(ComposeRequest):
    """Publish refs of a repository in a directory that a web server serves.

    refs: of the repository; none means all local ones.
    image: publish a container image of the newest commit of each ref, too.
    sign, gpg_homedir: keys as of a request that makes a commit; they sign the newest commits and the summary.
    keep, keep_days: see model.publication.kept.
    static_deltas: publish those that save bytes.
    """

    verb: ClassVar[str] = "compose-publish"
    directory: str
    repo: str
    refs: tuple[str, ...] = ()
    image: bool = False
    sign: tuple[str, ...] = ()
    gpg_homedir: str | None = None
    keep: int | None = None
    keep_days: int | None = None
    static_deltas: bool = True

    def __post_init__(self) -> None:
        for name in ("keep", "keep_days"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected 1 or more, got {value}")
