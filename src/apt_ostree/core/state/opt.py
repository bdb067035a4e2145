"""Reads what is in the places of a tree's directories in /opt; it changes nothing."""

from __future__ import annotations

from pathlib import Path

from apt_ostree.model import layout
from apt_ostree.model.filestate import FileState
from apt_ostree.system import files
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.repo import Repo

PLACE = Path("/var/opt")


def places(repo: Repo, commit: str, *, besides: str | None = None) -> dict[str, FileState]:
    """Return the state of the place in /opt of each directory that a commit has for it, by name.

    besides: a commit whose directories have their places already.
    """
    names = _names(repo, commit) - (_names(repo, besides) if besides else frozenset())
    return {name: files.read_state(PLACE / name) for name in sorted(names)}


def _names(repo: Repo, commit: str) -> frozenset[str]:
    tree = diff.directory_of(repo, commit, layout.OPT)
    return frozenset(diff.read_dirtree(repo, tree[0])[1] if tree else ())
