"""dracut(8): the command that makes an initramfs which finds and mounts an OSTree deployment.

dracut runs inside the tree whose kernel it serves, so this module only knows its command line.
"""

from __future__ import annotations

from collections.abc import Sequence

from apt_ostree.model.treefile import Dracut

#: One image for every machine, the same bytes at every build, and the module that does the pivot. dracut's
#: own zstd runs at level 15 on all cores: three times slower, twice the memory, and half a percent smaller.
_ALWAYS = ("--force", "--no-hostonly", "--reproducible", "--compress", "zstd -12 -q -T1", "--add", "ostree")


def argv(kernel: str, output: str, *, scratch: str, arguments: Sequence[str] = ()) -> list[str]:
    """Return the command for a kernel version; output and scratch are paths as dracut sees them."""
    return ["dracut", *_ALWAYS, *arguments, "--tmpdir", scratch, "--kver", kernel, output]


def arguments_of(dracut: Dracut) -> tuple[str, ...]:
    """Return the arguments that a treefile's `dracut` section stands for."""
    found: list[str] = []
    if dracut.add_modules:
        found += ["--add", " ".join(dracut.add_modules)]
    if dracut.omit_modules:
        found += ["--omit", " ".join(dracut.omit_modules)]
    return (*found, *dracut.arguments)
