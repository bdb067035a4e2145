"""Makes two successive generations one: which ones, and the records from which both are undone at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from apt_ostree.model import etc_undo, kernel_undo
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.generation import EtcRecord, Generation, KernelRecord, Phase, UnitRecord
from apt_ostree.model.overlay import Transition


def to_fold(
    generations: Sequence[Generation], first: int, keep: int
) -> tuple[tuple[Generation, Generation], ...]:
    """Return the pairs (older, newer) to fold, in this order, so that `keep` generations stay.

    The older one of a pair becomes part of the newer one. A generation that waits to be confirmed, and those
    after it, are left alone: it may be undone without those before it.

    generations: those of this boot, the oldest first.
    first: the generation that was made at boot, or 0; it always stays.
    """
    later = [generation for generation in generations if generation.id > first]
    settled = list(itertools.takewhile(lambda g: g.phase is Phase.LIVE and g.confirm_by is None, later))
    return tuple(itertools.pairwise(settled))[: max(0, len(later) - keep)]


def fold_etc(older: Sequence[EtcRecord], newer: Sequence[EtcRecord]) -> tuple[EtcRecord, ...]:
    """Return the records of /etc of both: the older state before, the newer state after.

    What somebody changed between the two stays in the state before, as the undo of both would leave it.

    An undo goes through them backwards: it removes paths, those in a directory before it, and then writes
    paths, a directory before those in it. What has come back to its state is left out.
    """
    first = {record.path: record for record in older}
    last = first | {record.path: record for record in newer}
    both = [EtcRecord(path, _before(first.get(path), record), record.after) for path, record in last.items()]
    changed = sorted((r for r in both if r.before != r.after), key=lambda record: record.path)
    removed_by_undo = [record for record in changed if record.before == ABSENT]
    written_by_undo = [record for record in changed if record.before != ABSENT]
    return (*reversed(written_by_undo), *removed_by_undo)


def _before(older: EtcRecord | None, newer: EtcRecord) -> FileState:
    if older is None:
        return newer.before
    if newer is older or older.after == newer.before:
        return older.before
    kept = etc_undo.restored(older, newer.before)
    return newer.before if kept is None else kept


def fold_units(older: Sequence[UnitRecord], newer: Sequence[UnitRecord]) -> tuple[UnitRecord, ...]:
    """Return the units that were acted on; the first action on a unit shows what it was before."""
    first: dict[str, UnitRecord] = {}
    for record in (*older, *newer):
        if record.begun:
            first.setdefault(record.unit, record)
    return tuple(first.values())


def fold_kernel(older: Sequence[KernelRecord], newer: Sequence[KernelRecord]) -> tuple[KernelRecord, ...]:
    """Return what both changed in the running kernel: the older value before, the newer one after."""
    both: dict[tuple[str, str], KernelRecord] = {}
    for record in (*older, *newer):
        key = (record.kind, record.name)
        both[key] = kernel_undo.folded(both[key], record) if key in both else record
    return tuple(both.values())


def fold_transitions(older: Sequence[Transition], newer: Sequence[Transition]) -> tuple[Transition, ...]:
    """Return the transitions of overlays of both.

    What was made of an overlay between the two is not theirs to take back, nor what the older one made of it.
    """
    first, last = ({t.id: t for t in transitions} for transitions in (older, newer))
    return tuple(_folded(first.get(name), last.get(name)) for name in {**first, **last})


def _folded(older: Transition | None, newer: Transition | None) -> Transition:
    if older and newer and older.after == newer.before:
        return Transition(newer.id, older.before, newer.after)
    folded = newer or older
    assert folded
    return folded
