"""Damages one object of the repository: KIND HOW WHOSE PATH. Prints nothing.

KIND is commit, dirtree, dirmeta or file; HOW is missing, empty or flipped (one bit); WHOSE is a ref, or
"view" for the commit that is shown; PATH is where in that commit the object stands. /sysroot has to be
writable.
"""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import gi

gi.require_version("OSTree", "1.0")
from gi.repository import Gio, OSTree  # noqa: E402

kind, how, whose, where = sys.argv[1:]
repo = OSTree.Repo.new(Gio.File.new_for_path("/ostree/repo"))
repo.open(None)
if whose == "view":
    db = sqlite3.connect("file:/var/lib/apt-ostree/state.db?mode=ro", uri=True)
    commit = db.execute("SELECT target FROM generation ORDER BY id DESC").fetchone()[0]
else:
    commit = repo.resolve_rev(whose, False)[1]
file = repo.read_commit(commit, None)[1].resolve_relative_path(where)
file.ensure_resolved()
checksum = {
    "commit": lambda: commit,
    "dirtree": file.tree_get_contents_checksum,
    "dirmeta": file.tree_get_metadata_checksum,
    "file": file.get_checksum,
}[kind]()
path = Path(f"/sysroot/ostree/repo/objects/{checksum[:2]}/{checksum[2:]}.{kind}")
if how == "missing":
    path.unlink()
elif how == "empty":
    path.write_bytes(b"")
else:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with path.open("r+b") as stream:
        stream.write(data)
