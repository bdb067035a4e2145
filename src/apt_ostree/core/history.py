"""history: lists all operations, shows one, compares two, and verifies the records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from apt_ostree.core.state import reading
from apt_ostree.core.state.inventory import packages_of
from apt_ostree.errors import ExternalFailure, Refused, UsageError
from apt_ostree.model import audit
from apt_ostree.model.history import Entry, merged
from apt_ostree.model.package import diff_packages
from apt_ostree.model.plan import count_files
from apt_ostree.model.queries import CompareOperations, History, ShowOperation, VerifyHistory
from apt_ostree.model.treediff import flatten
from apt_ostree.system import auditlog, statedb
from apt_ostree.system.caller import require_root
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.sysroot import Sysroot


def history(query: History) -> tuple[Entry, ...]:
    """Return operations, the oldest first; raise NotAuthorized without root."""
    require_root("read the history")
    with statedb.read_only() as state:
        rows = state.history(query.most) if state else ()
    entries = merged(rows, *auditlog.operations(query.most))
    return entries if query.most is None else entries[-query.most :]


def show_operation(query: ShowOperation) -> Entry:
    """Return one operation; raise UsageError if there is none of that number."""
    return _entry(query.number)


def verify(_query: VerifyHistory) -> Mapping[str, Any]:
    """Compare the records with their digests, with the head beside them, and with the systemd journal.

    Returns `ok`, `problems`, `records`, `first` and `last` of the records' numbers, and `journal`: the number
    of records that the systemd journal still has. Raises NotAuthorized without root.
    """
    require_root("verify the history")
    links, head = auditlog.links()
    told = auditlog.told_by_journal()
    problems = audit.verify(links, head, told)
    return {
        "ok": not problems,
        "problems": [problem.to_json() for problem in problems],
        "records": len(links),
        "first": min((link.number for link in links), default=0),
        "last": max((link.number for link in links), default=0),
        "journal": len(told),
    }


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
        if not entry.target:
            raise Refused(
                f"operation {entry.number} made no tree", hint=f"see 'apt-ostree history show {entry.number}'"
            )
        return entry.target
    booted = sysroot.deployments().booted
    assert booted  # opening the running system requires it
    return booted.checksum
