"""The rules for the undo of settings of the running kernel: what somebody changed in between stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from apt_ostree.model.generation import KernelRecord
from apt_ostree.model.triggers import Trigger


def folded(older: KernelRecord, newer: KernelRecord) -> KernelRecord:
    """Return one record for two of the same setting, from which both are undone at once.

    What somebody changed between the two is part of the value before.
    """
    if older.after in (None, newer.before):
        return replace(newer, before=older.before)
    if newer.kind == Trigger.SYSCTL:
        return newer
    return replace(newer, before="\n".join(sorted(set(newer.before.splitlines()) - came(older))))


def value_before(records: Sequence[KernelRecord]) -> str:
    """Return the value before all records of one setting, the oldest first."""
    return reduce(folded, records).before


def came(record: KernelRecord, now: str = "") -> set[str]:
    """Return the names that a change added to a set.

    now: the present names; they count if the change was interrupted.
    """
    after = now if record.after is None else record.after
    return set(after.splitlines()).difference(record.before.splitlines())
