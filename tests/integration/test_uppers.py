"""Upper directories as overlayfs writes them, read and folded: what they come to is what was shown."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from apt_ostree.model.upper import fold
from apt_ostree.system import mounts, uppers

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, so it needs root")
BASE = ("a", "d/a", "d/e/b", "d/e/f/c", "g/h")
numbers = itertools.count()


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("new")


def remove(root: Path, *paths: str) -> None:
    for path in paths:
        place = root / path
        shutil.rmtree(place) if place.is_dir() else place.unlink()


def replace(root: Path, directory: str, *paths: str) -> None:
    remove(root, directory)
    write(root, *paths)


def files_of(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): p.read_text() for p in root.rglob("*") if p.is_file()}


def children(base: Path, path: str) -> list[str]:
    place = base / path
    return [f"{path}/{name}" for name in os.listdir(place)] if place.is_dir() else []


def shown(base: Path, changed: list[Path]) -> dict[str, str]:
    """Return the files that an overlay of the folded uppers shows on the base, the newest upper last."""
    found = fold([list(uppers.walk(upper)) for upper in changed], lambda path: children(base, path))
    view = files_of(base)
    for path, index in sorted(found.items()):
        place = changed[index] / path if index is not None else None
        view.pop(path, None)
        if place is None or not place.is_dir():
            view = {p: text for p, text in view.items() if not p.startswith(f"{path}/")}
        if place and place.is_file():
            view[path] = place.read_text()
    return view


@pytest.mark.parametrize(
    "steps",
    [
        [lambda root: write(root, "a", "n/new")],
        [lambda root: remove(root, "a", "d")],
        [lambda root: replace(root, "d", "d/e/new")],
        [lambda root: replace(root, "d", "d/e/f/new"), lambda root: write(root, "d/e/f/more")],
        [lambda root: remove(root, "d"), lambda root: write(root, "d/e/f/new")],
        [lambda root: replace(root, "d", "d/new"), lambda root: write(root, "d/e/f/new")],
        [lambda root: replace(root, "d/e", "d/e"), lambda root: replace(root, "d/e", "d/e/f/new")],
        [
            lambda root: write(root, "d/e/x"),
            lambda root: remove(root, "d"),
            lambda root: write(root, "d/e/y"),
        ],
        [lambda root: remove(root, "g/h"), lambda root: write(root, "g/h/deep")],
    ],
)
def test_a_fold_is_what_was_shown(disk: Path, steps: list[Callable[[Path], None]]):
    work = disk / f"case{next(numbers)}"
    base = work / "base"
    write(base, *BASE)
    for path in BASE:
        (base / path).write_text("base")
    changed: list[Path] = []
    for number, step in enumerate(steps):
        upper, scratch, view = (work / f"{name}{number}" for name in ("upper", "work", "view"))
        for directory in (upper, scratch, view):
            directory.mkdir()
        lower = ":".join(map(str, [*reversed(changed), base]))
        mounts.mount("overlay", view, "overlay", data=f"lowerdir={lower},upperdir={upper},workdir={scratch}")
        step(view)
        changed.append(upper)
    assert shown(base, changed) == files_of(view)
