"""Reads /proc/PID/mountinfo (proc(5)) into values. Parses text; never mounts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One line of mountinfo."""

    mount_id: int
    parent_id: int
    root: str
    target: str
    fstype: str
    source: str
    options: str  # per mount, then per file system, comma-separated
    super_options: str
    peers: tuple[int, ...] = ()  # the groups it shares mounts with or receives them from


def read(pid: int | str = "self") -> tuple[MountPoint, ...]:
    """Return the mounts of a process in the order the kernel lists them."""
    return parse(Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape"))


def parse(text: str) -> tuple[MountPoint, ...]:
    """Return the mounts that a mountinfo text lists."""
    found = []
    for line in text.splitlines():
        words, _, rest = line.partition(" - ")
        left, right = words.split(" "), rest.split(" ")
        found.append(
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
    return tuple(found)


def stack_at(mounts: tuple[MountPoint, ...], target: str) -> tuple[MountPoint, ...]:
    """Return the mounts at one path, the topmost (the visible one) last."""
    here = [entry for entry in mounts if entry.target == target]
    # A mount on top has the covered one as its parent; follow that chain, the list's order says nothing.
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


def _decode(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word)
