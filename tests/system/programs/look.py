"""Prints everything that a live change may touch, as a JSON object.

What files in /usr are is remembered by the name of the repository object, which the directory tells without a
look at the file; that the object has this content and these attributes is what check_repository.py verifies.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import stat
import subprocess
from pathlib import Path

Row = list[int | str]

BASE, RECENT = Path("/var/lib/testbed/objects.json"), Path("/run/testbed-objects.json")
DATABASE = Path("/var/lib/apt-ostree/state.db")
MOUNTS = [line.split(" ") for line in Path("/proc/1/mountinfo").read_text().splitlines()]
MOUNT_POINTS = {fields[4] for fields in MOUNTS}


def read_rows() -> dict[str, Row]:
    rows = {}
    for path in (BASE, RECENT):
        if path.exists():
            rows |= json.loads(path.read_text())
    return rows


def read_objects() -> dict[int, str]:
    """Return the names of the repository's objects by their inodes."""
    return {
        entry.inode(): directory.name + entry.name
        for directory in os.scandir("/ostree/repo/objects")
        for entry in os.scandir(directory)
    }


def describe(path: str) -> Row:
    info = os.lstat(path)
    row = [stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid]
    if stat.S_ISLNK(info.st_mode):
        return [*row, os.readlink(path)]
    if not stat.S_ISREG(info.st_mode):
        return row
    return [*row, hashlib.sha256(Path(path).read_bytes()).hexdigest()]


def state() -> dict[str, Row]:
    """Return what is kept about live changes; what was refused is recorded, too."""
    return {path: row for path, row in tree("/var/lib/apt-ostree").items() if "/audit" not in path}


def tree(
    top: str, objects: dict[int, str] | None = None, remembered: dict[str, Row] | None = None
) -> dict[str, Row]:
    """Return a row for each path below a directory; those of objects of the repository are remembered."""
    objects, remembered = objects or {}, {} if remembered is None else remembered
    rows: dict[str, Row] = {}
    pending = [top] if os.path.isdir(top) else []
    while pending:
        for entry in os.scandir(pending.pop()):
            is_directory = entry.is_dir(follow_symlinks=False)
            if is_directory and entry.path in MOUNT_POINTS:
                continue
            name = objects.get(entry.inode())
            try:
                row = remembered[name] if name in remembered else describe(entry.path)
            except FileNotFoundError:
                continue
            rows[entry.path] = row
            if name:
                remembered[name] = row
            if is_directory:
                pending.append(entry.path)
    return rows


def mounts_of_usr() -> list[list[str]]:
    rows = []
    for fields in MOUNTS:
        if fields[4] == "/usr" or fields[4].startswith("/usr/"):
            kind, source = fields[fields.index("-") + 1 :][:2]
            rows.append([fields[3], fields[4], kind, re.sub("^/dev/loop.*", "/dev/loop", source)])
    return rows


def generations() -> list[list[object]]:
    if not DATABASE.exists():
        return []
    db = sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True)
    rows = [list(row) for row in db.execute("SELECT id, phase, target FROM generation ORDER BY id")]
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    return rows


def lines(*argv: str) -> list[str]:
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False).stdout.splitlines()


def main() -> None:
    objects, remembered = read_objects(), read_rows()
    before = len(remembered)
    etc, usr = tree("/etc"), tree("/usr", objects, remembered)
    if os.access("/usr", os.W_OK):  # unlocked: any Python program writes its caches there
        usr = {path: row for path, row in usr.items() if "/__pycache__" not in path}
    records = generations()
    if len(remembered) != before:
        (RECENT if BASE.exists() else BASE).write_text(json.dumps(remembered))
    units = lines("systemctl", "list-units", "--plain", "--no-legend", "--state=active", "fx-*")
    look = {
        "usr": hashlib.sha256(json.dumps(usr, sort_keys=True).encode()).hexdigest(),
        "etc": etc,
        "state": state(),
        "refs": sorted(lines("ostree", "refs")),
        "deployments": lines("ostree", "admin", "status"),
        "mounts": mounts_of_usr(),
        "records": records,
        "units": [line.split()[0] for line in units],
        "store": sorted(map(str, Path("/ostree/apt-ostree").glob("*/*"))),
    }
    print(json.dumps(look))


main()
