"""The state of one path, and the three-way rule for /etc."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from apt_ostree.model.plan import EtcAction

Type = Literal["absent", "file", "symlink", "directory", "other"]


@dataclass(frozen=True, slots=True)
class FileState:
    """What a path holds: its type, owner, mode, content (bytes of a file, target of a link) and xattrs."""

    type: Type
    mode: int = 0
    uid: int = 0
    gid: int = 0
    content: bytes = b""
    xattrs: tuple[tuple[str, bytes], ...] = ()


ABSENT = FileState("absent")


def three_way(old: FileState, new: FileState, current: FileState) -> tuple[EtcAction, str] | None:
    """Decide about one path of /etc; None when there is nothing to do.

    old, new: what the trees ship before and after; current: what /etc holds. The administrator's state wins
    wherever it is not what the old tree shipped.
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
