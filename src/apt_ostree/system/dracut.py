"""dracut(8): the command line that makes an initramfs which mounts an OSTree deployment.

dracut runs inside the tree whose kernel it serves, so this module only knows its command line.
"""

from __future__ import annotations

from collections.abc import Sequence

from apt_ostree.model.treefile import Dracut

#: One image for every machine, the same bytes at every build, and the module that switches root.
#: dracut's own zstd runs at level 15 on all cores: three times slower, twice the memory, and half a percent
#: smaller.
_ALWAYS = ("--force", "--no-hostonly", "--reproducible", "--compress", "zstd -12 -q -T1", "--add", "ostree")

#: dracut gives what is newer than this file of its own the time of this file (--reproducible).
CLOCK = "usr/lib/dracut/dracut-functions.sh"


def argv(kernel: str, output: str, *, scratch: str, arguments: Sequence[str] = ()) -> list[str]:
    """Return the command line for a kernel version.

    output, scratch: the image and a directory for temporary files, by the paths that dracut sees.
    """
    return ["dracut", *_ALWAYS, *arguments, "--tmpdir", scratch, "--kver", kernel, output]


def list_argv(image: str, output: str) -> list[str]:
    """Return the command line that writes a listing of an image to a file (lsinitrd(1))."""
    return ["sh", "-c", 'lsinitrd "$1" >"$2"', "sh", image, output]


def arguments_of(dracut: Dracut) -> tuple[str, ...]:
    """Return the arguments for a treefile's `dracut` section."""
    arguments: list[str] = []
    if dracut.add_modules:
        arguments += ["--add", " ".join(dracut.add_modules)]
    if dracut.omit_modules:
        arguments += ["--omit", " ".join(dracut.omit_modules)]
    return (*arguments, *dracut.arguments)
