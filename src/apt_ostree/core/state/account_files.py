"""The account files of the machine: they have to agree with each other, and with those of a tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from apt_ostree.core.state import etc_trees
from apt_ostree.errors import Refused
from apt_ostree.model import account_ids, accounts, layout
from apt_ostree.model.account_ids import Ids
from apt_ostree.model.filestate import FileState
from apt_ostree.system import accounts_lock, files, mounts
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.repo import Repo

_ETC = Path("/etc")
_NAMES = ("passwd", "group")


def notes_on(repo: Repo, commit: str, before: str) -> tuple[str, ...]:
    """Return a text for each account whose id in a commit means another account on this machine.

    before: the commit that is replaced; what is so there, too, is left out.
    """
    if repo.base_of(commit) == repo.base_of(before):  # ids of layered packages were chosen on this machine
        return ()
    here = {name: files.read_state(_ETC / name) for name in _NAMES}
    return account_ids.unlike(_ids_of(repo, commit), _ids_of(repo, before), _ids(here))


def refuse_shared_ids(repo: Repo, commit: str) -> None:
    """Raise Refused if accounts of layered packages have ids that accounts of the base have."""
    base = repo.base_of(commit)
    if base == commit:
        return
    if texts := account_ids.shared(_ids_of(repo, commit)) - account_ids.shared(_ids_of(repo, base)):
        raise Refused(
            "accounts of the base would have the ids of packages' accounts on this machine",
            details=sorted(texts),
            hint="uninstall these packages, or use a base that keeps its accounts' ids; nothing was changed",
        )


def described(repo: Repo, commit: str) -> str:
    """Return the sysusers.d(5) text about the accounts of a commit's tree; empty if it has none."""
    checksum = diff.file_of(repo, commit, layout.SYSUSERS)
    return repo.file_state(checksum).content.decode() if checksum else ""


def only_live(repo: Repo, shown: str, deployed: str, booted: str) -> list[str]:
    """Return the lines of layout.REMOVED_ACCOUNTS: accounts that this machine would lose with the next boot.

    They are those of packages that were only live: what they made in /var stays, and their ids must not
    become another account's.

    shown: the commit that describes them. deployed: the commit that the next boot starts.
    """
    text = described(repo, shown)
    here = frozenset[str]().union(*(accounts.names(files.text_of(_ETC / name)) for name in _NAMES))
    stay = (accounts.described_names(described(repo, commit)) for commit in (deployed, booted))
    return accounts.lines_about(text, (accounts.described_names(text) & here).difference(*stay))


def _ids_of(repo: Repo, commit: str) -> Ids:
    return _ids(etc_trees.shipped(repo, commit, _NAMES))


def _ids(states: Mapping[str, FileState]) -> Ids:
    texts = (states[name].content.decode(errors="surrogateescape") for name in _NAMES)
    return account_ids.of_accounts(*texts)


def agree() -> bool:
    """Add the lines that shadow and gshadow lack; return whether there were any."""
    with mounts.in_namespace_of(1), accounts_lock.locked(_ETC):
        states = {name: files.read_state(_ETC / name) for name in accounts.FILES}
        texts = {
            name: state.content.decode(errors="surrogateescape")
            for name, state in states.items()
            if state.type == "file"
        }
        added = accounts.lines_without_password(texts)
        new = [
            (_ETC / name, replace(states[name], content=_with_line(texts[name], lines)))
            for name, lines in added.items()
        ]
        files.write_states(new)
        return bool(new)


def _with_line(text: str, lines: str) -> bytes:
    separator = "" if text.endswith("\n") or not text else "\n"
    return f"{text}{separator}{lines}".encode(errors="surrogateescape")
