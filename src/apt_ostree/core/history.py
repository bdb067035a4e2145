"""history: what was done to the running system, one operation in detail, and what lies between two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from apt_ostree.core import host
from apt_ostree.core.state.inventory import packages_of
from apt_ostree.errors import ExternalFailure, Refused, UsageError
from apt_ostree.model.history import Entry
from apt_ostree.model.package import diff_packages
from apt_ostree.model.plan import count_files
from apt_ostree.model.treediff import flatten
from apt_ostree.system import statedb
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.sysroot import Sysroot


def entries() -> tuple[Entry, ...]:
    """Return all operations on the running system, the oldest first."""
    host.require_root("read the history")
    with statedb.read_only() as db:
        return db.history() if db else ()


def show(number: int) -> Entry:
    """Return one operation."""
    found = {entry.number: entry for entry in entries()}
    if number not in found:
        known = f"{min(found)} to {max(found)}" if found else "none"
        raise UsageError(f"there is no operation {number} in the history", hint=f"known: {known}")
    return found[number]


def compare(one: int, two: int) -> Mapping[str, Any]:
    """Return the packages and files that differ between what two operations made the system show."""
    first, second = (0 if n == 0 else show(n) for n in (one, two))
    with host.reading() as sysroot:
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
    """Return the commit that an operation made the system show; 0 is the booted one."""
    if isinstance(entry, Entry):
        return entry.target
    booted = sysroot.deployments().booted
    assert booted  # host.reading() required it
    return booted.checksum
