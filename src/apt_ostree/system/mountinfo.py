"""Reads /proc/PID/mountinfo (proc(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One line of mountinfo, see proc(5).

    root: the mounted directory of the file system.
    target: the mount point.
    options: of the mount, comma-separated.
    super_options: of the file system, comma-separated.
    peers: the peer groups that it is a member or a slave of.
    """

    mount_id: int
    parent_id: int
    root: str
    target: str
    fstype: str
    source: str
    options: str
    super_options: str
    peers: tuple[int, ...] = ()


def read(pid: int | str = "self") -> tuple[MountPoint, ...]:
    """Return the mounts of a process, in the order of the kernel's list."""
    return parse(Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape"))


def parse(text: str) -> tuple[MountPoint, ...]:
    """Return the mounts that a mountinfo text lists."""
    mounts = []
    for line in text.splitlines():
        mount_part, _, rest = line.partition(" - ")
        left, right = mount_part.split(" "), rest.split(" ")
        mounts.append(
            MountPoint(
                int(left[0]),
                int(left[1]),
                _decode(left[3]),
                _decode(left[4]),
                right[0],
                _decode(right[1]),
                left[5],
                right[2] if len(right) > 2 else "",
                tuple(int(w.partition(":")[2]) for w in left[6:] if w.startswith(("shared:", "master:"))),
            )
        )
    return tuple(mounts)


def stack_at(mounts: tuple[MountPoint, ...], target: str) -> tuple[MountPoint, ...]:
    """Return the mounts at one path, the topmost, which is the visible one, last."""
    here = [entry for entry in mounts if entry.target == target]
    # A mount on top has the covered one as its parent. The order of the list means nothing.
    by_parent = {entry.parent_id: entry for entry in here}
    ids = {entry.mount_id for entry in here}
    bottom = next((entry for entry in here if entry.parent_id not in ids), None)
    chain: list[MountPoint] = []
    while bottom is not None:
        chain.append(bottom)
        bottom = by_parent.get(bottom.mount_id)
    return tuple(chain)


def below(mounts: tuple[MountPoint, ...], target: str) -> tuple[MountPoint, ...]:
    """Return the visible mounts on directories inside the topmost mount at `target`."""
    top = stack_at(mounts, target)
    if not top:
        return ()
    prefix = target.rstrip("/") + "/"
    return tuple(e for e in mounts if e.parent_id == top[-1].mount_id and e.target.startswith(prefix))


def _decode(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
