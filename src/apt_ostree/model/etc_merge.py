"""The merge of /etc: what becomes of a path that the trees ship and the administrator may have changed."""

from __future__ import annotations

from apt_ostree.model.filestate import FileState
from apt_ostree.model.plan import EtcAction


def three_way(old: FileState, new: FileState, current: FileState) -> tuple[EtcAction, str] | None:
    """Return what to do with one path of /etc, and why, or None if there is nothing to do.

    A state that differs from the old tree's is the administrator's, and is kept.

    old, new: the states that the trees ship before and after.
    current: the state in /etc.
    """
    if current == new:
        return None
    if current == old:
        if new.type == "absent":
            return EtcAction.REMOVE, "no longer shipped, and not edited"
        return EtcAction.WRITE, "new" if old.type == "absent" else "changed, and not edited"
    if old == new:
        return None
    if current.type == "absent":
        return EtcAction.KEEP, "the administrator removed it"
    if old.type == "absent":
        return EtcAction.KEEP, "the administrator has a file of that name"
    return EtcAction.KEEP, "the administrator edited it"


def merged(old: FileState, new: FileState, current: FileState) -> FileState:
    """Return the state that the merge of /etc leaves at a path, see `three_way`."""
    decision = three_way(old, new, current)
    return new if decision and decision[0] is not EtcAction.KEEP else current
