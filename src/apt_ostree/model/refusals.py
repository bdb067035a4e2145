"""Why a live change is refused: reasons from facts about the running system, without asking it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePath

from apt_ostree.model.sizes import Space, show_size
from apt_ostree.model.treediff import Kind, PathChange

#: What a live change may need beside the packages: the journal, pre-images, directories of the layer.
_HEADROOM, _BYTES_EACH, _INODES = 4_000_000, 200, 200


def mount_refusals(changes: Iterable[PathChange], mounted: Iterable[str], usr: str) -> tuple[str, ...]:
    """Refuse to remove what something is mounted on; mounted: mount points below /usr, which is `usr`."""
    going = {f"{usr}/{change.path}" for change in changes if change.kind is Kind.REMOVED}
    return tuple(
        f"{target} is a mount point, and the new tree has no such path; unmount it first"
        for target in mounted
        if going.intersection({target, *map(str, PurePath(target).parents)})
    )


def space_refusals(free: Mapping[str, Space], changes: Collection[PathChange]) -> tuple[str, ...]:
    """Refuse what would run out of space half-way; a layer is hardlinks, so that little is needed.

    free: place -> what its file system has.
    """
    reasons = []
    needed, inodes = _HEADROOM + _BYTES_EACH * len(changes), _INODES + len(changes)
    for place, space in free.items():
        if space.available < needed:
            reasons.append(
                f"the file system of {place} has {show_size(space.available)} free;"
                f" {show_size(needed)} may be needed"
            )
        elif space.inodes is not None and space.inodes < inodes:
            reasons.append(
                f"the file system of {place} has {space.inodes} inodes free; {inodes} may be needed"
            )
    return tuple(reasons)
