"""Verifies the repository as `ostree fsck` does, in a tenth of the time, and prints nothing.

Of objects, those that are new or changed since the first time are verified. A write through a hardlink
changes the time of the object, and other owners, modes and attributes are seen; only a time that was set back
would not be. With the argument "whole", all that a ref needs has to be there, too. Fails with the first that
is wrong.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import gi

gi.require_version("OSTree", "1.0")
from gi.repository import Gio, OSTree  # noqa: E402

OBJECTS, VERIFIED = "/ostree/repo/objects", Path("/var/lib/testbed/verified.json")
KINDS = {
    "commit": OSTree.ObjectType.COMMIT,
    "dirtree": OSTree.ObjectType.DIR_TREE,
    "dirmeta": OSTree.ObjectType.DIR_META,
    "file": OSTree.ObjectType.FILE,
}


def objects() -> Iterator[tuple[str, str]]:
    """Give the name of each object, as CHECKSUM.KIND, and what a change of it would change."""
    for directory in os.scandir(OBJECTS):
        for entry in os.scandir(directory):
            info = entry.stat(follow_symlinks=False)
            names = os.listxattr(entry.path, follow_symlinks=False)
            attributes = [
                (name, os.getxattr(entry.path, name, follow_symlinks=False)) for name in sorted(names)
            ]
            about = (info.st_mode, info.st_uid, info.st_gid, info.st_size, info.st_mtime_ns, attributes)
            yield directory.name + entry.name, str(about)


verified = json.loads(VERIFIED.read_text()) if VERIFIED.exists() else {}
repo = OSTree.Repo.new(Gio.File.new_for_path("/ostree/repo"))
repo.open(None)
seen = dict(objects())
for name, about in seen.items():
    stem, _, kind = name.partition(".")
    if kind in KINDS and verified.get(name) != about:
        repo.fsck_object(KINDS[kind], stem, None)
if "whole" in sys.argv[1:]:
    for ref, commit in repo.list_refs(None, None)[1].items():
        for one in repo.traverse_commit(commit, 0, None)[1]:
            name = OSTree.object_to_string(*OSTree.object_name_deserialize(one))
            assert name in seen, f"{ref} has no {name}"
if not verified:
    VERIFIED.parent.mkdir(parents=True, exist_ok=True)  # of a disk that was composed
    VERIFIED.write_text(json.dumps(seen))
