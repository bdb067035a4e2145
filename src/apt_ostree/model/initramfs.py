"""Whether an initramfs has to be made again, as what it holds was changed. Paths are relative to /usr."""

from __future__ import annotations

from collections.abc import Collection, Iterable

#: Files here decide what is in an initramfs (dracut.modules(7), dracut.conf(5), modprobe.d(5)).
_INPUTS = (
    "lib/dracut/",
    "lib/firmware/",
    "lib/modprobe.d/",
    "lib/apt-ostree/dracut-arguments",
    "etc/dracut.conf",
    "etc/modprobe.d/",
)


def contents(listing: str) -> frozenset[str]:
    """Return the paths in the output of lsinitrd(1), whose rows have the form of `ls -l`."""
    rows = (line.split(None, 8) for line in listing.splitlines() if line[:1] in "-ldcb")
    return frozenset(row[8].partition(" -> ")[0] for row in rows if len(row) == 9)


def is_outdated(kernel: str, changed: Iterable[str], held: Collection[str]) -> bool:
    """Return whether one of the changed paths belongs to the initramfs of a kernel.

    held: the paths that it contains, from its root.
    """
    modules = f"lib/modules/{kernel}/"
    return any(
        path.startswith(_INPUTS)
        or f"usr/{path}" in held
        or (path.startswith(modules) and path.endswith((".ko", ".ko.xz", ".ko.zst")))
        for path in changed
    )
