"""What is in a root directory: which paths changed since a moment, and what a tree could not hold."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from apt_ostree.system import files, mountinfo

#: Path relative to the root -> inode and time of the last change of content or metadata, in nanoseconds.
Moment = Mapping[str, tuple[int, int]]

_KINDS = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _walk(root: Path, top: str = "", apart: Collection[str] = ()) -> Iterator[tuple[str, os.stat_result]]:
    """Yield each path below a directory, relative to the root, sorted within its directory.

    apart: paths that are left out, with all below them.
    """
    todo = [top]
    while todo:
        directory = todo.pop()
        with os.scandir(root / directory) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            path = f"{directory}/{entry.name}" if directory else entry.name
            if path in apart:
                continue
            info = entry.stat(follow_symlinks=False)
            yield path, info
            if stat.S_ISDIR(info.st_mode):
                todo.append(path)


def mounted_below(root: Path) -> frozenset[str]:
    """Return the mount points below a root directory, relative to it; in a container, no image has them."""
    real = root.resolve()
    try:
        targets = [Path(entry.target) for entry in mountinfo.read()]
    except FileNotFoundError:  # not even /proc is mounted
        return frozenset()
    return frozenset(str(target.relative_to(real)) for target in targets if real in target.parents)


def of_image(root: Path, top: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield each path below a directory of an image, without what is mounted there; none if it is missing."""
    mounted = mounted_below(root)
    above = [root / top, *(root / top).parents[: top.count("/")]] if top else [root]
    is_below = top == "" or not any(path.is_symlink() for path in above)  # else it may be anywhere
    if (root / top).is_dir() and is_below and top not in mounted:
        yield from _walk(root, top, mounted)


def take(root: Path) -> Moment:
    """Return the present moment of a root directory, for `changed`."""
    return {path: (info.st_ino, info.st_ctime_ns) for path, info in _walk(root)}


def changed(root: Path, since: Moment) -> frozenset[str]:
    """Return the paths that are new, changed or gone."""
    now = take(root)
    return frozenset(path for path in now.keys() | since.keys() if now.get(path) != since.get(path))


def digest_of(root: Path, paths: Collection[str]) -> str:
    """Return a digest of the states of paths: kind, mode, owner, extended attributes and content."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        state = files.read_state(root / path)
        digest.update(
            repr(
                (path, state.type, state.mode, state.uid, state.gid, state.xattrs, len(state.content))
            ).encode(errors="surrogateescape")
        )
        digest.update(state.content)
    return digest.hexdigest()


def fingerprint(root: Path, leave_out: Collection[str] = ()) -> str:
    """Return a digest of kinds, modes, owners, sizes, links and times of all paths, without the contents.

    leave_out: paths relative to the root.
    """
    digest = hashlib.sha256()
    for path, info in _walk(root):
        if path in leave_out:
            continue
        is_directory = stat.S_ISDIR(info.st_mode)
        link = str((root / path).readlink()) if stat.S_ISLNK(info.st_mode) else ""
        times = () if is_directory else (info.st_size, info.st_mtime_ns)
        row = (path, info.st_mode, info.st_uid, info.st_gid, link, *times)
        digest.update(repr(row).encode(errors="surrogateescape"))
    return digest.hexdigest()


def special_files(root: Path) -> list[str]:
    """Return a text for each path that is neither a directory nor a file nor a link."""
    found = ((path, _KINDS.get(stat.S_IFMT(info.st_mode))) for path, info in _walk(root))
    return [f"/{path} is {kind}" for path, kind in found if kind]


def owned_by_others(root: Path, users: Collection[int], groups: Collection[int]) -> list[str]:
    """Return a text for each path whose owner or group is none of these ids."""
    return [
        f"/{path} belongs to {info.st_uid}:{info.st_gid}"
        for path, info in of_image(root)
        if info.st_uid not in users or info.st_gid not in groups
    ]
