"""What every overlay verb works with, and the one way in which it makes overlays something else.

What shows on the system changes by the live engine, as a generation with a plan and a way back; what does
not show (an overlay that is disabled, or empty) changes in the record alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from apt_ostree.core.live import engine, undo
from apt_ostree.core.overlays import stack
from apt_ostree.core.state import overlay_store
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, Refused
from apt_ostree.model import overlay_choice
from apt_ostree.model.history import Intent
from apt_ostree.model.overlay import Goal, Overlay, Transition
from apt_ostree.model.requests import LiveOptions
from apt_ostree.model.result import Result
from apt_ostree.model.sizes import show_size


@dataclass(frozen=True, slots=True)
class OverlaySession:
    """A transaction with the overlays of this machine, by their ids."""

    tx: Transaction
    overlays: Mapping[str, Overlay]


@contextmanager
def opened(tx: Transaction, what: str, *, dry_run: bool = False) -> Iterator[OverlaySession]:
    """Open the system for a change of overlays; what was interrupted is finished first."""
    with tx.changing(what):
        undo.recover_interrupted(tx, dry_run=dry_run)
        overlay_store.sync_refs(tx.sysroot, tx.records)  # a killed call may not have come to that
        yield OverlaySession(tx, overlay_store.load(tx.sysroot.repo, tx.records.overlays()))


def change(
    session: OverlaySession,
    transitions: Sequence[Transition],
    options: LiveOptions,
    *,
    unlock: str | None = None,
    within_quota: bool = True,
    dry_run: bool = False,
) -> Result:
    """Make overlays what the transitions say, on the running system too where it shows them.

    unlock: how /usr is unlocked afterwards, "none" to lock it, None to leave that as it is.
    """
    tx = session.tx
    moves = [transition for transition in transitions if transition.before != transition.after]
    details: dict[str, Any] = {"overlays": [transition.id for transition in transitions]}
    if not (moves or unlock):
        tx.message("No change.")
        return Result(changed=False, live=False, details=details)
    if within_quota:
        _refuse_over_quota(session, moves)
    goal = replace(_goal_after(session, moves), unlock=unlock)
    if goal.commit == tx.live.commit and not overlay_choice.is_shown(goal, moves) and not unlock:
        if not dry_run:
            _record(session, moves)
        return Result(changed=True, live=False, details=details)
    plan = engine.plan(tx, goal, options, ask=not dry_run)
    outcome = engine.carry_out(tx, plan, options, transitions=moves, dry_run=dry_run)
    if not dry_run:
        _remember(session, moves)
    del outcome["changed"]
    return Result(changed=True, live=outcome.pop("live"), details=details | outcome)


def _refuse_over_quota(session: OverlaySession, moves: Sequence[Transition]) -> None:
    """Refuse what makes overlays larger together than the administrator wants them to be."""
    quota = session.tx.settings.overlay_quota
    if not quota:
        return
    before = {overlay.id: overlay.state for overlay in session.overlays.values()}
    after = overlay_choice.after(before, moves)
    size, now = (_size(session, (s.commit for s in states.values())) for states in (after, before))
    if size > max(quota, now):
        raise Refused(
            f"the overlays would have {show_size(size)}, and Quota= of apt-ostree.conf is {show_size(quota)}",
            hint="remove some, see --list and --cleanup, or raise it",
        )


def _size(session: OverlaySession, commits: Iterable[str]) -> int:
    """Return the bytes that commits have together; the same content, and what is damaged, do not count."""
    sizes: dict[str, int] = {}
    for commit in commits:
        with suppress(ExternalFailure):
            sizes |= overlay_store.files(session.tx.sysroot.repo, commit)
    return sum(sizes.values())


def _goal_after(session: OverlaySession, moves: Sequence[Transition]) -> Goal:
    """Return what the system shows when overlays have become what the moves say."""
    states = overlay_choice.after({o.id: o.state for o in session.overlays.values()}, moves)
    overlays = overlay_store.load(session.tx.sysroot.repo, states.values())
    return stack.goal_with(session.tx, session.tx.live.base, overlays)


def _record(session: OverlaySession, moves: Sequence[Transition]) -> None:
    """Change the record alone: nothing of it shows."""
    tx = session.tx
    intent = Intent(tx.title, tx.caller.user, tx.live.commit, tx.live.commit)
    overlay_store.record(tx.sysroot, tx.records, moves, intent=intent)
    _remember(session, moves)
    for move in moves:
        done = "made" if move.before is None else "changed" if move.after else "removed"
        tx.message(f"Overlay {move.id} was {done}.")


def _remember(session: OverlaySession, moves: Sequence[Transition]) -> None:
    """Note which overlay was worked on last."""
    left = [move.id for move in moves if move.after]
    session.tx.records.set_note(overlay_store.LAST, left[-1] if left else None)
