"""Made-up trees, as commits, as directories and as overlays that are really mounted."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from pathlib import Path

from hypothesis import strategies as st

from apt_ostree.system import mounts, usrview
from apt_ostree.system.ostree import commit
from apt_ostree.system.ostree.repo import Repo

numbers = itertools.count()

#: ("file", mode, uid, text) | ("link", target) | ("dir", mode, uid, entries)
NAMES = st.sampled_from(["a", "b", "c", "läng lich"])
FILES = st.tuples(
    st.just("file"),
    st.sampled_from([0o644, 0o755, 0o4755, 0o600]),
    st.sampled_from([0, 7]),
    st.sampled_from(["", "1", "2"]),
)
LINKS = st.tuples(st.just("link"), st.sampled_from(["a", "../b", "/nowhere"]))
MODES = st.sampled_from([0o755, 0o700, 0o2775, 0o1777])


def directories(child):
    return st.tuples(
        st.just("dir"), MODES, st.sampled_from([0, 7]), st.dictionaries(NAMES, child, max_size=4)
    )


ENTRIES = st.recursive(FILES | LINKS, directories, max_leaves=10)
TREES = directories(ENTRIES)


def build(entry, path: Path) -> None:
    match entry:
        case ("file", mode, uid, text):
            path.write_text(text)
            os.chown(path, uid, uid)
            path.chmod(mode)
        case ("link", target):
            path.symlink_to(target)
        case ("dir", mode, uid, entries):
            path.mkdir()
            for name, child in entries.items():
                build(child, path / name)
            os.chown(path, uid, uid)
            path.chmod(mode)


def describe(top: Path) -> dict[str, tuple]:
    found = {}
    for path in [top, *sorted(top.rglob("*"))]:
        info = path.lstat()
        row = (stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)
        if path.is_symlink():
            row += (os.readlink(path),)
        elif path.is_file():
            row += (path.read_bytes(),)
        found[str(path.relative_to(top))] = row
    return found


def new_case(disk: Path, *trees) -> tuple[Path, Repo, list[str]]:
    """Make a directory with a repository in it; return both, and a commit for each tree."""
    work = disk / f"case{next(numbers)}"
    work.mkdir()
    commits = [write_commit(work / "repo", tree, work) for tree in trees]
    return work, Repo.open(work / "repo"), commits


def write_commit(repo: Path, tree, work: Path) -> str:
    root = work / f"tree{next(numbers)}"
    root.mkdir()
    build(tree, root / "usr")
    written = commit.commit_directory(
        repo, root, "test", subject="x", timestamp=0, metadata={}, keep_parent=False
    )
    shutil.rmtree(root, ignore_errors=True)
    return written.checksum


def mounted(lowers: list[Path], work: Path, upper: tuple[str, str] | None = None) -> Path:
    target, scratch = work / "merged", work / "scratch"
    for path in (target, scratch):
        path.mkdir()
    overlay = mounts.new_overlay_mount(
        [str(lower) for lower in lowers], source="test", scratch=scratch, upper=upper,
        options=usrview._OPTIONS, read_only=upper is None,
    )  # fmt: skip
    mounts.attach(overlay, target)
    os.close(overlay)
    return target
