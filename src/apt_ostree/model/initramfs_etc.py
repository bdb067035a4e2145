"""Which paths of /etc are also in the initramfs, with what the machine has in them."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence

from apt_ostree.errors import UsageError
from apt_ostree.model.cpio import LARGEST
from apt_ostree.model.filestate import FileState

_TOP = "/etc/"
#: Characters that would need an escape in an origin file.
_UNWRITABLE = frozenset(";\\")

#: A path from the root and its state.
Entry = tuple[str, FileState]


def path_of(given: str) -> str:
    """Return a path below /etc without what it does not need; UsageError if it is none."""
    if ".." in given.split("/"):
        raise UsageError(f"{given!r}: the path must not contain '..'")
    path = posixpath.normpath(given)
    if not path.startswith(_TOP):
        raise UsageError(f"{given!r} is not below /etc", hint="give the absolute path of a file below /etc")
    if not path.isprintable() or _UNWRITABLE & set(path):
        raise UsageError(f"{given!r}: the path must consist of printable characters other than ';' and '\\'")
    return path


def tracked_after(
    tracked: Sequence[str], *, track: Iterable[str], untrack: Iterable[str], untrack_all: bool
) -> tuple[str, ...]:
    """Return the tracked paths after a change, sorted; what is to be tracked is, also with `untrack_all`.

    UsageError names a path that is not below /etc.
    """
    kept = set() if untrack_all else {*tracked} - {*map(path_of, untrack)}
    return tuple(sorted(kept | {*map(path_of, track)}))


def parents(path: str) -> tuple[str, ...]:
    """Return the directories above a path, the highest first."""
    parts = path.strip("/").split("/")[:-1]
    return tuple("/" + "/".join(parts[:count]) for count in range(1, len(parts) + 1))


def reasons_against(
    path: str, state_of: Callable[[str], FileState], below: Callable[[str], Iterable[Entry]]
) -> Iterator[str]:
    """Yield why a path cannot be in an initramfs.

    state_of: returns the state of a path.
    below: returns the paths below a directory.
    """
    for parent in parents(path):
        if state_of(parent).type == "symlink":
            yield f"{parent} is a symlink; give the path that it leads to"
            return
    state = state_of(path)
    if state.type == "absent":
        yield f"{path} does not exist"
        return
    for name, found in ((path, state), *(below(path) if state.type == "directory" else ())):
        if found.type == "other":
            yield f"{name} is no file, directory or symlink"
        elif len(found.content) > LARGEST:
            yield f"{name} is too large"
