"""The cache of archives keeps to its size."""

from __future__ import annotations

import os
import time
from pathlib import Path

import apt_pkg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model.package import Package
from apt_ostree.system.apt import cache, config

PACKAGES = [Package(name, "1:2.0-1", "amd64") for name in ("a", "b", "c", "d")]


@pytest.fixture
def archives(tmp_path: Path):
    apt_pkg.init_config()
    with config.changed({"Dir::Cache::archives": f"{tmp_path}/"}):
        yield tmp_path


def fill(directory: Path, sizes: list[int]) -> dict[str, int]:
    """Write an archive of each package, in their order; the mtime is another one."""
    for number, (package, size) in enumerate(zip(PACKAGES, sizes, strict=False)):
        path = directory / f"{package.name}_1%3a2.0-1_amd64.deb"
        path.write_bytes(bytes(size))
        os.utime(path, (0, -number))
        time.sleep(0.005)  # the granularity of a ctime
    return present(directory)


def present(directory: Path) -> dict[str, int]:
    return {path.name[0]: path.stat().st_size for path in directory.glob("*.deb")}


def test_what_came_first_goes_first(archives: Path):
    fill(archives, [10, 10, 10, 10])
    assert cache.prune(25, []) == ("a_1%3a2.0-1_amd64.deb", "b_1%3a2.0-1_amd64.deb")
    assert present(archives) == {"c": 10, "d": 10}
    assert cache.prune(25, []) == ()


def test_what_a_deployment_has_stays(archives: Path):
    fill(archives, [10, 10, 10, 10])
    cache.prune(1, PACKAGES[:2])
    assert present(archives) == {"a": 10, "b": 10}


def test_there_may_be_no_limit_and_no_cache(archives: Path):
    fill(archives, [10])
    assert cache.prune(0, []) == ()
    with config.changed({"Dir::Cache::archives": f"{archives}/none/"}):
        assert cache.prune(1, []) == ()


def test_nothing_goes_while_another_program_uses_it(archives: Path):
    fill(archives, [10, 10])
    holder = os.fork()
    if not holder:
        with apt_pkg.FileLock(f"{archives}/lock"):
            (archives / "held").touch()
            time.sleep(60)
        os._exit(0)
    try:
        while not (archives / "held").exists():
            time.sleep(0.01)
        assert cache.prune(1, []) == ()
        assert present(archives) == {"a": 10, "b": 10}
    finally:
        os.kill(holder, 9)
        os.waitpid(holder, 0)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=4), st.integers(1, 400), st.sets(st.integers(0, 3)))
def test_it_is_small_enough_or_all_else_is_needed(tmp_path_factory, sizes, limit, kept):
    apt_pkg.init_config()
    directory = tmp_path_factory.mktemp("archives")
    with config.changed({"Dir::Cache::archives": f"{directory}/"}):
        before = fill(directory, sizes)
        cache.prune(limit, [PACKAGES[number] for number in kept])
    after = present(directory)
    needed = {PACKAGES[number].name for number in kept}
    assert before.keys() & needed <= after.keys()
    assert sum(after.values()) <= limit or after.keys() <= needed
    assert after == before or sum(before.values()) > limit
