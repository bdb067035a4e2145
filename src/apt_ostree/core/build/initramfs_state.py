"""What an initramfs was made of: a digest beside it tells whether it has to be made again.

The rule is that of model.initramfs. The digest serves where nobody knows which paths have changed: in a
container that is derived from an image.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from apt_ostree.model import initramfs, layout
from apt_ostree.system import files, rootstate


def write(root: Path, kernel: str) -> None:
    """Write the digest of what the initramfs of a kernel was made of, which has just been made."""
    files.write_text(_file(root, kernel, layout.INITRAMFS_INPUTS), f"{_digest(root, kernel)}\n")


def is_current(root: Path, kernel: str) -> bool:
    """Return whether all that the initramfs of a kernel was made of is as it was then."""
    text = files.text_of(_file(root, kernel, layout.INITRAMFS_INPUTS))
    return text == f"{_digest(root, kernel)}\n"


def lacking_programs(root: Path) -> list[str]:
    """Return the paths of programs without which dracut leaves out one of its modules, relative to /usr."""
    lacking = (
        places
        for places in _required_programs(root)
        if not any((root / "usr" / place).exists() for place in places)
    )
    return sorted({place for places in lacking for place in places})


def _required_programs(root: Path) -> Iterator[tuple[str, ...]]:
    for setup in (root / layout.DRACUT_MODULES).glob("*/module-setup.sh"):
        yield from initramfs.required(files.text_of(setup))


def _digest(root: Path, kernel: str) -> str:
    held = initramfs.read_list(files.text_of(_file(root, kernel, layout.INITRAMFS_LIST)))
    programs = {place for places in _required_programs(root) for place in places}
    present = [path for top in ("usr", "etc") for path in _files_below(root, top)]
    paths = {path.removeprefix("usr/"): path for path in present}
    relevant = initramfs.outdated_by(kernel, paths, held, programs)
    return rootstate.digest_of(root, [paths[path] for path in relevant])


def _files_below(root: Path, top: str) -> Iterator[str]:
    yield from (path for path, info in rootstate.of_image(root, top) if not stat.S_ISDIR(info.st_mode))


def _file(root: Path, kernel: str, name: str) -> Path:
    return root / layout.KERNEL_MODULES / kernel / name
