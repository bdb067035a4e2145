"""Prints, as a JSON object by unit, what its processes execute: path -> whether it is the file at that path.

Files are compared by content, and by nothing that the product uses.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

digests: dict[tuple[int, int], str] = {}


def digest(path: str) -> str:
    info = os.stat(path)
    inode = info.st_dev, info.st_ino
    if inode not in digests:
        with open(path, "rb") as file:
            digests[inode] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests[inode]


def unit_of(pid: str) -> str:
    """Return the unit of a process, or ""."""
    group = Path(f"/proc/{pid}/cgroup").read_text().rpartition("0::")[2]
    match = re.search(r"[^/\n]+\.(service|scope)", group)
    return match[0] if match else ""


def executed(pid: str) -> Iterator[tuple[str, bool]]:
    """Yield (path, whether the file at that path is what is mapped) for what a process may execute."""
    with open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            if len(fields) < 6 or "x" not in fields[1] or not fields[5].startswith("/"):
                continue
            path = fields[5].strip().removesuffix(" (deleted)")
            path = path if path.startswith("/usr/") else f"/usr{path}"
            begin, end = (f"{int(part, 16):x}" for part in fields[0].split("-"))
            try:
                same = digest(f"/proc/{pid}/map_files/{begin}-{end}") == digest(path)
            except FileNotFoundError:
                same = False
            yield path, same


def main() -> None:
    units: dict[str, dict[str, bool]] = {}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if not (unit := unit_of(pid)):
                continue
            for path, same in executed(pid):
                files = units.setdefault(unit, {})
                files[path] = files.get(path, True) and same
        except (FileNotFoundError, ProcessLookupError):
            pass
    print(json.dumps(units))


main()
