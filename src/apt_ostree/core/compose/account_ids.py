"""Gives the accounts of a tree the ids that they had in earlier trees of its ref.

Packages' scripts take the next free ids, so that another set of packages, or another order, gives others.
Therefore ids are changed after all scripts, in the account files and for all files of the tree.
"""

from __future__ import annotations

from pathlib import Path

from apt_ostree.model import account_ids, accounts, layout
from apt_ostree.model.account_ids import Ids, Moves
from apt_ostree.model.treefile import NO_IDS, Treefile
from apt_ostree.system import files, ownership
from apt_ostree.system.ostree import overlay_repo
from apt_ostree.system.ostree.repo import Repo


def kept(tree: Treefile, repo: Path, head: str | None) -> Ids:
    """Return the ids that accounts have to keep: those of the treefile's file before those of a commit.

    head: the last commit of the ref.
    """
    if tree.account_ids == NO_IDS:
        return Ids()
    own = account_ids.parse(Path(tree.ids_file).read_text()) if tree.ids_file else Ids()
    return own.over(_of_commit(Repo.open(repo), head)) if head else own


def _of_commit(repo: Repo, commit: str) -> Ids:
    paths = (layout.ACCOUNT_IDS.removeprefix("usr/"), "etc/passwd", "etc/group")
    nodes = overlay_repo.of_base(repo, commit, paths)
    record, passwd, group = (
        repo.file_state(nodes[path].checksum).content.decode(errors="surrogateescape")
        if path in nodes
        else ""
        for path in paths
    )
    return account_ids.of_accounts(passwd, group).over(account_ids.parse_record(record))


def keep(root: Path, earlier: Ids) -> None:
    """Give accounts and files the ids to keep, and write all ids for the next tree.

    Raises Refused if a package prescribes another id.
    """
    passwd, group = (root / "etc/passwd", root / "etc/group")
    if moves := planned(root, earlier):
        ownership.move(root, moves.users, moves.groups)
        files.write_text(passwd, account_ids.moved_passwd(files.text_of(passwd), moves))
        files.write_text(group, account_ids.moved_group(files.text_of(group), moves))
    now = account_ids.of_accounts(files.text_of(passwd), files.text_of(group))
    files.write_text(root / layout.ACCOUNT_IDS, account_ids.format_ids(now.over(earlier)))


def planned(root: Path, earlier: Ids) -> Moves:
    """Return which ids have to change; Refused if a package prescribes another id."""
    texts = (files.text_of(root / "etc/passwd"), files.text_of(root / "etc/group"))
    return account_ids.plan(account_ids.of_accounts(*texts), earlier, _fixed(root))


def _fixed(root: Path) -> frozenset[str]:
    """Return the ids that packages prescribe by sysusers.d(5)."""
    texts = (files.text_of(path) for path in sorted((root / "usr/lib/sysusers.d").glob("*.conf")))
    return frozenset(entry for text in texts for entry in accounts.pinned(text))
