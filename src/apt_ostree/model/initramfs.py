"""Whether an initramfs has to be made again, as what it holds was changed. Paths are relative to /usr."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

#: Files here decide what is in an initramfs (dracut.modules(7), dracut.conf(5), modprobe.d(5)).
_INPUTS = (
    "lib/dracut/",
    "lib/firmware/",
    "lib/modprobe.d/",
    "lib/apt-ostree/dracut-arguments",
    "etc/dracut.conf",
    "etc/modprobe.d/",
)

#: Packages that a note names.
_NAMES = 3


def contents(listing: str) -> frozenset[str]:
    """Return the paths in the output of lsinitrd(1), whose rows have the form of `ls -l`."""
    rows = (line.split(None, 8) for line in listing.splitlines() if line[:1] in "-ldcb")
    return frozenset(row[8].partition(" -> ")[0] for row in rows if len(row) == 9)


def outdated_by(kernel: str, changed: Iterable[str], held: Collection[str]) -> list[str]:
    """Return those of the changed paths that belong to the initramfs of a kernel, sorted.

    held: the paths that it contains, from its root.
    """
    modules = f"lib/modules/{kernel}/"
    return sorted(
        path
        for path in changed
        if path.startswith(_INPUTS)
        or f"usr/{path}" in held
        or (path.startswith(modules) and path.endswith((".ko", ".ko.xz", ".ko.zst")))
    )


def paths_text(paths: Sequence[str]) -> str:
    """Return which paths outdate an initramfs, for a message: the first one, and how many more."""
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"/usr/{paths[0]}{more}"


def plan_notes(
    kernels: Mapping[str, Collection[str]], new: Sequence[str], lists: Mapping[str, Collection[str]]
) -> tuple[str, ...]:
    """Return for which kernels a change of packages makes an initramfs, and why.

    What a new package brings is not known before it is unpacked.

    kernels: version of a present kernel -> the paths that its initramfs contains.
    new: names of packages with a new kernel.
    lists: name of a package that is changed or removed -> its present files.
    """
    if new:
        return tuple(f"made for the new kernel of {name}" for name in new)
    notes = []
    for kernel, held in sorted(kernels.items()):
        names = sorted(name for name, files in lists.items() if outdated_by(kernel, files, held))
        if names:
            more = f" and {len(names) - _NAMES} more packages" if len(names) > _NAMES else ""
            notes.append(f"made anew for {kernel}, as it holds files of {', '.join(names[:_NAMES])}{more}")
    return tuple(notes)
