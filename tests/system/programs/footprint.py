"""Prints what a machine uses, as a JSON object: space, mounts, refs, objects, layers, records, memory.

What logs and the records of operations take is left out: journald and apt-ostree keep theirs to a size.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
from pathlib import Path

REPO, STATE = Path("/ostree/repo"), Path("/var/lib/apt-ostree")
TABLES = ("generation", "etc", "unit", "transition", "overlay", "removed_by_admin", "note")


def size_below(top: str) -> int:
    """Return the bytes on the disk of all files and directories below a path."""
    done = subprocess.run(["du", "-s", "--block-size=1", top], stdout=subprocess.PIPE, text=True, check=False)
    return int(done.stdout.split()[0]) if done.stdout else 0


def count(top: Path, pattern: str) -> int:
    return sum(1 for _ in top.glob(pattern))


def records() -> dict[str, int]:
    if not (STATE / "state.db").exists():
        return {}
    with contextlib.closing(sqlite3.connect(f"file:{STATE}/state.db?mode=ro", uri=True)) as db:
        return {
            f"rows of {name}": db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in TABLES
        }


def memory(name: str) -> int:
    """Return the resident memory in bytes of the oldest process of this name."""
    pid = subprocess.run(
        ["pgrep", "-o", "-x", name], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("VmRSS:"))


subprocess.run(["sync"], check=True)
disk = os.statvfs("/sysroot")
logs = sum(map(size_below, ("/var/log", "/var/cache", f"{STATE}/audit")))
print(
    json.dumps(
        {
            "bytes": (disk.f_blocks - disk.f_bfree) * disk.f_frsize - logs,
            "database": size_below(f"{STATE}/state.db"),
            "inodes": disk.f_files - disk.f_ffree,
            "mounts": len(Path("/proc/1/mountinfo").read_text().splitlines()),
            "refs": count(REPO, "refs/**/*"),
            "objects": count(REPO, "objects/*/*"),
            "layers": count(Path("/ostree/apt-ostree"), "layers/*"),
            "uppers": count(Path("/ostree/apt-ostree"), "uppers/*"),
            "state": count(STATE, "**/*"),
            "run": count(Path("/run/ostree"), "**/*"),
            "memory of systemd": memory("systemd"),
            "memory of dbus": memory("dbus-daemon"),
            **records(),
        }
    )
)
