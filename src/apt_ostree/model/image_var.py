"""The /var of an image: the directories and links that a machine makes at boot. Pure values.

apt and dpkg need them in a container, where nothing makes them, and files are only what machines are given
later (model.seeds). Importers leave out what is below /var, so that it is no part of a commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from apt_ostree.model import accounts, tmpfiles
from apt_ostree.model.filestate import FileState
from apt_ostree.model.tmpfiles import Entry

TOP = "var"
#: Path relative to the root -> its state.
Paths = Mapping[str, FileState]
_MODE = 0o755
#: Types of lines that make directories and links (tmpfiles.d(5)).
_DIRECTORIES, _LINK = "dDvqQ", "L"
#: Signs behind a type that do not change what is made at the first boot.
_SIGNS = "+-=~^$?"
#: Fields of an entry that are not set, or say that they count for what is created.
_UNSET, _PREFIXES = ("", "-"), ":~"
#: systemd knows it by itself.
_ROOT = {"root": 0}


def paths(texts: Iterable[str], passwd: str, group: str) -> dict[str, FileState]:
    """Return the paths below /var, relative to the root, parents first.

    texts: of the files of tmpfiles.d, in the order of their names; the first line for a path counts.
    passwd, group: passwd(5) and group(5) of the tree.
    """
    users = _ROOT | {user.name: user.uid for user in accounts.parse_passwd(passwd)}
    groups = _ROOT | {entry.name: entry.gid for entry in accounts.parse_group(group)}
    made: dict[str, FileState] = {}
    for entry in (entry for text in texts for entry in tmpfiles.entries(text)):
        path = entry.path.removeprefix("/")
        state = _state(entry, users, groups) if path.startswith(f"{TOP}/") else None
        if state:
            made.setdefault(path, state)
    parents = {str(parent) for path in made for parent in PurePosixPath(path).parents} - {".", TOP}
    whole = {path: made.get(path, FileState("directory", _MODE)) for path in sorted({*made, *parents})}
    links = tuple(f"{path}/" for path, state in whole.items() if state.type == "symlink")
    return {path: state for path, state in whole.items() if not path.startswith(links)}


def _state(entry: Entry, users: Mapping[str, int], groups: Mapping[str, int]) -> FileState | None:
    """Return what a line makes; None if that is something else, or is not known."""
    kind = entry.type.rstrip(_SIGNS)
    if kind == _LINK and entry.argument:
        return FileState("symlink", 0o777, content=entry.argument.encode(errors="surrogateescape"))
    uid, gid = _id(entry.user, users), _id(entry.group, groups)
    if kind == "" or kind not in _DIRECTORIES or uid is None or gid is None:
        return None
    mode = (entry.mode or "").lstrip(_PREFIXES)
    return FileState("directory", _MODE if mode in _UNSET else int(mode, 8), uid, gid)


def _id(text: str | None, ids: Mapping[str, int]) -> int | None:
    name = (text or "").lstrip(_PREFIXES)
    if name in _UNSET:
        return 0
    return int(name) if name.isdecimal() else ids.get(name)
