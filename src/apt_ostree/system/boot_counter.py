"""Boot counting by the menu of a composed disk: the counter in GRUB's environment block, and what GRUB tells.

The menu counts the attempts down. With none left it starts the deployment after the newest one. A system
without the block does not count.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from apt_ostree.model import grubenv, kargs

_BLOCK = "boot/grub/grubenv"
_COMMAND_LINE = Path("/proc/cmdline")


def note() -> str | None:
    """Return what the menu has told about this boot: grubenv.COUNTED or GAVE_UP; None if it did not count."""
    rows = (word.partition("=") for word in kargs.split(_COMMAND_LINE.read_text()))
    return next((value for key, _, value in rows if key == grubenv.ARGUMENT), None)


def attempts(root: Path) -> int:
    """Return how many attempts a deployment has; 0 if they are not counted."""
    return int(_read(root).get(grubenv.ATTEMPTS, "0"))


def start(root: Path) -> None:
    """Give the newest deployment its attempts."""
    _change(root, grubenv.started)


def stop(root: Path) -> None:
    """Count no longer, until another deployment is there."""
    _change(root, grubenv.stopped)


@contextmanager
def for_another_order(root: Path, is_staged: Callable[[], bool]) -> Iterator[None]:
    """Change the order of the deployments inside the block.

    If the power fails meanwhile, the first one has attempts: with none left, the menu would take the second.

    is_staged: whether a deployment is staged afterwards, which is to be counted.
    """
    if grubenv.COUNTER in _read(root):
        start(root)
    yield
    (start if is_staged() else stop)(root)


def _change(root: Path, change: Callable[[Mapping[str, str]], dict[str, str]]) -> None:
    before = _read(root)
    if not before or (after := change(before)) == before:
        return
    # In place: GRUB, too, writes into the blocks that the file has.
    fd = os.open(root / _BLOCK, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, grubenv.format_block(after).encode(), 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(root: Path) -> dict[str, str]:
    """Return the variables; none without a block."""
    try:
        return grubenv.parse((root / _BLOCK).read_text(errors="replace"))
    except (OSError, ValueError):
        return {}
