"""How overlayfs marks what is removed and replaced in an upper directory (overlayfs.rst)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

#: The namespace of overlayfs's extended attributes, which are no content of a file.
XATTRS = "trusted.overlay."
_OPAQUE = f"{XATTRS}opaque"


def is_whiteout(info: os.stat_result) -> bool:
    """Tell whether a path hides what lies below it: a character device 0/0."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def is_opaque(directory: Path | str) -> bool:
    """Tell whether a directory hides all that lies in those of its name below it."""
    return _OPAQUE in os.listxattr(directory, follow_symlinks=False)
