"""Puts files of the machine's /etc into the initramfs of a build root.

They are an archive behind the image, which the kernel unpacks over it. So the image itself need not be made
again. Where one follows, a file beside the image has the image's own size.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from apt_ostree.errors import Refused
from apt_ostree.model import cpio, layout
from apt_ostree.model.filestate import FileState
from apt_ostree.model.initramfs_etc import Entry, parents, reasons_against
from apt_ostree.system import confined, files

_MODULES = Path("/", layout.KERNEL_MODULES)
#: The files may be secret: nobody but root is to read an image that has them.
_PRIVATE = 0o600


def require_usable(paths: Sequence[str]) -> None:
    """Raise Refused if the /etc in view has one of these paths not, or what no initramfs can have."""
    reasons = [reason for path in paths for reason in reasons_against(path, _state, _below)]
    if reasons:
        raise Refused(
            "not all of it can be in the initramfs" if len(reasons) > 1 else reasons[0],
            details=reasons if len(reasons) > 1 else (),
            hint="'apt-ostree initramfs-etc' lists what is tracked, and --untrack=FILE gives a file up; "
            "nothing was changed",
        )


def strip(root: Path) -> None:
    """Take the files of /etc out of the images in a root."""
    confined.call(root, lambda _run: _strip(), _nothing_runs)


def read(root: Path, paths: Sequence[str]) -> bytes:
    """Return the archive of paths in the /etc of a root, empty for none; raise Refused if one cannot be."""
    if not paths:
        return b""
    return base64.b64decode(confined.call(root, lambda _run: _read(paths), _nothing_runs))


def append(root: Path, archive: bytes) -> None:
    """Let an archive follow the images in a root, unless it is empty; Refused if there is no image."""
    if archive:
        confined.call(root, lambda _run: _append(archive), _nothing_runs)


def _strip() -> None:
    for record in sorted(_MODULES.glob(f"*/{layout.INITRAMFS_SIZE}")):
        image = record.with_name(layout.INITRAMFS)
        if image.exists():
            os.truncate(image, int(record.read_text()))
        record.unlink()


def _read(paths: Sequence[str]) -> str:
    require_usable(paths)
    states = {name.lstrip("/"): state for path in paths for name, state in _entries(path)}
    return base64.b64encode(cpio.archive(states)).decode()


def _append(archive: bytes) -> None:
    images = sorted(_MODULES.glob(f"*/{layout.INITRAMFS}"))
    if not images:
        raise Refused("the deployment has no initramfs, in which files of /etc could be")
    for image in images:
        size = image.stat().st_size
        files.write_text(image.with_name(layout.INITRAMFS_SIZE), f"{size}\n")
        image.chmod(_PRIVATE)
        with image.open("ab") as stream:
            stream.write(cpio.padding(size) + archive)


def _entries(path: str) -> Iterator[Entry]:
    """Yield a path with the directories above it and all that is below it."""
    yield from ((parent, _state(parent)) for parent in parents(path))
    yield path, _state(path)
    yield from _below(path)


def _state(path: str) -> FileState:
    return files.read_state(Path(path))


def _below(path: str) -> Iterator[Entry]:
    top = Path(path)
    if top.is_dir() and not top.is_symlink():
        yield from ((f"{path}{name}", state()) for name, state in files.walk_below(top))


def _nothing_runs(_command: Sequence[str], what: str) -> None:
    raise AssertionError(f"no program is to run here: {what}")
