"""Changes the owners of files, with all that chown(2) takes away."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from apt_ostree.system import rootstate

_CAPABILITIES = "security.capability"


def move(root: Path, users: Mapping[int, int], groups: Mapping[int, int]) -> None:
    """Give the files below a directory to other users and groups, but not what is mounted there.

    Raises OSError if one cannot be changed.

    users, groups: id -> new id.
    """
    seen = set()
    for name, info in rootstate.of_image(root):
        path = root / name
        uid, gid = users.get(info.st_uid, info.st_uid), groups.get(info.st_gid, info.st_gid)
        if (uid, gid) == (info.st_uid, info.st_gid) or info.st_ino in seen:
            continue
        seen.add(info.st_ino)  # a hard link to it must not be moved again
        capabilities = _capabilities(path)
        os.lchown(path, uid, gid)
        if not stat.S_ISLNK(info.st_mode):
            path.chmod(stat.S_IMODE(info.st_mode))
            if capabilities is not None:
                os.setxattr(path, _CAPABILITIES, capabilities)


def _capabilities(path: Path) -> bytes | None:
    names = os.listxattr(path, follow_symlinks=False)
    return os.getxattr(path, _CAPABILITIES) if _CAPABILITIES in names else None
