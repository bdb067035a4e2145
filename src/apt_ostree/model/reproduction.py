"""How two builds of one thing differ: which paths, in what, and whose they are; and how that is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby, zip_longest
from typing import Any

from apt_ostree.model import layout
from apt_ostree.model.filestate import ABSENT, FileState

#: So many lines tell of paths; JSON has them all.
MOST_LINES = 20
_NOBODY = "no package"
_LONGEST_LINE = 48
_STEP = 1 << 16


class Aspect(StrEnum):
    """In what a path differs."""

    ABSENT = "absent"
    TYPE = "type"
    CONTENT = "content"
    MODE = "mode"
    OWNER = "owner"
    XATTR = "xattr"


@dataclass(frozen=True, slots=True)
class Difference:
    """A path that differs.

    path: absolute, as in the tree.
    aspects: in what; texts: each of them with both values, in words.
    packages: names of those that ship it; scripts, or the treefile, made what nobody ships.
    """

    path: str
    aspects: tuple[Aspect, ...]
    texts: tuple[str, ...]
    packages: tuple[str, ...] = ()

    @property
    def owner(self) -> str:
        """Return whose it is, for people."""
        return ", ".join(self.packages) or _NOBODY

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "path": self.path,
            "differs": list(self.aspects),
            "text": "; ".join(self.texts),
            "packages": list(self.packages),
        }


def compare(path: str, first: FileState, second: FileState, packages: Sequence[str] = ()) -> Difference:
    """Return how two states of a path, which are not the same, differ."""
    found = list(_compared(first, second))
    aspects, texts = (tuple(part) for part in zip(*found, strict=True)) if found else ((), ())
    return Difference(path, aspects, texts, tuple(sorted(packages)))


def _compared(first: FileState, second: FileState) -> Iterator[tuple[Aspect, str]]:
    if ABSENT in (first, second):
        yield Aspect.ABSENT, f"only in the {'second' if first == ABSENT else 'first'} build"
        return
    if first.type != second.type:
        yield Aspect.TYPE, f"a {first.type} and a {second.type}"
    elif first.content != second.content:
        yield Aspect.CONTENT, f"content, {_where(first.content, second.content)}"
    if first.mode != second.mode:
        yield Aspect.MODE, f"mode {first.mode:04o} and {second.mode:04o}"
    if (first.uid, first.gid) != (second.uid, second.gid):
        yield Aspect.OWNER, f"owner {first.uid}:{first.gid} and {second.uid}:{second.gid}"
    if first.xattrs != second.xattrs:
        names = sorted({name for name, _value in {*first.xattrs} ^ {*second.xattrs}})
        yield Aspect.XATTR, f"xattr {', '.join(names)}"


def _where(first: bytes, second: bytes) -> str:
    """Return where two contents begin to differ: at a line, if they are text, else at a byte."""
    if (len(first), len(second)) < (_STEP * 16, _STEP * 16) and _is_text(first) and _is_text(second):
        lines = (text.decode().splitlines() for text in (first, second))
        for number, (one, other) in enumerate(zip_longest(*lines), 1):
            if one != other:
                return f"line {number}: {_quoted(one)} and {_quoted(other)}"
    return f"from byte {first_difference(first, second)}"


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def _quoted(line: str | None) -> str:
    if line is None:
        return "none"
    return repr(line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}...")


def first_difference(first: bytes, second: bytes) -> int:
    """Return the first byte that differs; the length of the shorter one if the other begins with it."""
    shorter = min(len(first), len(second))
    for begin in range(0, shorter, _STEP):
        one, other = first[begin : begin + _STEP], second[begin : begin + _STEP]
        if one[: len(other)] != other[: len(one)]:
            return begin + next(n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return shorter


def shipped_as(path: str) -> tuple[str, ...]:
    """Return under which names dpkg may have a path of a tree; both are absolute."""
    for place, origin in (
        ("/usr/etc/", "/etc/"),
        (f"/{layout.FACTORY}/", "/"),
        (f"/{layout.OPT}/", "/opt/"),
    ):
        if path.startswith(place):
            return (path, f"{origin}{path.removeprefix(place)}")
    return (path,)


def lines(differences: Sequence[Difference], most: int = MOST_LINES) -> list[str]:
    """Return what is told to people, by package; at most so many paths, and how many more there are."""
    ordered = sorted(differences, key=lambda one: (not one.packages, one.owner, one.path))
    told: list[str] = []
    for owner, paths in groupby(ordered[:most], key=lambda one: one.owner):
        told.append(f"{owner}:")
        told += [f"  {one.path}: {'; '.join(one.texts)}" for one in paths]
    if (more := len(ordered) - most) > 0:
        told.append(f"and {more} more; --json has all of them")
    return told
