"""What a file system has free."""

from __future__ import annotations

import shutil
from pathlib import Path

from apt_ostree.system import space


def test_free_space_is_what_df_tells(tmp_path: Path):
    free, usage = space.of(tmp_path), shutil.disk_usage(tmp_path)
    assert abs(free.available - usage.free) < 100_000_000  # others write meanwhile
    assert free.unused >= free.available
    assert free.inodes is None or free.inodes > 0
