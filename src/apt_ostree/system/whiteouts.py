"""How overlayfs marks removed paths and replaced directories in an upper directory (overlayfs.rst)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

#: Prefix of overlayfs's own extended attributes.
XATTRS = "trusted.overlay."
_OPAQUE = f"{XATTRS}opaque"


def is_whiteout(info: os.stat_result) -> bool:
    """Return whether a path is a whiteout (a character device 0/0), which hides the path below it."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def is_opaque(directory: Path | str) -> bool:
    """Return whether a directory is opaque: it hides the contents of the same path in lower directories."""
    return _OPAQUE in os.listxattr(directory, follow_symlinks=False)
