"""The state of one path."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Literal

Type = Literal["absent", "file", "symlink", "directory", "other"]


@dataclass(frozen=True, slots=True)
class FileState:
    """The state of a path.

    type: "absent" if there is none.
    mode: permission bits with setuid, setgid and sticky.
    content: the bytes of a file, or the target of a symlink.
    xattrs: (name, value) of each extended attribute, sorted by name.
    """

    type: Type
    mode: int = 0
    uid: int = 0
    gid: int = 0
    content: bytes = b""
    xattrs: tuple[tuple[str, bytes], ...] = ()


ABSENT = FileState("absent")


def pack(state: FileState) -> list[Any]:
    """Return a state as a JSON value."""
    xattrs = [[name, base64.b64encode(value).decode()] for name, value in state.xattrs]
    content = base64.b64encode(state.content).decode()
    return [state.type, state.mode, state.uid, state.gid, content, xattrs]


def unpack(value: Any) -> FileState:
    """Return the state of a JSON value; ValueError or TypeError if it is none."""
    kind, mode, uid, gid, content, xattrs = value
    pairs = ((name, base64.b64decode(data)) for name, data in xattrs)
    return FileState(kind, mode, uid, gid, base64.b64decode(content), tuple(pairs))
