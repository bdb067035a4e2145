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

    @property
    def is_for_users(self) -> bool:
        """It is for root alone, because it names files by their paths."""
        return False
