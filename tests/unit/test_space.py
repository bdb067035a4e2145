"""What a file system has free."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from apt_ostree.system import space


def test_free_space_is_what_df_tells(tmp_path: Path):
    free, usage = space.of(tmp_path), shutil.disk_usage(tmp_path)
    assert abs(free.available - usage.free) < 100_000_000  # others write meanwhile
    assert free.unused >= free.available
    assert free.inodes is None or free.inodes > 0


def test_space_is_set_aside_or_not_at_all(tmp_path):
    path = tmp_path / "reserve"
    for _ in range(2):
        space.reserve(path, 100_000)
        assert path.stat().st_blocks * 512 >= 100_000
    with pytest.raises(OSError):
        space.reserve(path, 2**62)
    assert not path.exists()
