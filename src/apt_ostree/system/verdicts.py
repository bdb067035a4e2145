"""What is remembered of boots and live changes that have failed, and which boot is still to be judged.

Anybody may read it. It is a file of its own beside the state database: an older apt-ostree, to which a failed
boot may lead back, refuses a database with newer tables.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from apt_ostree.model.bootcounting import Counted, counter_of, root_of
from apt_ostree.system import files, statedb

if TYPE_CHECKING:  # `status` looks for it each time, and mostly there is none
    from apt_ostree.model.verdict import Memory

FILE = statedb.DIRECTORY / "verdicts.json"
#: Exists from the first boot of a deployment until its boot was judged good; a condition of units.
UNJUDGED = statedb.DIRECTORY / "unjudged"
_ENTRIES = Path("/boot/loader/entries")
_SYSROOT = Path("/sysroot")


def read() -> Memory:
    """Return what is remembered."""
    from apt_ostree.model.verdict import Memory, parse_memory

    text = files.text_of(FILE)
    return parse_memory(text) if text else Memory()


def write(memory: Memory) -> None:
    """Replace what is remembered, durably."""
    from apt_ostree.model.verdict import format_memory

    FILE.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    files.replace_text(FILE, format_memory(memory) + "\n")


def exists() -> bool:
    """Return whether anything is remembered."""
    return FILE.exists()


def given_up() -> Iterator[tuple[str, Counted]]:
    """Yield the entries that the boot loader has given up: their deployment's path and their counter.

    The path is that below the sysroot, as Deployment has it.
    """
    with contextlib.suppress(OSError):
        for path in sorted(_ENTRIES.glob("*+0*.conf")):
            counted = counter_of(path.name)
            root = root_of(files.text_of(path))
            target = Path(f"{_SYSROOT}{root}").resolve()
            if counted and not counted.left and root and target.is_relative_to(_SYSROOT):
                yield str(target.relative_to(_SYSROOT)), counted
