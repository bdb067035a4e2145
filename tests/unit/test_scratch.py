"""Scratch directories: those of killed processes are removed, those of living ones are kept."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from apt_ostree.system import scratch

SOURCE = Path(__file__).resolve().parents[2] / "src"
PROGRAM = """
import sys
from pathlib import Path
from apt_ostree.system import scratch
with scratch.directory(Path(sys.argv[1]), "build-") as place:
    (place / "half").write_text("done")
    print(place, flush=True)
    sys.stdin.read()
"""


class Other:
    """Another program that works in a scratch directory until it is told to end, or killed."""

    def __init__(self, parent: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(parent)],
            env={"PYTHONPATH": str(SOURCE)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.place = Path(self.process.stdout.readline().strip())

    def end(self) -> None:
        self.process.communicate("")
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def others(tmp_path) -> Iterator[tuple[Other, Other]]:
    """Two other programs at work; one of them is killed at the end at the latest."""
    pair = (Other(tmp_path), Other(tmp_path))
    yield pair
    for other in pair:
        if other.process.poll() is None:
            other.kill()


def test_leftovers_of_the_killed_go_and_those_of_the_living_stay(tmp_path, others):
    living, killed = others
    assert living.place != killed.place  # the second did not take the first for a leftover
    killed.kill()
    assert (killed.place / "half").exists()
    with scratch.directory(tmp_path, "build-") as mine:
        assert not killed.place.exists()
        assert (living.place / "half").read_text() == "done"
        assert {*tmp_path.iterdir()} == {living.place, mine}
    scratch.remove_leftovers(tmp_path, "build-")
    assert [*tmp_path.iterdir()] == [living.place]
    living.end()
    assert not list(tmp_path.iterdir())


def test_a_directory_is_private_and_gone_afterwards(tmp_path):
    with scratch.directory(tmp_path / "made/on/the/way", "build-") as place:
        assert place.name.startswith("build-")
        assert place.stat().st_mode & 0o777 == 0o700
        (place / "some/thing").mkdir(parents=True)
    assert not list((tmp_path / "made/on/the/way").iterdir())


def test_a_directory_is_gone_after_a_failure(tmp_path):
    with pytest.raises(KeyError), scratch.directory(tmp_path, "build-") as place:
        (place / "half").touch()
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_only_what_has_the_prefix_is_a_leftover(tmp_path):
    for name in ("build-old", "build-other/with/content", "tree-1", "build"):
        (tmp_path / name).mkdir(parents=True)
    scratch.remove_leftovers(tmp_path, "build-")
    assert {path.name for path in tmp_path.iterdir()} == {"tree-1", "build"}


def test_where_nothing_is_nothing_is_removed(tmp_path):
    scratch.remove_leftovers(tmp_path / "nowhere", "build-")
    scratch.remove_leftovers(tmp_path, "build-")


def test_one_that_is_removed_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    lock, removed = scratch.fcntl.flock, []

    def flock(fd: int, operation: int) -> None:
        if not removed:
            removed.append(Path(f"/proc/self/fd/{fd}").readlink())
            removed[0].rmdir()
        lock(fd, operation)

    monkeypatch.setattr(scratch.fcntl, "flock", flock)
    with scratch.directory(tmp_path, "build-") as place:
        assert place.is_dir()
        assert place != removed[0]
    assert list(tmp_path.iterdir()) == []
