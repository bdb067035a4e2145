"""The records of approvals, a file for each plan. Only root can write them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from apt_ostree.errors import UsageError
from apt_ostree.model.approval import Approval
from apt_ostree.system import files

DIRECTORY = Path("/var/lib/apt-ostree/approvals")


def read() -> tuple[Approval, ...]:
    """Return all approvals, the oldest first; a record that cannot be read is none."""
    found = []
    for path in DIRECTORY.glob("*.json"):
        with suppress(UsageError):
            found.append(Approval.from_text(files.text_of(path)))
    return tuple(sorted(found, key=lambda approval: approval.time))


def write(approval: Approval, is_over: Callable[[Approval], bool]) -> None:
    """Record an approval, one for each plan and user. is_over: which older ones are removed."""
    DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in read():
        if is_over(old):
            _path(old).unlink(missing_ok=True)
    files.write_text(_path(approval), approval.to_text())


def _path(approval: Approval) -> Path:
    return DIRECTORY / f"{approval.plan}-{approval.uid}.json"
