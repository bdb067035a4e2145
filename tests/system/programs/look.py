"""Prints everything that a live change may touch, as a JSON object.

Digests of files in /usr are remembered by the name of the repository object that a file is; that the object
has this content is what check_repository.py verifies.
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

BASE, RECENT = Path("/var/lib/testbed/digests.json"), Path("/run/testbed-digests.json")
DATABASE = Path("/var/lib/apt-ostree/state.db")
MOUNTS = [line.split(" ") for line in Path("/proc/1/mountinfo").read_text().splitlines()]
MOUNT_POINTS = {fields[4] for fields in MOUNTS}


def read_digests() -> dict[str, str]:
    digests = {}
    for path in (BASE, RECENT):
        if path.exists():
            digests |= json.loads(path.read_text())
    return digests


def read_objects() -> dict[int, str]:
    """Return the names of the repository's objects by their inodes."""
    return {
        entry.inode(): directory.name + entry.name
        for directory in os.scandir("/ostree/repo/objects")
        for entry in os.scandir(directory)
    }


def describe(path: str, objects: dict[int, str], digests: dict[str, str]) -> list[int | str]:
    info = os.lstat(path)
    row = [stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid]
    if stat.S_ISLNK(info.st_mode):
        return [*row, os.readlink(path)]
    if not stat.S_ISREG(info.st_mode):
        return row
    name = objects.get(info.st_ino) if path.startswith("/usr/") else None
    digest = digests.get(name) or hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if name:
        digests[name] = digest
    return [*row, digest]


def tree(top: str, objects: dict[int, str], digests: dict[str, str]) -> dict[str, list[int | str]]:
    rows = {}
    for where, directories, files in os.walk(top):
        directories[:] = [name for name in directories if f"{where}/{name}" not in MOUNT_POINTS]
        for name in directories + files:
            path = f"{where}/{name}"
            try:
                rows[path] = describe(path, objects, digests)
            except FileNotFoundError:
                pass
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
    objects, digests = read_objects(), read_digests()
    known = len(digests)
    etc, usr = tree("/etc", objects, digests), tree("/usr", objects, digests)
    if os.access("/usr", os.W_OK):  # unlocked: any Python program writes its caches there
        usr = {path: row for path, row in usr.items() if "/__pycache__" not in path}
    records = generations()
    if len(digests) != known:
        (RECENT if BASE.exists() else BASE).write_text(json.dumps(digests))
    units = lines("systemctl", "list-units", "--plain", "--no-legend", "--state=active", "fx-*")
    look = {
        "usr": hashlib.sha256(json.dumps(usr, sort_keys=True).encode()).hexdigest(),
        "etc": etc,
        "state": tree("/var/lib/apt-ostree", objects, digests),
        "refs": sorted(lines("ostree", "refs")),
        "deployments": lines("ostree", "admin", "status"),
        "mounts": mounts_of_usr(),
        "records": records,
        "units": [line.split()[0] for line in units],
        "store": sorted(map(str, Path("/ostree/apt-ostree").glob("*/*"))),
    }
    print(json.dumps(look))


main()
