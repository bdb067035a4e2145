"""A disk of the tests' own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from apt_ostree.system import mounts


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty file system in a mount namespace of the module's own."""
    outside = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    mounts.enter_private_namespace()
    place = tmp_path_factory.mktemp("live")
    mounts.mount("none", place, "tmpfs", data="mode=755")
    try:
        yield place
    finally:
        assert mounts._libc.unshare(mounts.CLONE_FS) == 0  # libostree has started threads
        assert mounts._libc.setns(outside, mounts.CLONE_NEWNS) == 0  # os.setns is of Python 3.12
        os.close(outside)
