"""What a layer of an image may hold, and what of it becomes part of a tree.

A layer is a tar archive from somewhere else. Each of its members passes here before anything of it is used.
What could mean another path, another file or another tree to somebody is refused, rather than repaired.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from apt_ostree.model import layout, spdx
from apt_ostree.model.filestate import FileState

#: The root of a tree.
ROOT = "."
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MARK = ".wh."
_OPAQUE = ".wh..wh..opq"
#: What libostree would check out as a whiteout (system.ostree.layers).
_OSTREE_MARK = ".ostree-wh."
#: Directories of the root whose content is a machine's, or a container's while it runs.
_EMPTIED = frozenset({"dev", "proc", "run", "sys", "tmp", "var"})
#: Directories of the root in which nothing may be: what is there would take part in how ostree boots.
_RESERVED = frozenset({"boot", "sysroot"})
_DIRECTORIES = frozenset({*layout.TOP_DIRECTORIES, "etc", "usr"})
_OF_USR = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_LINKS: Mapping[str, str] = {**layout.TOP_LINKS, **{name: f"usr/{name}" for name in _OF_USR}}
_TOP = frozenset({*_DIRECTORIES, *_LINKS})

_MOST_MEMBERS = 1_000_000
_MOST_BYTES = 64 << 30
_LARGEST_FILE = 16 << 30
_MOST_TEXT = 256 << 20  # of names, targets and attributes, which are kept in memory
_LONGEST_NAME, _LONGEST_PATH, _DEEPEST = 255, 4000, 100
_LARGEST_ID = (1 << 32) - 2  # the one above it means "no change" to chown(2)
_MOST_XATTRS, _LARGEST_XATTR = 64, 64 << 10
_MOST_OF_MEMBER = 2 << 20  # half of the headers of a member that are read (system.tarreader)
#: Extended attributes that a tree can have: these names, or a namespace before the first dot.
_XATTRS = frozenset(
    {"security.capability", "security.selinux", "system.posix_acl_access", "system.posix_acl_default"}
)
#: What overlayfs and libostree would take as their own.
_FOREIGN_XATTRS = ("user.overlay.", "user.ostreemeta", "user.containers.", "user.rootlesscontainers")
_CAPABILITY_SIZES = (12, 20, 24)  # of the versions of struct vfs_cap_data

Kind = Literal["file", "directory", "symlink", "hard link", "sparse file", "device", "fifo", "other"]
_BITS: Mapping[str, int] = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK}


@dataclass(frozen=True, slots=True)
class Header:
    """A member of a layer, as its archive has it; bytes that are no UTF-8 are surrogates in the texts.

    size: of the content in bytes.
    target: of a link.
    xattrs: names and values.
    """

    path: str
    kind: Kind
    size: int = 0
    mode: int = 0
    uid: int = 0
    gid: int = 0
    target: str = ""
    xattrs: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """A member that becomes part of the tree.

    path: in the tree.
    state: without the content of a file; a hard link's is that of the path that it links to.
    link: the path in the tree of which it is a hard link, or "".
    """

    path: str
    state: FileState
    link: str = ""


class Unfit(ValueError):
    """A member is not accepted."""

    def __init__(self, path: str, reason: str) -> None:
        shown = path.encode("utf-8", "backslashreplace").decode()
        super().__init__(f"{shown!r} {reason}" if len(shown) < 200 else f"{shown[:200]!r}... {reason}")


class Screen:
    """Looks at the members of one layer, in their order.

    removed: paths in the tree that the layer takes away from those below.
    emptied: directories in the tree of which it shows nothing that is in the layers below.
    implied: directories in the tree that it has only because something is in them.
    """

    def __init__(self) -> None:
        self.removed: set[str] = set()
        self.emptied: set[str] = set()
        self.implied: set[str] = set()
        self._states: dict[str, FileState] = {}
        self._members = self._bytes = self._text = 0

    def take(self, header: Header) -> Kept | None:
        """Return what becomes of a member; None if it is no part of a tree. Raises Unfit."""
        self._count(header)
        path = _checked_path(header)
        parts = path.split("/")
        if (parts[0] in _EMPTIED and len(parts) > 1) or path == spdx.PATH:
            return None
        if parts[-1].startswith(_MARK):
            self._whiteout(header, path, parts)
            return None
        _require_place(header, parts)
        state = self._state(header, path)
        self._place(header, path, state)
        link = in_tree(header.target.removeprefix("./")) if header.kind == "hard link" else ""
        return Kept(in_tree(path), state, link)

    def finish(self) -> None:
        """Look at the layer as a whole. Raises Unfit."""
        if ROOT not in self._states:
            self.implied.add(ROOT)
        paths = {in_tree(path) for path in self._states} | self.implied
        if both := sorted(self.removed & paths):
            raise Unfit(both[0], "is in the layer, which also says that it is gone")

    def _count(self, header: Header) -> None:
        self._members += 1
        if self._members > _MOST_MEMBERS:
            raise Unfit(header.path, f"is one of more than {_MOST_MEMBERS} members")
        if not 0 <= header.size <= _LARGEST_FILE:
            raise Unfit(header.path, f"has a size of {header.size} bytes")
        self._bytes += header.size
        if self._bytes > _MOST_BYTES:
            raise Unfit(header.path, f"makes the layer larger than {_MOST_BYTES >> 30} GiB")
        attributes = sum(len(name) + len(value) for name, value in header.xattrs)
        text = len(header.path) + len(header.target) + attributes
        if text > _MOST_OF_MEMBER:
            raise Unfit(header.path, f"has names and attributes of more than {_MOST_OF_MEMBER >> 20} MiB")
        self._text += text
        if self._text > _MOST_TEXT:
            raise Unfit(header.path, f"makes names and attributes of more than {_MOST_TEXT >> 20} MiB")

    def _whiteout(self, header: Header, path: str, parts: list[str]) -> None:
        """Note what a layer takes away of those below it."""
        if header.kind != "file" or header.size:
            raise Unfit(header.path, "marks something as gone, but is no empty file")
        parent, name = "/".join(parts[:-1]), parts[-1]
        if name == _OPAQUE:
            if parent in ("", *_TOP):
                raise Unfit(header.path, f"would empty /{parent}")
            self._require_parents(header, parts)
            self.emptied.add(in_tree(parent))
            return
        gone = name.removeprefix(_MARK)
        if gone in ("", ".", "..") or gone.startswith(_MARK):
            raise Unfit(header.path, "is a mark that nobody knows")
        path = f"{parent}/{gone}" if parent else gone
        if path in _TOP or path == "usr/etc":
            raise Unfit(header.path, f"would remove /{path}")
        _require_place(header, path.split("/"))
        self._require_parents(header, parts)
        if in_tree(path) in self.removed:
            raise Unfit(header.path, "is there twice")
        self.removed.add(in_tree(path))

    def _state(self, header: Header, path: str) -> FileState:
        if header.kind not in _BITS and header.kind != "hard link":
            raise Unfit(
                header.path, f"is a {header.kind}" if header.kind != "other" else "is of no known type"
            )
        if header.kind != "file" and header.size:
            raise Unfit(header.path, f"is a {header.kind} with content")
        if header.kind == "hard link":
            return self._linked(header, path)
        if not (0 <= header.uid <= _LARGEST_ID and 0 <= header.gid <= _LARGEST_ID):
            raise Unfit(header.path, f"belongs to {header.uid}:{header.gid}")
        mode = header.mode & 0o7777
        if header.mode - mode not in (0, _BITS[header.kind]):
            raise Unfit(header.path, f"has the mode {header.mode:o}")
        xattrs = _checked_xattrs(header)
        owner = (header.uid, header.gid)
        if header.kind == "symlink":
            return FileState("symlink", 0o777, *owner, _checked_target(header, path), xattrs)
        return FileState("file" if header.kind == "file" else "directory", mode, *owner, b"", xattrs)

    def _linked(self, header: Header, path: str) -> FileState:
        """Return the state of what a hard link is a link to."""
        target = _checked_path(header, header.target, "links to a path that")
        if target == path:
            raise Unfit(header.path, "is a hard link to itself")
        state = self._states.get(target)
        if state is None:
            raise Unfit(header.path, f"is a hard link to {target!r}, which is not in the layer before it")
        if state.type == "directory":
            raise Unfit(header.path, f"is a hard link to the directory {target!r}")
        return state

    def _place(self, header: Header, path: str, state: FileState) -> None:
        before = self._states.get(path)
        if before is not None and (before.type, state.type) != ("directory", "directory"):
            raise Unfit(header.path, "is in the layer twice")
        if state.type != "directory" and in_tree(path) in self.implied:
            raise Unfit(header.path, f"is a {header.kind}, and something is below it")
        self.implied.update(self._require_parents(header, path.split("/")))
        self._states[path] = state
        self.implied.discard(in_tree(path))

    def _require_parents(self, header: Header, parts: list[str]) -> list[str]:
        """Return the directories in the tree that have to be above a path and were not in the layer."""
        missing = []
        for number in range(1, len(parts)):
            above = "/".join(parts[:number])
            state = self._states.get(above)
            if state is None:
                missing.append(in_tree(above))
            elif state.type != "directory":
                raise Unfit(header.path, f"is below {above!r}, which is no directory")
        if parts[0] == "etc" and len(parts) > 1:
            missing += [] if "usr" in self._states else ["usr"]
        return missing


def in_tree(path: str) -> str:
    """Return where a path of an image is in a tree, whose /usr/etc is the image's /etc."""
    return f"usr/{path}" if path == "etc" or path.startswith("etc/") else path


def _checked_path(header: Header, text: str | None = None, what: str = "") -> str:
    """Return a path in its shortest form. text: another one than the member's own; what: it is."""

    def refuse(reason: str) -> Unfit:
        return Unfit(header.path, f"{what} {reason}" if what else reason)

    path = header.path if text is None else text
    if not path:
        raise refuse("is empty")
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise refuse("is not UTF-8") from None
    if path.startswith("/"):
        raise refuse("is absolute")
    if len(encoded) > _LONGEST_PATH:
        raise refuse(f"has {len(encoded)} bytes")
    if _CONTROL.search(path):
        raise refuse("has a control character")
    parts = path.removeprefix("./").split("/") if path != ROOT else [ROOT]
    if ".." in parts:
        raise refuse("has '..' in it")
    if parts != [ROOT] and any(part in ("", ".") for part in parts):
        raise refuse("is not in its shortest form")
    if len(parts) > _DEEPEST:
        raise refuse(f"is {len(parts)} directories deep")
    if any(len(part.encode()) > _LONGEST_NAME for part in parts):
        raise refuse(f"has a name of more than {_LONGEST_NAME} bytes")
    if any(part.startswith(_OSTREE_MARK) for part in parts):
        raise refuse("has a name by which ostree marks what is gone")
    if any(part.startswith(_MARK) for part in (parts if text is not None else parts[:-1])):
        raise refuse("has a name in it that marks something as gone")
    return "/".join(parts)


def _require_place(header: Header, parts: list[str]) -> None:
    """Raise Unfit for what has no place in a tree, or in the form of the root that all trees have."""
    top = parts[0]
    if parts[:2] == ["usr", "etc"]:
        raise Unfit(header.path, "is in /usr/etc, which a tree has of the image's /etc")
    if len(parts) > 1:
        if top in _RESERVED:
            raise Unfit(header.path, f"is in /{top}, which has to be empty")
        if top in _LINKS:
            raise Unfit(header.path, f"is in /{top}, which has to be a link to {_LINKS[top]}")
        return
    if header.path.rpartition("/")[2].startswith(_MARK):
        return
    if top in _LINKS and (header.kind, header.target) != ("symlink", _LINKS[top]):
        raise Unfit(header.path, f"has to be a link to {_LINKS[top]}")
    if top not in _LINKS and header.kind != "directory":
        raise Unfit(header.path, f"is a {header.kind} in the root, where only directories can be")


def _checked_target(header: Header, path: str) -> bytes:
    try:
        target = header.target.encode()
    except UnicodeEncodeError:
        raise Unfit(header.path, "links to a path that is not UTF-8") from None
    if not 0 < len(target) <= _LONGEST_PATH:
        raise Unfit(header.path, f"is a link to a path of {len(target)} bytes")
    if _CONTROL.search(header.target):
        raise Unfit(header.path, "links to a path with a control character")
    depth = 0 if header.target.startswith("/") else path.count("/")
    for part in header.target.split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
        if depth < 0:
            raise Unfit(header.path, f"is a link that leaves the tree: {header.target!r}")
    return target


def _checked_xattrs(header: Header) -> tuple[tuple[str, bytes], ...]:
    if len(header.xattrs) > _MOST_XATTRS:
        raise Unfit(header.path, f"has {len(header.xattrs)} extended attributes")
    for name, value in header.xattrs:
        is_of_user = name.startswith("user.") and not name.startswith(_FOREIGN_XATTRS)
        is_text = name.isascii() and name.isprintable() and "=" not in name  # which ends a name in an archive
        if not (is_of_user or name in _XATTRS) or not is_text:
            raise Unfit(header.path, f"has the extended attribute {name!r}")
        if len(name) > _LONGEST_NAME or name == "user.":
            raise Unfit(header.path, "has an extended attribute without a name that is possible")
        if len(value) > _LARGEST_XATTR:
            raise Unfit(header.path, f"has {len(value)} bytes in the extended attribute {name}")
    names = [name for name, _value in header.xattrs]
    if len(set(names)) != len(names):
        raise Unfit(header.path, "has an extended attribute twice")
    for name, value in header.xattrs:
        if name == "security.capability" and (header.kind != "file" or len(value) not in _CAPABILITY_SIZES):
            raise Unfit(header.path, "has capabilities that are none")
    return tuple(sorted(header.xattrs))
