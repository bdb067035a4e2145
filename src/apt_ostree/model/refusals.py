"""Reasons to refuse a live change, from facts about the running system."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePath

from apt_ostree.model import layout
from apt_ostree.model.filestate import FileState
from apt_ostree.model.sizes import Space, show_size
from apt_ostree.model.treediff import Kind, PathChange

#: Space that a live change may need in addition to packages, for the journal, pre-images and directories of
#: the layer: bytes, bytes per path, and inodes.
_HEADROOM, _BYTES_EACH, _INODES = 4_000_000, 200, 200


def mount_refusals(changes: Iterable[PathChange], mounted: Iterable[str], usr: str) -> tuple[str, ...]:
    """Return a reason for each mount point that the change would remove.

    mounted: mount points below /usr.
    usr: the path of /usr.
    """
    removed = {f"{usr}/{change.path}" for change in changes if change.kind is Kind.REMOVED}
    return tuple(
        f"{target} is a mount point, and the new tree has no such path; unmount it first"
        for target in mounted
        if removed.intersection({target, *map(str, PurePath(target).parents)})
    )


def opt_refusals(places: Mapping[str, FileState]) -> tuple[str, ...]:
    """Return a reason for each of the packages' directories in /opt in whose place something else is.

    places: name of the directory -> what is in the place of the link to it.
    """
    return tuple(
        f"a package has its files in /opt/{name}, but something else is there; move it away"
        for name, state in places.items()
        if state.type != "absent" and state.content != layout.opt_link(name).encode()
    )


def space_refusals(
    free: Mapping[str, Space], changes: Collection[PathChange], *, removal: bool = False
) -> tuple[str, ...]:
    """Return a reason for each file system with too little space; a layer needs little, as it has hardlinks.

    free: path -> free space of its file system.
    removal: whether packages are only removed, for which there is also what is reserved for root.
    """
    reasons = []
    needed, inodes = _HEADROOM + _BYTES_EACH * len(changes), _INODES + len(changes)
    for place, space in free.items():
        unused = space.for_root if removal else space.available
        if unused < needed:
            reasons.append(
                f"the file system of {place} has {show_size(unused)} free; {show_size(needed)} may be needed"
            )
        elif space.inodes is not None and space.inodes < inodes:
            reasons.append(
                f"the file system of {place} has {space.inodes} inodes free; {inodes} may be needed"
            )
    return tuple(reasons)
