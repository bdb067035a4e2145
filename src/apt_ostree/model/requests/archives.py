"""The requests on archives, and that of a tree made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from apt_ostree.model.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshMd(Request):
    """Download the package lists. force: also if they are current."""

    verb: ClassVar[str] = "refresh-md"
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeTree(Request):
    """Compose a tree from a treefile.

    treefile, repo and workdir are paths of the caller, who must be root: a treefile refers to other files, so
    that it cannot be passed as a descriptor.

    sign: keys of the GnuPG keyring in `gpg_homedir`, or the caller's own, that sign the commit.
    static_delta: make one from the commit that the ref had before.
    lockfiles, write_lockfile: paths of the caller (model.lockfile). lock_strictly: refuse what is not locked.
    """

    verb: ClassVar[str] = "compose-tree"
    treefile: str
    repo: str | None = None
    ref: str | None = None
    version: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    workdir: str | None = None
    print_only: bool = False
    dry_run: bool = False
    force: bool = False
    keep_parent: bool = True
    sign: tuple[str, ...] = ()
    gpg_homedir: str | None = None
    static_delta: bool = False
    lockfiles: tuple[str, ...] = ()
    write_lockfile: str | None = None
    lock_strictly: bool = False

    @property
    def is_for_users(self) -> bool:
        """It is for root alone, because it names files by their paths."""
        return False

    @property
    def is_recorded(self) -> bool:
        """It changes nothing of the running system."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeSign(Request):
    """Sign commits of a repository, of which the caller has the path.

    revs: refs or commits.
    keys, gpg_homedir: as in ComposeTree.
    """

    verb: ClassVar[str] = "compose-sign"
    repo: str
    revs: tuple[str, ...]
    keys: tuple[str, ...]
    gpg_homedir: str | None = None

    @property
    def is_for_users(self) -> bool:
        """It needs the secret keys of its caller, without the service."""
        return False

    @property
    def is_recorded(self) -> bool:
        """It changes nothing of the running system."""
        return False
