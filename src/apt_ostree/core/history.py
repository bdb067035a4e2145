"""history: lists the operations on the running system, shows one, and compares two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from apt_ostree.core.state import reading
from apt_ostree.core.state.inventory import packages_of
from apt_ostree.errors import ExternalFailure, Refused, UsageError
from apt_ostree.model.history import Entry
from apt_ostree.model.package import diff_packages
from apt_ostree.model.plan import count_files
from apt_ostree.model.queries import CompareOperations, History, ShowOperation
from apt_ostree.model.treediff import flatten
from apt_ostree.system import statedb
from apt_ostree.system.caller import require_root
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.sysroot import Sysroot


def history(query: History) -> tuple[Entry, ...]:
    """Return operations on the running system, the oldest first; raise NotAuthorized without root."""
    require_root("read the history")
    with statedb.read_only() as records:
        return records.history(query.most) if records else ()


def show_operation(query: ShowOperation) -> Entry:
    """Return one operation; raise UsageError if there is none of that number."""
    return _entry(query.number)


def _entry(number: int) -> Entry:
    entries = {entry.number: entry for entry in history(History())}
    if number not in entries:
        numbers = f"{min(entries)} to {max(entries)}" if entries else "none"
        raise UsageError(f"there is no operation {number} in the history", hint=f"there are: {numbers}")
    return entries[number]


def compare_operations(query: CompareOperations) -> Mapping[str, Any]:
    """Compare the commits that the system showed after two operations.

    Returns `source`, `target`, `packages`, `files` and `changes`. Raises UsageError for a number without an
    operation, and Refused when one of the commits was pruned.
    """
    one, two = query.one, query.two
    first, second = (0 if number == 0 else _entry(number) for number in (one, two))
    with reading.opened() as sysroot:
        old, new = (_shown(sysroot, entry) for entry in (first, second))
        try:
            changes = tuple(flatten(diff.diff_commits(sysroot.repo, old, new)))
            packages = diff_packages(packages_of(sysroot.repo, old), packages_of(sysroot.repo, new))
        except ExternalFailure as error:
            raise Refused(
                f"operations {one} and {two} cannot be compared: {error.message}",
                hint="commits are kept as long as a deployment or the running system shows them",
            ) from error
    return {
        "source": old,
        "target": new,
        "packages": asdict(packages),
        "files": count_files(changes),
        "changes": [[str(c.kind), f"/usr/{c.path}"] for c in changes if not c.is_dir],
    }


def _shown(sysroot: Sysroot, entry: Entry | int) -> str:
    """Return the commit that the system showed after an operation; 0 stands for the booted commit."""
    if isinstance(entry, Entry):
        return entry.target
    booted = sysroot.deployments().booted
    assert booted  # opening the running system requires it
    return booted.checksum
